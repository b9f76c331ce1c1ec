"""Edited datasets: the frames that stay are the same, the numbering is new, the original is untouched."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from lerobot.common.datasets import edit
from lerobot.common.datasets.edit import Edit, VideoChange
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from tests.datasets.conftest import features, record

CAMERA = "observation.images.cam0"


@pytest.fixture(scope="module", params=["v2.1", "v3.0"])
def dataset(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("source") / request.param
    return LeRobotDataset(
        root=record(root, (5, 8, 6), feature_set=features(image=1), codebase_version=request.param).root
    )


def same(left: dict, right: dict, but=("index", "episode_index", "task_index")) -> bool:
    keys = (set(left) & set(right)) - set(but)
    return all(
        torch.equal(left[k], right[k]) if isinstance(left[k], torch.Tensor) else left[k] == right[k] for k in keys
    )


def open_(root) -> LeRobotDataset:
    new = LeRobotDataset(root=root)
    assert new.table["index"].tolist() == list(range(len(new)))
    assert [new.meta.episodes[i]["length"] for i in new.meta.episodes] == new.table["episode_index"].bincount().tolist()
    return new


def test_deleted_episodes_are_gone_and_the_others_the_same(dataset, tmp_path):
    new = open_(edit.delete_episodes(dataset, [1], tmp_path / "new"))
    assert (len(new), new.meta.info["codebase_version"]) == (11, dataset.meta.info["codebase_version"])
    assert all(same(new[i], dataset[i if i < 5 else i + 8]) for i in range(11))
    assert new.meta.tasks == {0: "task 0"}
    np.testing.assert_array_equal(new.meta.episodes_stats[1]["action"]["max"], [205.5] * 6)
    np.testing.assert_array_equal(new.meta.episodes_stats[1]["index"]["min"], [5])


def test_split_and_merge_give_the_whole_again(dataset, tmp_path):
    parts = edit.split_dataset(dataset, {"train": 0.67, "val": 0.33}, tmp_path)
    train, val = (open_(parts[name]) for name in ("train", "val"))
    assert (len(train), len(val)) == (13, 6) and same(val[2], dataset[15])
    whole = open_(edit.merge_datasets([train, val], tmp_path / "whole"))
    assert all(same(whole[i], dataset[i], ()) for i in range(19))


def test_features_tasks_and_names_change(dataset, tmp_path):
    reward = (np.arange(19, dtype=np.float32), {"dtype": "float32", "shape": (1,), "names": None})
    goal = (lambda row, episode, frame: [episode, frame], {"dtype": "float32", "shape": (2,), "names": None})
    change = Edit(
        remove=["observation.images.cam1"],
        rename={CAMERA: "observation.images.top"},
        add={"next.reward": reward, "goal": goal},
        tasks={"task 0": "pick it up"},
    )
    new = open_(edit.edit_dataset(dataset, tmp_path / "new", change))
    assert new.meta.camera_keys == ["observation.images.top"]
    assert list(new.features)[-5:] == ["timestamp", "frame_index", "episode_index", "index", "task_index"]
    item = new[7]
    assert (item["next.reward"], item["goal"].tolist(), item["task"]) == (7, [1.0, 2.0], "task 1")
    assert new[0]["task"] == "pick it up"
    assert torch.equal(item["observation.images.top"], dataset[7][CAMERA])
    np.testing.assert_array_equal(new.meta.episodes_stats[1]["goal"]["max"], [1, 7])
    assert "observation.images.top" in new.meta.stats and "observation.images.cam1" not in new.meta.stats


def test_videos_are_resized(dataset, tmp_path):
    new = open_(edit.edit_dataset(dataset, tmp_path / "new", Edit(video=VideoChange(size=(32, 48), g=5))))
    feature = new.features[CAMERA]
    assert feature["shape"] == (32, 48, 3) and feature["info"]["video.width"] == 48
    expected = torch.nn.functional.interpolate(dataset[7][CAMERA][None], size=(32, 48), mode="area")[0]
    assert (new[7][CAMERA] - expected).abs().mean() < 0.03


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda d, out: edit.delete_episodes(d, [0, 1, 2], out), "All episodes"),
        (lambda d, out: edit.delete_episodes(d, [9], out), r"\[9\]"),
        (lambda d, out: edit.split_dataset(d, {"a": 0.9, "b": 0.2}, out), "at most 1"),
        (lambda d, out: edit.split_dataset(d, {"a": [0], "b": [0]}, out), "at most once"),
        (lambda d, out: edit.edit_dataset(d, out, Edit(remove=["index"])), "belong to every dataset"),
        (lambda d, out: edit.edit_dataset(d, out, Edit(rename={"x": "y"})), "no feature"),
        (lambda d, out: edit.edit_dataset(d, out, Edit(tasks={"x": "y"})), "no task"),
    ],
)
def test_impossible_edits_are_refused(dataset, tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(dataset, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_other_features_cannot_be_merged(dataset, tmp_path):
    other = record(tmp_path / "other", (3,), feature_set=features(video=2))
    with pytest.raises(ValueError, match="dtypes"):
        edit.merge_datasets([dataset, other], tmp_path / "new")


def test_the_command(dataset, tmp_path):
    command = [
        sys.executable,
        "lerobot/scripts/edit_dataset.py",
        f"--root={dataset.root}",
        f"--output={tmp_path / 'n'}",
    ]
    run = subprocess.run([*command, "--delete=[0]"], capture_output=True, text=True, timeout=120)
    assert "2 episodes, 14 frames" in run.stdout, run.stderr
