"""Items of a dataset on disk: values, windows, subsets, batches."""

import json

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lerobot.common.datasets.compute_stats import aggregate_stats
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
from tests.datasets.conftest import ARTIFACTS, features, picture, record

DELTAS = {"action": [-0.1, 0.0, 0.1, 0.2], "observation.state": [0.0], "observation.images.cam0": [-0.1, 0.0]}


def assert_same_item(left: dict, right: dict):
    assert left.keys() == right.keys()
    for key, value in left.items():
        same = torch.equal(value, right[key]) if isinstance(value, torch.Tensor) else value == right[key]
        assert same, key


@pytest.mark.parametrize("version", ["v21", "v30"])
def test_items_equal_the_reference(golden, version):
    tensors, expected = golden
    dataset = LeRobotDataset(
        None,
        root=ARTIFACTS / version,
        delta_timestamps=expected["delta_timestamps"],
        return_uint8=True,
    )
    assert (len(dataset), dataset.num_episodes) == (expected["len"], expected["episodes"])
    for index in expected["indices"]:
        item = dataset[index]
        assert item.pop("task") == expected["text"][f"{index}.task"]
        names = {f"item.{index}.{k}{'.uint8' if v.dtype == torch.uint8 else ''}": v for k, v in item.items()}
        assert names.keys() == {k for k in tensors if k.startswith(f"item.{index}.")}
        for name, value in names.items():
            assert value.dtype == tensors[name].dtype and torch.equal(value, tensors[name]), name


@pytest.mark.parametrize("version", ["v21", "v30"])
def test_statistics_equal_the_reference(golden, version):
    stats = LeRobotDatasetMetadata(root=ARTIFACTS / version).stats
    for name, value in golden[0].items():
        if name.startswith("meta_stats.") and not name.endswith("std"):
            key, statistic = name.removeprefix("meta_stats.").rsplit(".", 1)
            np.testing.assert_allclose(stats[key][statistic], value.numpy(), rtol=1e-6, err_msg=name)


def test_float_pictures_are_the_uint8_ones_divided_by_255(recorded_root):
    as_float, as_uint8 = (LeRobotDataset(root=recorded_root, return_uint8=u)[3] for u in (False, True))
    pictures = as_float["observation.images.cam0"], as_uint8["observation.images.cam0"]
    assert (pictures[0].dtype, pictures[1].dtype) == (torch.float32, torch.uint8)
    assert torch.equal(pictures[0], pictures[1].float() / 255)


@pytest.mark.parametrize("repo_id", [None, "any string at all", "owner/name", ""])
def test_any_repo_id_is_fine_with_a_root(recorded_root, repo_id):
    assert len(LeRobotDataset(repo_id, root=recorded_root)) == 19


def test_dataset_is_found_by_repo_id_below_the_home_folder(recorded_root, monkeypatch):
    monkeypatch.setattr("lerobot.common.datasets.dataset_metadata.HF_LEROBOT_HOME", recorded_root.parent)
    assert len(LeRobotDataset("set")) == 19


def test_windows_stop_at_the_episode(recorded_root):
    dataset = LeRobotDataset(root=recorded_root, delta_timestamps=DELTAS)
    first, last = dataset[5], dataset[12]  # episode 1: 8 frames
    assert first["action"][:, 0].tolist() == [100.5, 100.5, 101.5, 102.5]
    assert first["action_is_pad"].tolist() == [True, False, False, False]
    assert last["action"][:, 0].tolist() == [106.5, 107.5, 107.5, 107.5]
    assert last["action_is_pad"].tolist() == [False, False, True, True]
    assert last["task"] == "task 1"


def test_single_delta_gives_a_time_axis_but_not_for_videos(tmp_path):
    root = record(tmp_path / "set", lengths=(3,), feature_set=features(video=1, image=1)).root
    keys = ("observation.state", "observation.images.cam0", "observation.images.cam1")
    item = LeRobotDataset(root=root, delta_timestamps={key: [0.0] for key in keys})[1]
    assert item["observation.state"].shape == (1, 6)
    assert item["observation.images.cam0"].shape == (3, 64, 96)  # video
    assert item["observation.images.cam1"].shape == (1, 3, 64, 96)  # image
    assert item["observation.images.cam0_is_pad"].shape == (1,)


def test_episode_subset_has_the_items_of_the_whole(recorded_root):
    whole = LeRobotDataset(root=recorded_root, delta_timestamps=DELTAS)
    part = LeRobotDataset(root=recorded_root, episodes=[2, 0], delta_timestamps=DELTAS)
    rows = [*range(13, 19), *range(0, 5)]
    assert (len(part), part.num_frames, part.num_episodes) == (11, 11, 2)
    assert part.episode_data_index["from"].tolist() == [0, 6]
    for position, row in enumerate(rows):
        assert_same_item(part[position], whole[row])


