"""8-bit and bfloat16 chunks: near the exact ones, and never used where they are not."""

from functools import partial

import pytest
import torch
from torch import nn

from lerobot.common.policies.common.fast_inference import use_inference_mode
from lerobot.common.policies.common.int8 import (
    FEWEST,
    Int8Linear,
    OneDnnInt8Linear,
    busy_linears,
    has_onednn_int8,
    quantize_linears,
)
from lerobot.common.policies.common.packed_linear import (
    GeluLinear,
    PackedLinear,
    has_onednn_products,
    linear_gelu_linear,
    pack_linears,
    project,
    restore_linears,
)

needs_onednn = pytest.mark.skipif(
    not has_onednn_products(), reason="this CPU or torch has no bfloat16 products of oneDNN"
)


EIGHT_BIT = (Int8Linear, OneDnnInt8Linear)
INT8 = [
    Int8Linear,
    pytest.param(
        OneDnnInt8Linear, marks=pytest.mark.skipif(not has_onednn_int8(), reason="torch has no 8-bit product of oneDNN")
    ),
]


@pytest.mark.parametrize("kind", INT8)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gelu", [True, False])
def test_int8_product_is_near(kind, dtype, bias, gelu):
    torch.manual_seed(0)
    linear, x = nn.Linear(512, 256, bias=bias).to(dtype), torch.randn(2, 40, 512).to(dtype)
    with torch.no_grad():
        expected, found = linear(x), kind(linear)(x, gelu=gelu)
        expected = nn.functional.gelu(expected, approximate="tanh") if gelu else expected
    assert found.shape == expected.shape and found.dtype == dtype
    assert 0 < (found - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("kind", [nn.Identity, *INT8])
def test_layers_of_one_input_give_together_what_they_give_apart(kind, monkeypatch):
    linears, x = [nn.Linear(256, n) for n in (256, 300)], torch.randn(2, 3, 256)
    layers = linears if kind is nn.Identity else [kind(linear) for linear in linears]
    with torch.no_grad():
        expected = [layer(x) for layer in layers]
        if kind is OneDnnInt8Linear:
            rounded = kind.round(x)
            monkeypatch.setattr(kind, "round", staticmethod(lambda x, once=[rounded]: once.pop()))
        found = project(x, *layers)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("kind", INT8)
@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_int8_product_of_equal_values(kind, value):
    linear = nn.Linear(256, 256)
    x = torch.full((2, 256), value)
    kind(linear)(x)
    assert (x == value).all(), "its input was changed"
    torch.testing.assert_close(kind(linear)(x), linear(x), atol=0.05, rtol=0.02)


@pytest.mark.parametrize("rows", [(3,), (2, 40), (300,)])
@pytest.mark.parametrize("bias", [True, False])
def test_int8_rows_of_different_size_have_scales_of_their_own(rows, bias):
    torch.manual_seed(0)
    linear = nn.Linear(512, 256, bias=bias)
    x = torch.randn(*rows, 512) * torch.logspace(-2, 2, rows[-1])[:, None]  # rows of very different size
    expected, found = linear(x), Int8Linear(linear)(x)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    each = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert 0 < each.max() < 0.02


@pytest.mark.parametrize("kind", INT8)
def test_int8_follows_autocast_and_dtype(kind):
    linear = nn.Linear(256, 256)
    layer = kind(linear)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(4, 256)).dtype is torch.bfloat16
    half = kind(linear.bfloat16())
    assert half.weight.dtype is torch.bfloat16 and half(torch.randn(4, 256).bfloat16()).dtype is torch.bfloat16


def test_only_large_layers_are_replaced_and_can_be_restored():
    net = nn.Sequential(nn.Linear(256, 256), nn.Sequential(nn.Linear(256, 8)))
    first = net[0]
    replaced = quantize_linears(net)
    assert list(replaced) == ["0"] and isinstance(net[0], EIGHT_BIT) and type(net[1][0]) is nn.Linear
    restore_linears(net, replaced)
    assert net[0] is first


