"""Linear layers that are trained in bfloat16 on a CPU: the same numbers to the bit."""

import copy

import pytest
import torch
from torch import nn

from lerobot.common.policies.common.packed_linear import GeluLinear, is_linear
from lerobot.common.policies.common.trained_linear import TrainedLinear


def outcome(layer: nn.Linear, x: torch.Tensor, autocast: bool = False) -> dict:
    """Output and gradients of one forward and backward pass."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", enabled=autocast):
        y = layer(x)
    y.float().square().sum().backward()
    return {"output": y.detach(), "input": x.grad, **{name: p.grad for name, p in layer.named_parameters()}}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(4, 50, 72), (7, 72), (72,)])
def test_output_and_gradients_are_those_of_linear_to_the_bit(dtype, bias, shape):
    torch.manual_seed(0)
    layer = TrainedLinear(72, 96, bias=bias).to(dtype)
    plain = nn.Linear(72, 96, bias=bias).to(dtype)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(shape).to(dtype)
    expected, found = outcome(plain, x), outcome(layer, x)
    assert expected.keys() == found.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_copy_is_read_where_weights_are_trained_in_bfloat16_and_nowhere_else():
    layer, x = TrainedLinear(72, 96).bfloat16(), torch.randn(5, 72).bfloat16()
    assert "_Linear" in type(layer(x).grad_fn).__name__
    frozen = copy.deepcopy(layer).requires_grad_(False)
    assert frozen(x).grad_fn is None
    with torch.no_grad():
        assert layer(x).grad_fn is None
    with torch.autocast("cpu"):
        assert "_Linear" not in type(layer(x).grad_fn).__name__


def test_mixed_precision_gives_float32_gradients_of_float32_weights():
    torch.manual_seed(0)
    layer, plain = TrainedLinear(72, 96), nn.Linear(72, 96)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(3, 72)
    expected, found = outcome(plain, x, autocast=True), outcome(layer, x, autocast=True)
    assert all(torch.equal(found[key], expected[key]) for key in expected) and found["weight"].dtype == torch.float32


def test_a_layer_that_does_more_is_not_taken_for_a_linear_one():
    class Wrapped(nn.Linear):
        pass

    assert all(is_linear(kind(2, 2)) for kind in (nn.Linear, TrainedLinear, GeluLinear)) and not is_linear(
        Wrapped(2, 2)
    )
