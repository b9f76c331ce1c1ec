"""Attention holds against torch's own."""

import pytest
import torch
from torch import nn

from lerobot.common.policies.common.attention import MultiheadAttention, attend, bias_in

MASK = torch.tensor([[False] * 4 + [True] * 3, [False] * 7])


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "padded"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("crossed", [False, True], ids=["self", "cross"])
def test_output_gradients_and_dropout_draws_equal_torch(mask, dropout, crossed):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(32, 4, dropout=dropout)
    ours = MultiheadAttention(32, 4, dropout=dropout)
    ours.load_state_dict(theirs.state_dict())
    value, position = torch.randn(7, 2, 32), torch.randn(7, 1, 32)
    key = value + position
    query = torch.randn(5, 2, 32) if crossed else key
    torch.manual_seed(1)
    expected = theirs(query, key, value, key_padding_mask=mask)[0]
    torch.manual_seed(1)
    got = ours(query, key, value, mask)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)
    for out in (got, expected):
        out.square().sum().backward()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs.get_parameter(name).grad, atol=1e-4, rtol=1e-4, msg=name)


def test_dropout_is_off_in_eval_mode():
    attention = MultiheadAttention(8, 2, dropout=0.5).eval()
    x = torch.randn(3, 1, 8)
    assert torch.equal(attention(x, x, x), attention(x, x, x))


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_on_a_cpu_is_computed_in_float32_and_returned_in_its_dtype(autocast):
    q, k, v = (torch.randn(2, 3, 5, 8, dtype=torch.bfloat16) for _ in range(3))
    mask = torch.tensor([[True, True, True, True, False]])
    expected = nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float(), mask)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        got = attend(q, k, v, mask)
    assert torch.equal(got, expected.bfloat16())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_bias_stays_finite_in_every_precision(dtype):
    bias = bias_in(dtype, torch.tensor([0.0, torch.finfo(torch.float32).min / 2]))
    assert bias.dtype is dtype and bias.isfinite().all() and bias[1] < -3e4
