"""Datasets of format v3.0: several episodes per file, found wherever their rows stand."""

import json
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lerobot.common.datasets.frame_store import FrameStore
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.common.datasets.recompute import replace_wrong_camera_std
from lerobot.common.datasets.utils import DatasetError
from lerobot.common.utils.images import resize_images
from tests.datasets.conftest import ARTIFACTS

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
CAMERA = "observation.images.laptop"
DELTAS = {"action": [-1 / 30, 0.0, 2 / 30], CAMERA: [-1 / 30, 0.0]}


@pytest.fixture
def root(tmp_path):
    """A copy of the reference dataset, free to be damaged."""
    return shutil.copytree(ARTIFACTS / "v30", tmp_path / "v30")


def set_column(path, name, values):
    table = pq.read_table(path)
    index = table.column_names.index(name)
    pq.write_table(table.set_column(index, name, pa.array(values, table.schema.field(name).type)), path)


def test_a_subset_has_the_items_of_the_whole(root):
    whole = LeRobotDataset(root=root, delta_timestamps=DELTAS, return_uint8=True)
    part = LeRobotDataset(root=root, episodes=[2, 0], delta_timestamps=DELTAS, return_uint8=True)
    assert (len(part), part.num_episodes) == (46, 2)
    for row, same in {0: 47, 22: 69, 23: 0, 45: 22}.items():
        for key, value in part[row].items():
            other = whole[same][key]
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, key
    assert part.stats["action"]["count"] == [46]
    assert part.meta.stats["action"]["count"] == [70]


def test_rows_are_found_where_the_metadata_name_another_file(root):
    table = pq.read_table(root / DATA)
    pq.write_table(table.slice(0, 47), root / DATA)
    pq.write_table(table.slice(47), root / "data/chunk-000/file-001.parquet")
    dataset = LeRobotDataset(root=root, return_uint8=True)  # episode 2 is said to be in file 0
    original = LeRobotDataset(root=ARTIFACTS / "v30", return_uint8=True)
    assert torch.equal(dataset[69][CAMERA], original[69][CAMERA])
    assert torch.equal(dataset.table["action"], original.table["action"])


def test_metadata_have_the_forms_of_all_releases(root):
    meta = LeRobotDataset(root=root).meta
    assert meta.episodes["dataset_from_index"] == [0, 23, 47] and meta.episodes["length"] == [23, 24, 23]
    assert meta.episodes[1]["data/file_index"] == 0
    assert meta.tasks[1] == meta.tasks.iloc[1].name == meta.tasks.index[1]
    assert meta.tasks.loc[meta.tasks[2]].task_index == 2
    assert meta.info["fps"] == meta.info.fps == 30
    assert set(meta.stats["action"]) >= {"q01", "q99"}
    assert list(meta.tasks.columns) == ["task_index"]
    assert (meta.data_files_size_in_mb, meta.video_files_size_in_mb) == (100, 200)
    with pytest.raises(IndexError, match="Episode 77 of .* does not exist; it has 3"):
        meta.get_data_file_path(77)


def test_sizes_of_files_are_changed_for_good(root):
    LeRobotDatasetMetadata(root=root).update_chunk_settings(chunks_size=10, video_files_size_in_mb=5)
    settings = LeRobotDatasetMetadata(root=root).get_chunk_settings()
    assert settings == {"chunks_size": 10, "data_files_size_in_mb": 100, "video_files_size_in_mb": 5}
    with pytest.raises(ValueError, match="data_files_size_in_mb.*above 0"):
        LeRobotDatasetMetadata(root=root).update_chunk_settings(data_files_size_in_mb=0)
    with pytest.raises(DatasetError, match="one episode each"):
        LeRobotDatasetMetadata(root=ARTIFACTS / "v21").update_chunk_settings(chunks_size=10)


def test_the_index_column_may_be_named_task(root):
    path = root / "meta/tasks.parquet"
    table = pq.read_table(path)
    pq.write_table(table.rename_columns(["task_index", "task"]).replace_schema_metadata(None), path)
    assert LeRobotDataset(root=root)[0]["task"] == "Grasp a lego block and put it in the bin."


def test_without_whole_statistics_those_of_the_episodes_are_combined(root):
    expected = LeRobotDataset(root=root).meta.stats["action"]
    (root / "meta/stats.json").unlink()
    found = LeRobotDataset(root=root).meta.stats["action"]
    for name in ("min", "mean", "std", "q10"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)


