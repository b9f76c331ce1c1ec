"""Cropping and keypoints."""

import pytest
import torch

from lerobot.common.policies.common.rgb_encoder import SpatialSoftmax, crop

RAMP = torch.arange(100.0).view(1, 1, 10, 10)


@pytest.mark.parametrize("side, size, first", [(9, 4, 2), (7, 4, 2), (5, 4, 0), (10, 5, 2)])
def test_centre_crop_rounds_halves_to_even(side, size, first):
    cut = crop(torch.arange(side).repeat(side, 1)[None], (size, size), random=False)
    assert cut[0, 0].tolist() == list(range(first, first + size))


def test_random_crop_has_one_place_for_the_whole_batch():
    torch.manual_seed(3)
    top, left = torch.randint(0, 7, (1,)).item(), torch.randint(0, 5, (1,)).item()
    torch.manual_seed(3)
    cut = crop(RAMP.repeat(5, 3, 1, 1), (4, 6), random=True)
    assert (cut == RAMP[..., top : top + 4, left : left + 6]).all()


def test_a_picture_of_the_crop_size_draws_nothing():
    before = torch.get_rng_state()
    assert torch.equal(crop(RAMP, (10, 10), random=True), RAMP)
    assert torch.equal(before, torch.get_rng_state())


def test_keypoint_of_a_single_peak_is_its_position():
    maps = torch.full((1, 2, 3, 5), -100.0)
    maps[0, 0, 0, 4] = maps[0, 1, 2, 2] = 100.0  # top right; bottom middle
    pool = SpatialSoftmax((2, 3, 5))
    torch.testing.assert_close(pool(maps), torch.tensor([[[1.0, -1.0], [0.0, 1.0]]]))


def test_keypoints_of_flat_maps_are_in_the_middle():
    pool = SpatialSoftmax((4, 3, 3), num_kp=6)
    points = pool(torch.ones(2, 4, 3, 3))
    assert points.shape == (2, 6, 2) and points.abs().max() < 1e-6
