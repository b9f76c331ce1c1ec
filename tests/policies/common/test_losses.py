"""The masked mean over valid entries."""

import pytest
import torch

from lerobot.common.policies.common.losses import masked_mean, repeat_into_padding, zero_padding

VALUES = torch.arange(24.0).view(2, 3, 4)
IS_PAD = torch.tensor([[False, False, True], [False, True, True]])


def test_mean_is_over_valid_steps():
    valid = VALUES[~IS_PAD]
    assert masked_mean(VALUES, IS_PAD) == valid.mean()


def test_padded_action_dimensions_do_not_count():
    assert masked_mean(VALUES, IS_PAD, width=3) == VALUES[~IS_PAD][:, :3].mean()
    assert masked_mean(VALUES, None, width=3) == VALUES[..., :3].mean()


def test_over_padding_divides_by_all_entries():
    assert masked_mean(VALUES, IS_PAD, over_padding=True) == VALUES[~IS_PAD].sum() / VALUES.numel()
    width_and_padding = masked_mean(VALUES, IS_PAD, width=3, over_padding=True)
    assert width_and_padding == VALUES[~IS_PAD][:, :3].sum() / VALUES.numel()


def test_without_mask_or_width_it_is_the_plain_mean():
    assert masked_mean(VALUES, None) == masked_mean(VALUES, None, over_padding=True) == VALUES.mean()


def test_one_number_per_step_has_no_action_axis():
    assert masked_mean(VALUES[..., 1], IS_PAD) == VALUES[..., 1][~IS_PAD].mean()


def test_nothing_valid_is_zero():
    assert masked_mean(VALUES, torch.ones_like(IS_PAD)) == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1.0])
@pytest.mark.parametrize("over_padding", [False, True])
def test_padded_frames_have_no_gradient(bad, over_padding):
    values = torch.where(IS_PAD[..., None], bad, VALUES).requires_grad_()
    loss = masked_mean(values, IS_PAD, width=3, over_padding=over_padding)
    loss.backward()
    assert loss.isfinite()
    assert (values.grad[IS_PAD] == 0).all() and (values.grad[..., 3] == 0).all()
    assert (values.grad[~IS_PAD][:, :3] == 1 / (24 if over_padding else 9)).all()


def test_a_padded_nan_target_reaches_no_prediction():
    target = torch.where(IS_PAD[..., None], float("nan"), VALUES)
    predicted = torch.zeros(2, 3, 4, requires_grad=True)
    masked_mean((predicted - zero_padding(target, IS_PAD)).square(), IS_PAD).backward()
    assert predicted.grad.isfinite().all() and (predicted.grad[IS_PAD] == 0).all()


def test_padded_steps_repeat_the_nearest_earlier_valid_one():
    values = torch.arange(12.0).view(2, 6, 1)
    pad = torch.tensor([[1, 1, 0, 1, 0, 1], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    values[pad] = float("nan")
    assert repeat_into_padding(values, pad)[..., 0].tolist() == [[2, 2, 2, 2, 4, 4], [0] * 6]


def test_without_padding_nothing_is_repeated():
    values = torch.arange(6.0).view(1, 3, 2)
    assert repeat_into_padding(values, None) is values
    assert torch.equal(repeat_into_padding(values, torch.zeros(1, 3, dtype=torch.bool)), values)
