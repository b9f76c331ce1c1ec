"""Editing datasets under the names of LeRobot 0.4."""

import numpy as np
import pytest

from lerobot.common.datasets import dataset_tools
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset

LENGTHS = (4, 3, 5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "recorded"
    vector = {"dtype": "float32", "shape": (2,), "names": ["a", "b"]}
    dataset = LeRobotDataset.create("me/grasps", 10, root, features={"observation.state": vector, "action": vector})
    for episode, length in enumerate(LENGTHS):
        for frame in range(length):
            value = np.array([episode, frame], np.float32)
            dataset.add_frame({"observation.state": value, "action": value, "task": "wave"})
        dataset.save_episode()
    return LeRobotDataset("me/grasps", root=root)


def lengths(dataset):
    return [dataset.meta.episodes[i]["length"] for i in range(dataset.num_episodes)]


def test_episodes_are_deleted_split_and_merged_again(dataset, tmp_path):
    from lerobot.datasets.dataset_tools import delete_episodes, merge_datasets, split_dataset

    rest = delete_episodes(dataset, [1], output_dir=tmp_path / "rest")
    assert lengths(rest) == [4, 5] and rest.repo_id == "me/grasps_modified"
    assert rest[4]["action"].tolist() == [2, 0]
    parts = split_dataset(rest, {"train": [1], "val": [0]}, output_dir=tmp_path / "parts")
    assert [lengths(parts[name]) for name in ("train", "val")] == [[5], [4]]
    merged = merge_datasets([parts["train"], parts["val"]], "me/all", output_dir=tmp_path / "all")
    assert lengths(merged) == [5, 4] and merged.repo_id == "me/all" and len(dataset) == sum(LENGTHS)


def test_features_come_and_go(dataset, tmp_path):
    info = {"dtype": "float32", "shape": (1,), "names": None}
    values = np.arange(sum(LENGTHS), dtype=np.float32)
    wider = dataset_tools.add_feature(dataset, "next.reward", values, info, output_dir=tmp_path / "wider")
    assert wider[5]["next.reward"].item() == 5
    back = dataset_tools.remove_feature(wider, "next.reward", output_dir=tmp_path / "back")
    assert list(back.features) == list(dataset.features)


def test_the_default_place_is_named_after_the_dataset(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_tools, "HF_LEROBOT_HOME", tmp_path)
    assert dataset_tools.delete_episodes(dataset, [0]).root == tmp_path / "me/grasps_modified"


def test_tasks_are_changed_in_place_and_features_in_one_go(dataset, tmp_path):
    copy = dataset_tools.delete_episodes(dataset, [2], output_dir=tmp_path / "copy")
    changed = dataset_tools.modify_tasks(copy, new_task="push", episode_tasks={1: "pull"})
    assert changed.root == copy.root and [changed[i]["task"] for i in (0, 4)] == ["push", "pull"]
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    info = {"dtype": "float32", "shape": (1,), "names": None}
    new = {"next.reward": (np.arange(7, dtype=np.float32), info)}
    other = dataset_tools.modify_features(changed, new, "observation.state", output_dir=tmp_path / "other")
    assert "observation.state" not in other.features and other[6]["next.reward"].item() == 6
    for nothing in (dataset_tools.modify_tasks, dataset_tools.modify_features):
        with pytest.raises(ValueError, match="Nothing to do"):
            nothing(changed)
    with pytest.raises(ValueError, match="Episodes"):
        dataset_tools.modify_tasks(changed, episode_tasks={9: "x"})


def test_datasets_are_joined_by_name(dataset, tmp_path):
    from lerobot.datasets.aggregate import aggregate_datasets

    roots = [dataset.root, dataset.root]
    joined = aggregate_datasets(["me/grasps"] * 2, "me/all", roots=roots, aggr_root=tmp_path / "all")
    assert lengths(joined) == list(LENGTHS) * 2 and joined.repo_id == "me/all"
    with pytest.raises(ValueError, match="chunk_size"):
        aggregate_datasets(["me/grasps"], "me/all", [dataset.root], tmp_path / "b", chunk_size=3)