def test_subset_statistics_are_those_of_its_episodes(recorded_root):
    part = LeRobotDataset(root=recorded_root, episodes=[1])
    assert part.stats["action"]["max"][0] == 107.5
    assert part.meta.stats["action"]["max"][0] == 205.5
    episodes = part.meta.episodes_stats
    expected = aggregate_stats(list(episodes.values()))["action"]["std"]
    np.testing.assert_array_equal(part.meta.stats["action"]["std"], expected)


def test_negative_numbers_and_slices(recorded_root):
    dataset = LeRobotDataset(root=recorded_root, delta_timestamps=DELTAS)
    assert_same_item(dataset[-1], dataset[18])
    assert [item["index"].item() for item in dataset[4:7]] == [4, 5, 6]
    with pytest.raises(IndexError, match="0 to 18"):
        dataset[19]


def test_a_gathered_batch_holds_the_single_items(recorded_root):
    dataset = LeRobotDataset(root=recorded_root, delta_timestamps=DELTAS)
    rows = [18, 0, 7, 7]
    batch = dataset.collate(dataset.__getitems__(rows))
    for position, row in enumerate(rows):
        assert_same_item({key: value[position] for key, value in batch.items()}, dataset[row])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("own_collate", [True, False])
def test_loader_batches(recorded_root, workers, own_collate):
    dataset = LeRobotDataset(root=recorded_root, delta_timestamps=DELTAS)
    dataset[0]  # a decoder is open before the workers are forked
    options = {"collate_fn": dataset.collate} if own_collate else {}
    batches = list(DataLoader(dataset, batch_size=4, num_workers=workers, **options))
    batch = batches[1]
    assert batch["observation.images.cam0"].shape == (4, 2, 3, 64, 96)
    assert batch["action"].shape == (4, 4, 6)
    assert batch["task"] == ["task 0", "task 1", "task 1", "task 1"]
    assert torch.equal(batch["observation.images.cam0"][2], dataset[6]["observation.images.cam0"])


def test_image_dataset_is_exact_and_reads_back_in_any_order(tmp_path):
    root = record(tmp_path / "set", feature_set=features(video=0, image=1)).root
    dataset = LeRobotDataset(root=root, return_uint8=True)
    for row, (episode, index) in {18: (2, 5), 0: (0, 0), 7: (1, 2)}.items():
        expected = picture(episode, index).transpose(2, 0, 1)
        np.testing.assert_array_equal(dataset[row]["observation.images.cam0"], expected)


def test_v20_dataset_uses_its_global_statistics(own_root):
    (own_root / "meta" / "episodes_stats.jsonl").unlink()
    info = json.loads((own_root / "meta" / "info.json").read_text())
    info["codebase_version"] = "v2.0"
    info["features"]["observation.images.cam0"]["video_info"] = info["features"]["observation.images.cam0"].pop("info")
    (own_root / "meta" / "info.json").write_text(json.dumps(info))
    stats = {"action": {"min": [0.0] * 6, "max": [9.0] * 6, "mean": [4.0] * 6, "std": [1.0] * 6}}
    (own_root / "meta" / "stats.json").write_text(json.dumps(stats))
    dataset = LeRobotDataset(root=own_root, episodes=[1])
    assert dataset.meta.stats["action"]["mean"].tolist() == [4.0] * 6
    assert dataset.meta.episodes_stats[2] == dataset.meta.stats
    assert dataset.stats is dataset.meta.stats
    assert dataset[0]["action"][0] == 100.5
    with pytest.raises(ValueError, match="v2.0"):
        dataset.add_frame({})


def test_deltas_must_be_whole_frames(recorded_root):
    with pytest.raises(ValueError, match="0.05"):
        LeRobotDataset(root=recorded_root, delta_timestamps={"action": [0.0, 0.05]})
    with pytest.raises(KeyError, match="nothing"):
        LeRobotDataset(root=recorded_root, delta_timestamps={"nothing": [0.0]})


def test_column_types_are_those_of_items(tmp_path):
    extra = {
        "matrix": {"dtype": "float64", "shape": (2, 3)},
        "flag": {"dtype": "bool", "shape": (1,)},
        "count": {"dtype": "uint8", "shape": (2,)},
        "note": {"dtype": "string", "shape": (1,)},
    }
    dataset = LeRobotDataset.create(None, 10, root=tmp_path / "set", features=extra)
    for i in range(3):
        numbers = np.arange(6, dtype=np.float64).reshape(2, 3) + i
        frame = {
            "matrix": numbers,
            "flag": np.array([i == 1]),
            "count": np.full(2, 200, np.uint8),
            "note": f"n{i}",
        }
        dataset.add_frame({**frame, "task": ""})
    dataset.save_episode()
    item = LeRobotDataset(root=dataset.root, delta_timestamps={"note": [0.0, 0.1]})[1]
    assert item["matrix"].dtype == torch.float32 and item["matrix"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert item["flag"].dtype == torch.bool and item["flag"].shape == () and item["flag"]
    assert item["count"].dtype == torch.int64 and item["count"].tolist() == [200, 200]
    assert item["note"] == ["n1", "n2"]
