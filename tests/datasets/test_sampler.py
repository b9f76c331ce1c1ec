"""The order in which frames are visited."""

import json
import pickle

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader

from lerobot.common.datasets.sampler import EpisodeAwareSampler, EpochSampler
from lerobot.common.utils.random_utils import derive_seed
from tests.datasets.conftest import ARTIFACTS

CASES = json.loads((ARTIFACTS / "samplers.json").read_text())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("legacy", [True, False])
def test_episode_aware_orders_equal_the_reference(case, legacy):
    bounds = {"from": torch.tensor(case["from"]), "to": torch.tensor(case["to"])}
    first = (bounds,) if legacy else (case["from"], case["to"])
    options = {
        "episode_indices_to_use": case["episodes"],
        "drop_n_first_frames": case["drop_n_first_frames"],
        "drop_n_last_frames": case["drop_n_last_frames"],
    }
    sampler = EpisodeAwareSampler(*first, **options)
    assert list(sampler) == sampler.indices == case["order"] and len(sampler) == case["len"]
    shuffled = EpisodeAwareSampler(*first, *options.values(), True)
    torch.manual_seed(1234)
    assert [list(shuffled), list(shuffled)] == case["shuffled_after_torch_manual_seed_1234"]


def test_both_keyword_forms_and_unknown_ones():
    bounds = {"from": [0, 3], "to": [3, 5]}
    assert list(EpisodeAwareSampler(episode_data_index=bounds)) == [0, 1, 2, 3, 4]
    assert list(EpisodeAwareSampler(dataset_from_indices=[0, 3], dataset_to_indices=[3, 5])) == [
        0,
        1,
        2,
        3,
        4,
    ]
    with pytest.raises(TypeError, match="drop_all"):
        EpisodeAwareSampler(bounds, drop_all=True)


def test_an_epoch_visits_every_frame_once_in_an_order_of_its_own():
    sampler = EpochSampler(50, seed=1)
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(50)) and first != second
    assert list(EpochSampler(50, seed=1, epoch=1)) == second
    assert list(EpochSampler(50, seed=2)) != first
    assert sorted(EpochSampler([3, 5, 9], seed=1)) == [3, 5, 9]
    assert list(EpochSampler(4, shuffle=False)) == [0, 1, 2, 3]


def test_a_resumed_sampler_continues_the_same_order():
    whole = EpochSampler(20, seed=3)
    expected = [*whole, *whole]
    sampler = EpochSampler(20, seed=3)
    iterator = iter(sampler)
    begun = [next(iterator) for _ in range(7)]
    resumed = EpochSampler(20)
    resumed.load_state_dict(json.loads(json.dumps(sampler.state_dict())))
    assert begun + [*resumed, *resumed] == expected
    assert [*EpochSampler(20, seed=3, position=7)] == expected[7:20]


def test_a_loader_runs_epoch_after_epoch():
    sampler = EpochSampler(10, seed=5)
    loader = DataLoader(range(10), batch_sampler=BatchSampler(sampler, 4, False), num_workers=1)
    seen = [torch.cat(list(loader)).tolist() for _ in range(2)]
    assert seen == [EpochSampler(10, seed=5).order(epoch) for epoch in (0, 1)]


def test_a_frame_carries_the_seed_of_its_draws():
    frame = next(iter(EpochSampler(10, seed=5, epoch=2)))
    assert frame.draw_seed == derive_seed(5, 2, int(frame))
    copy = pickle.loads(pickle.dumps(frame))  # as it travels to a worker
    assert copy == frame and copy.draw_seed == frame.draw_seed
    assert len({derive_seed(5, epoch, index) for epoch in range(20) for index in range(50)}) == 1000
