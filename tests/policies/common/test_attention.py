"""Attention holds against torch's own."""

import pytest
import torch
from torch import nn

from lerobot.common.policies.common import long_attention
from lerobot.common.policies.common.attention import MultiheadAttention, attend, bias_in
from lerobot.common.policies.common.long_attention import LONG, attend_long, has_long_attention

TILES = "lerobot.common.policies.common.attention.has_tiles"


@pytest.fixture(autouse=True)
def without_tiles(monkeypatch):
    """Every CPU takes the way of one without tile registers, where a test does not say otherwise."""
    monkeypatch.setattr(TILES, lambda: False)


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


needs_products = pytest.mark.skipif(not has_long_attention(), reason="this CPU or torch has no products of oneDNN")
sdpa = nn.functional.scaled_dot_product_attention


def long_inputs(score: float = 1.0, keys: int = LONG, width: int = 16) -> list[torch.Tensor]:
    """Query (2, 3, 3/2 N, d), keys and values (2, 3, N, d) with the strides of a projection; `score`: their spread."""
    torch.manual_seed(0)
    count = keys + keys // 2
    sizes = ((count, score), (keys, 1.0), (keys, 1.0))
    return [(torch.randn(2, n, 3, width) * scale).bfloat16().transpose(1, 2) for n, scale in sizes]


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@needs_products
@pytest.mark.parametrize("keys", [LONG, 600])
@pytest.mark.parametrize("score", [0.0, 1.0, 4.0])
@torch.no_grad()
def test_long_attention_in_bfloat16_rounds_about_as_torch_does_there(score, keys):
    inputs = long_inputs(score, keys)
    truth = sdpa(*(x.double() for x in inputs))
    found = attend_long(*inputs)
    assert found.shape == truth.shape and found.dtype is torch.bfloat16
    assert off(found, truth) < 4e-3  # a rounding to bfloat16 alone is off by 1.7e-3
    assert torch.equal(attend(*inputs), found)


@needs_products
@pytest.mark.parametrize("shift", [-60.0, 60.0])
@torch.no_grad()
def test_scores_out_of_range_are_computed_in_float32(shift):
    query, key, value = long_inputs()
    query[..., 0], key[..., 0] = 4 * shift / 8, 8.0  # every score comes to lie about there
    assert attend_long(query, key, value) is None
    expected = sdpa(query.float(), key.float(), value.float()).bfloat16()
    assert torch.equal(attend(query, key, value), expected)


@needs_products
@torch.no_grad()
def test_one_score_that_is_too_large_is_noticed():
    query, key, value = long_inputs()
    query[1, 2, 5], key[1, 2, 7] = 16.0, 16.0
    assert attend_long(query, key, value) is None


@needs_products
@torch.no_grad()
def test_numbers_that_are_none_stay_none():
    query, key, value = long_inputs()
    query[0, 0, 3, 1] = float("nan")
    assert attend(query, key, value)[0, 0, 3].isnan().all()


def test_gradients_masks_and_short_or_odd_inputs_take_the_usual_way(monkeypatch):
    monkeypatch.setattr(long_attention, "has_long_attention", lambda: True)
    monkeypatch.setattr("lerobot.common.policies.common.attention.attend_long", lambda *_: pytest.fail("was used"))
    query, key, value = long_inputs()
    attend(query.requires_grad_(), key, value).sum().backward()
    with torch.no_grad():
        attend(query, key, value, torch.zeros(1, 1, 1, LONG))
        attend(query[:, :, :8], key[:, :, :8], value[:, :, :8])
        attend(*(x.float() for x in (query, key, value)))
        attend(*long_inputs(width=8))  # 1 / sqrt(8) would have to be rounded


def test_without_the_private_products_attention_is_computed_in_float32(monkeypatch):
    monkeypatch.setattr("lerobot.common.policies.common.attention.suits_long_attention", lambda *_: False)
    query, key, value = long_inputs()
    with torch.no_grad():
        found = attend(query, key, value)
    assert torch.equal(found, sdpa(query.float(), key.float(), value.float()).bfloat16())


@pytest.mark.parametrize("keys", [7, LONG])
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_with_tile_registers_bfloat16_is_attended_there(keys, masked, monkeypatch):
    monkeypatch.setattr(TILES, lambda: True)
    inputs = long_inputs(keys=keys)
    mask = None
    if masked:  # as attention_bias makes it; the last query may look at nothing
        mask = torch.zeros(1, 1, inputs[0].shape[2], keys)
        mask[..., -3:] = mask[..., -1, :] = torch.finfo(torch.float32).min / 2
    found = attend(*inputs, mask)
    truth = sdpa(*(x.double() for x in inputs), None if mask is None else mask.double())
    assert found.dtype is torch.bfloat16 and off(found, truth) < 4e-3
    assert torch.equal(found, sdpa(*inputs, mask))


def test_with_tile_registers_gradients_are_still_computed_in_float32(monkeypatch):
    monkeypatch.setattr(TILES, lambda: True)
    query, key, value = (x.requires_grad_() for x in long_inputs())
    expected = sdpa(query.float(), key.float(), value.float()).bfloat16()
    assert torch.equal(attend(query, key, value), expected)