@needs_onednn
@pytest.mark.parametrize("rows, busy", [(FEWEST // 256**2 + 1, ["0"]), (8, [])])
def test_layers_whose_gelu_is_in_their_product_are_counted_as_well(rows, busy):
    net = nn.Sequential(GeluLinear(256, 256), nn.Linear(256, 8)).bfloat16()
    with torch.no_grad(), busy_linears(net) as found:
        linear_gelu_linear(*net, torch.randn(rows, 256).bfloat16())
    assert sorted(found) == busy


def test_what_an_adapter_adds_to_a_layer_comes_before_its_gelu():
    class Adapted(nn.Module):
        """As peft's layers, which hand on every argument."""

        def __init__(self, base):
            super().__init__()
            self.base_layer = base

        def forward(self, x, *args, **kwargs):
            return self.base_layer(x, *args, **kwargs) + 1

    first, second, x = GeluLinear(8, 16), nn.Linear(16, 8), torch.randn(3, 8)
    expected = second(nn.functional.gelu(first(x) + 1, approximate="tanh"))
    assert torch.equal(linear_gelu_linear(Adapted(first), second, x), expected)


@pytest.mark.parametrize("kind", INT8)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_int8_layers_with_a_gelu_between_are_near(kind, dtype):
    torch.manual_seed(0)
    first, second = GeluLinear(256, 512).to(dtype), nn.Linear(512, 256).to(dtype)
    one, two = kind(first), kind(second)
    with torch.no_grad():
        for scale in (0.0, 1.0, 20.0, 0.1):  # what the first call was like, much larger values, smaller ones again
            x = (scale * torch.randn(2, 40, 256)).to(dtype)
            expected, found = linear_gelu_linear(first, second, x), linear_gelu_linear(one, two, x)
            assert found.shape == expected.shape and found.dtype == dtype
            apart = two(one(x, gelu=True))
            assert (found - expected).norm() < 0.03 * max(expected.norm(), 1)
            assert (found - apart).norm() < 0.03 * max(apart.norm(), 1)


@pytest.mark.parametrize("kind", INT8)
def test_int8_layers_with_a_gelu_between_forget_what_came_before(kind):
    one, two, x = kind(nn.Linear(256, 512)), kind(nn.Linear(512, 256)), torch.randn(2, 40, 256)
    with torch.no_grad():
        expected = linear_gelu_linear(one, two, x)
        for scale in (20.0, 0.1):
            linear_gelu_linear(one, two, scale * x)
            assert torch.equal(linear_gelu_linear(one, two, x), expected)


BUSY = -(-FEWEST // 256**2)  # rows from which a product of 256 x 256 gains from 8 bits


@pytest.mark.parametrize("rows, rounded", [(BUSY, True), (BUSY - 1, False)])
def test_only_layers_whose_calls_are_large_are_rounded_to_8_bits(rows, rounded):
    policy = Planner("int8")
    use_inference_mode(policy)
    with torch.no_grad():
        policy.predict_action_chunk({"x": torch.randn(rows, 256)})
    assert isinstance(policy.net, EIGHT_BIT) is rounded
    assert not policy.net._forward_pre_hooks, "what looked on is gone"


class Planner(nn.Module):
    """Enough of a policy: a network and a configuration."""

    name = "planner"

    def __init__(self, inference, device="cpu", scale=1.0):
        super().__init__()
        self.net, self.scale = nn.Linear(256, 256), scale
        self.config = type("Config", (), {"inference": inference, "device": device})

    def predict_action_chunk(self, batch, noise=None):
        noise = torch.randn(batch["x"].shape) if noise is None else noise
        return self.scale * self.net(batch["x"] + noise)


@pytest.mark.parametrize("mode", ["bf16", "int8"])
def test_first_observation_is_compared_from_the_same_noise(mode, caplog):
    policy, batch = Planner(mode), {"x": torch.randn(BUSY, 256)}
    use_inference_mode(policy)
    with caplog.at_level("INFO"), torch.no_grad():
        torch.manual_seed(1)
        found = policy.predict_action_chunk(batch)
        torch.manual_seed(1)
        again = policy.predict_action_chunk(batch)
    assert torch.equal(found, again) and found.dtype is torch.float32
    assert f"--policy.inference={mode}: 0.0" in caplog.text and "from the exact chunk" in caplog.text
    assert isinstance(policy.net, EIGHT_BIT) is (mode == "int8")


def test_too_large_an_error_is_not_accepted(caplog):
    policy, batch = Planner("int8", scale=1e3), {"x": torch.randn(BUSY, 256)}
    use_inference_mode(policy)
    with torch.no_grad():
        torch.manual_seed(1)
        found = policy.predict_action_chunk(batch)
        torch.manual_seed(1)
        expected = 1e3 * policy.net(batch["x"] + torch.randn(BUSY, 256))
    assert torch.equal(found, expected) and type(policy.net) is nn.Linear
    assert "going on as trained" in caplog.text


def test_where_it_does_not_apply():
    for mode in ("exact", "plain"):  # nothing in bfloat16 to pack
        policy = Planner(mode)
        use_inference_mode(policy)
        assert "predict_action_chunk" not in vars(policy)
    with pytest.raises(ValueError, match="is for a CPU.*use_amp"):
        use_inference_mode(Planner("int8", device="cuda"))


class HalfPlanner(Planner):
    """A policy whose network is in bfloat16."""

    def __init__(self, inference):
        super().__init__(inference)
        self.net = nn.Sequential(nn.Linear(256, 96), nn.Linear(96, 256, bias=False)).bfloat16()

    def predict_action_chunk(self, batch, noise=None):
        return self.net((batch["x"] + torch.randn(batch["x"].shape)).bfloat16()).float()


@needs_onednn
def test_exact_chunks_come_from_packed_weights_with_the_same_bits():
    policy, batch = HalfPlanner("exact"), {"x": torch.randn(3, 256)}
    with torch.no_grad():
        torch.manual_seed(1)
        expected = [policy.predict_action_chunk(batch) for _ in range(2)]
        use_inference_mode(policy)
        torch.manual_seed(1)
        found = [policy.predict_action_chunk(batch) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all(isinstance(part, PackedLinear) for part in policy.net)


@needs_onednn
def test_packed_weights_that_give_other_bits_are_given_up(monkeypatch, caplog):
    policy, batch = HalfPlanner("exact"), {"x": torch.randn(3, 256)}
    use_inference_mode(policy)
    monkeypatch.setattr(PackedLinear, "forward", lambda self, x: x.new_zeros(*x.shape[:-1], self.out_features))
    with torch.no_grad():
        found = policy.predict_action_chunk(batch)
    assert found.abs().max() > 0 and all(type(part) is nn.Linear for part in policy.net)
    assert "Packed weights give other actions" in caplog.text


def test_without_the_private_products_a_policy_stays_as_it_is(monkeypatch):
    monkeypatch.setattr("lerobot.common.policies.common.fast_inference.has_onednn_products", lambda: False)
    policy = HalfPlanner("exact")
    use_inference_mode(policy)
    assert "predict_action_chunk" not in vars(policy)


@needs_onednn
@pytest.mark.parametrize("half", [False, True])
def test_packing_replaces_what_computes_in_bfloat16(half):
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4).bfloat16())
    first, x = net[0], torch.randn(2, 3, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = net(x)
        replaced = pack_linears(net, half=half)
        found = net(x)
    assert list(replaced) == (["0", "1"] if half else ["1"])
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0.01)
    restore_linears(net, replaced)
    assert net[0] is first


@needs_onednn
@pytest.mark.parametrize("packed", [False, True])
def test_gelu_in_the_product_is_nearer_to_the_truth_than_after_it(packed):
    torch.manual_seed(0)
    linear, x = GeluLinear(64, 96).bfloat16(), torch.randn(2, 50, 64).bfloat16()
    with torch.no_grad():
        truth = nn.functional.gelu(linear.double()(x.double()), approximate="tanh")
        linear.bfloat16()
        apart = nn.functional.gelu(linear(x), approximate="tanh")
        found = (PackedLinear(linear) if packed else linear)(x, gelu=True)
    assert found.dtype is torch.bfloat16 and found.shape == apart.shape
    assert (found - truth).norm() < (apart - truth).norm()


@needs_onednn
@pytest.mark.parametrize("swap", [partial(pack_linears, half=False), quantize_linears])
def test_layers_with_their_gelu_are_packed_and_quantized_like_others(swap):
    net = nn.Sequential(GeluLinear(256, 256)).bfloat16()
    restored = swap(net)
    assert list(restored) == ["0"] and isinstance(net[0], (PackedLinear, *EIGHT_BIT))
    restore_linears(net, restored)
    assert type(net[0]) is GeluLinear


@pytest.mark.parametrize("dtype, grad", [(torch.bfloat16, True), (torch.float32, True), (torch.float32, False)])
def test_gelu_with_gradients_or_in_float32_is_the_ordinary_one(dtype, grad):
    linear, x = GeluLinear(8, 8).to(dtype), torch.randn(2, 8).to(dtype)
    with torch.set_grad_enabled(grad):
        found = linear(x, gelu=True)
        assert found.requires_grad is grad
        assert torch.equal(found, nn.functional.gelu(linear(x), approximate="tanh"))
