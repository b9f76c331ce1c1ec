"""8-bit and bfloat16 chunks: near the exact ones, and never used where they are not."""

import pytest
import torch
from torch import nn

from lerobot.common.policies.common.attention import LONG, attend, bfloat16_scores
from lerobot.common.policies.common.fast_inference import use_inference_mode
from lerobot.common.policies.common.int8 import Int8Linear, quantize_linears, restore_linears


@pytest.mark.parametrize("rows", [(3,), (2, 40), (300,)])
@pytest.mark.parametrize("bias", [True, False])
def test_int8_product_is_near(rows, bias):
    torch.manual_seed(0)
    linear = nn.Linear(512, 256, bias=bias)
    x = torch.randn(*rows, 512) * torch.logspace(-2, 2, rows[-1])[:, None]  # rows of very different size
    expected, found = linear(x), Int8Linear(linear)(x)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    each = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert 0 < each.max() < 0.02


def test_int8_follows_autocast_and_dtype():
    linear = nn.Linear(256, 256)
    layer = Int8Linear(linear)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(4, 256)).dtype is torch.bfloat16
    half = Int8Linear(linear.bfloat16())
    assert half.weight.dtype is torch.bfloat16 and half(torch.randn(4, 256).bfloat16()).dtype is torch.bfloat16


def test_only_large_layers_are_replaced_and_can_be_restored():
    net = nn.Sequential(nn.Linear(256, 256), nn.Sequential(nn.Linear(256, 8)))
    first = net[0]
    replaced = quantize_linears(net)
    assert list(replaced) == ["0"] and isinstance(net[0], Int8Linear) and type(net[1][0]) is nn.Linear
    restore_linears(net, replaced)
    assert net[0] is first


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
    policy, batch = Planner(mode), {"x": torch.randn(1, 256)}
    use_inference_mode(policy)
    with caplog.at_level("INFO"), torch.no_grad():
        torch.manual_seed(1)
        found = policy.predict_action_chunk(batch)
        torch.manual_seed(1)
        again = policy.predict_action_chunk(batch)
    assert torch.equal(found, again) and found.dtype is torch.float32
    assert f"--policy.inference={mode}: 0.0" in caplog.text and "from the exact chunk" in caplog.text
    assert isinstance(policy.net, Int8Linear) is (mode == "int8")


def test_too_large_an_error_is_not_accepted(caplog):
    policy, batch = Planner("int8", scale=1e3), {"x": torch.randn(1, 256)}
    use_inference_mode(policy)
    with torch.no_grad():
        torch.manual_seed(1)
        found = policy.predict_action_chunk(batch)
        torch.manual_seed(1)
        expected = 1e3 * policy.net(batch["x"] + torch.randn(1, 256))
    assert torch.equal(found, expected) and type(policy.net) is nn.Linear
    assert "going on as trained" in caplog.text


def test_where_it_does_not_apply():
    policy = Planner("exact")
    use_inference_mode(policy)
    assert "predict_action_chunk" not in vars(policy)
    with pytest.raises(ValueError, match="is for a CPU.*use_amp"):
        use_inference_mode(Planner("int8", device="cuda"))


@pytest.mark.parametrize("keys", [LONG, 3 * LONG])
def test_scores_in_bfloat16_are_near_the_exact_ones(keys):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, 16).bfloat16() for n in (keys, keys, keys))
    expected = attend(query, key, value)
    with bfloat16_scores():
        found = attend(query, key, value)
        short = attend(query[:, :, :8], key[:, :, :8], value[:, :, :8])
    assert found.dtype is torch.bfloat16 and not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0.05)
    assert torch.equal(short, attend(query[:, :, :8], key[:, :, :8], value[:, :, :8]))
