"""Several datasets as one."""

import numpy as np
import pytest
import torch

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset, MultiLeRobotDataset
from lerobot.common.datasets.sampler import EpisodeAwareSampler
from tests.datasets.conftest import features, record

EXTRA = {"observation.force": {"dtype": "float32", "shape": (1,), "names": None}}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    record(home / "me/first", (4, 3))
    record(home / "me/second", (5,), first_episode=7, feature_set=features(video=2), codebase_version="v3.0")
    return home


def test_frames_follow_each_other_and_only_common_features_are_kept(home):
    both = MultiLeRobotDataset(["me/first", "me/second"], root=home)
    second = LeRobotDataset("me/second", root=home / "me/second")
    assert (len(both), both.num_episodes, both.fps) == (12, 3, 10)
    assert both.disabled_features == {"observation.images.cam1"} and both.camera_keys == ["observation.images.cam0"]
    item = both[7]
    assert item["dataset_index"] == 1 and "observation.images.cam1" not in item
    assert torch.equal(item["action"], second[0]["action"])
    assert torch.equal(both[-1]["action"], second[4]["action"])
    assert both.repo_index_to_id == {0: "me/first", 1: "me/second"}
    np.testing.assert_array_equal(both.stats["action"]["count"], [12])
    with pytest.raises(IndexError):
        both[12]


def test_subsets_and_windows_per_dataset(home):
    part = MultiLeRobotDataset(
        ["me/first", "me/second"], root=home, episodes={"me/first": [1]}, delta_timestamps={"action": [0.0, 0.1]}
    )
    assert len(part) == 8 and part[2]["action_is_pad"].tolist() == [False, True]


def test_a_seeded_sampler_repeats_its_epochs_and_maps_to_a_subset():
    bounds = {"from": [0, 5], "to": [5, 9]}
    sampler = EpisodeAwareSampler(bounds, shuffle=True, seed=3)
    first, second = list(sampler), list(sampler)
    assert first != second and sorted(first) == list(range(9))
    sampler.set_epoch(0)
    assert list(sampler) == first
    places = {index: index - 5 for index in range(5, 9)}
    options = {"episode_indices_to_use": [1], "absolute_to_relative_idx": places}
    assert list(EpisodeAwareSampler(bounds["from"], bounds["to"], **options)) == [0, 1, 2, 3]