def test_a_std_that_cannot_be_right_is_replaced(root):
    dataset, right = LeRobotDataset(root=root), LeRobotDataset(root=ARTIFACTS / "v21")
    assert dataset.meta.stats[CAMERA]["std"].max() < 0.01
    replace_wrong_camera_std(dataset)
    np.testing.assert_allclose(dataset.meta.stats[CAMERA]["std"], right.meta.stats[CAMERA]["std"], rtol=0.1)


def test_a_frame_store_of_shared_videos_holds_every_frame(root, tmp_path):
    live = LeRobotDataset(root=root, return_uint8=True)
    store = FrameStore.open_or_fill(live, (24, 32), tmp_path / "store", progress=False)
    for row in (0, 22, 23, 46, 47, 69):
        assert torch.equal(store[CAMERA][row], resize_images(live[row][CAMERA], (24, 32)))


def test_a_frame_store_follows_an_episode_to_another_place_in_its_video(root, tmp_path):
    def fill():
        live = LeRobotDataset(root=root, return_uint8=True)
        return live, FrameStore.open_or_fill(live, (24, 32), tmp_path / "store", progress=False)

    before = fill()[1][CAMERA].clone()
    column = f"videos/{CAMERA}/from_timestamp"
    starts = pq.read_table(root / EPISODES)[column].to_pylist()
    set_column(root / EPISODES, column, [starts[1], *starts[1:]])  # as many frames, those of the episode behind it
    live, store = fill()
    assert torch.equal(store[CAMERA][5], resize_images(live[5][CAMERA], (24, 32)))
    assert not torch.equal(store[CAMERA][5], before[5]) and torch.equal(store[CAMERA][23:], before[23:])


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda r: pq.write_table(pq.read_table(r / DATA).slice(0, 60), r / DATA), "Episode 2.*13 rows.*length 23"),
        (lambda r: pq.write_table(pq.read_table(r / DATA).slice(0, 47), r / DATA), "Episode 2 has no rows"),
        (lambda r: set_column(r / DATA, "episode_index", [0, 1] * 35), "do not stand together"),
        (lambda r: (r / DATA).write_bytes(b"PAR1"), "cannot be read as parquet"),
        (lambda r: set_column(r / EPISODES, "length", [23, 24, 24]), "lengths add up to 71"),
        (lambda r: set_column(r / DATA, "task_index", [9] * 70), r"\[9\].*tasks.parquet"),
    ],
)
def test_damage_is_named(root, damage, message):
    damage(root)
    with pytest.raises(DatasetError, match=message):
        LeRobotDataset(root=root)


@pytest.mark.parametrize("version", ["v30", "v21"])
def test_a_wrong_version_in_info_is_named(tmp_path, version):
    root = shutil.copytree(ARTIFACTS / version, tmp_path / "set")
    info = json.loads((root / "meta/info.json").read_text())
    info["codebase_version"] = {"v30": "v2.1", "v21": "v3.0"}[version]
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DatasetError, match="correct codebase_version"):
        LeRobotDataset(root=root)


def test_paths_out_of_the_root_are_refused(root):
    info = json.loads((root / "meta/info.json").read_text())
    info["video_path"] = "../{video_key}/{chunk_index}-{file_index}.mp4"
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DatasetError, match="leaves the dataset folder"):
        LeRobotDataset(root=root)


def test_iterating_over_episodes_gives_numbers_as_in_older_versions(root):
    episodes = LeRobotDataset(root=root).meta.episodes
    assert list(episodes) == [0, 1, 2] and torch.tensor(list(episodes)).sum() == 3
    copied = pickle.loads(pickle.dumps(episodes))
    assert [row["length"] for row in copied.values()] == episodes["length"] == [23, 24, 23]


def test_episodes_take_negative_numbers_slices_and_lists(root):
    episodes = LeRobotDataset(root=root).meta.episodes
    assert episodes[-1]["episode_index"] == 2 and episodes.num_rows == 3
    assert episodes[1:]["length"] == [24, 23] and episodes[[2, 0]]["dataset_from_index"] == [47, 0]
    for number in (3, -4):
        with pytest.raises(KeyError, match=str(number)):
            episodes[number]
