"""Recording v3.0: growing files, limits, background saving, kills."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lerobot.common.datasets.journal import undo
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.utils import UNFINISHED_DIR
from lerobot.common.datasets.v30 import writer
from lerobot.common.datasets.video_utils import iter_video_frames
from tests.datasets.conftest import features, frame, record, record_episode
from tests.kill import run_and_kill, states_on_the_way

CAMERA = "observation.images.cam0"


def same_items(left: LeRobotDataset, right: LeRobotDataset) -> bool:
    """Equal values, and the same frame of every video.

    x264 encodes the same pictures a little differently now and then on CPUs with AVX-512, so videos that were encoded
    apart are only compared to within half of what separates two frames.
    """

    def equal(key, a, b):
        if key in left.meta.video_keys:
            return a.dtype == b.dtype and (a.float() - b.float()).abs().mean() < (
                4 if a.dtype == torch.uint8 else 4 / 255
            )
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

    pairs = ((left[i], right[i]) for i in range(len(left)))
    return len(left) == len(right) and all(
        a.keys() == b.keys() and all(equal(k, a[k], b[k]) for k in a) for a, b in pairs
    )


def files(root) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The same episodes in both formats, one camera as video, one as images."""
    root = tmp_path_factory.mktemp("pair")
    kinds = {"feature_set": features(video=1, image=1)}
    return [record(root / v, (5, 8, 6), codebase_version=v, **kinds).root for v in ("v2.1", "v3.0")]


def test_episodes_share_files_and_items_are_those_of_v21(pair):
    old, new = (LeRobotDataset(root=root, return_uint8=True) for root in pair)
    assert files(pair[1]) == [
        "data/chunk-000/file-000.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/info.json",
        "meta/stats.json",
        "meta/tasks.parquet",
        f"videos/{CAMERA}/chunk-000/file-000.mp4",
    ]
    assert same_items(old, new)
    assert pq.ParquetFile(pair[1] / "data/chunk-000/file-000.parquet").metadata.num_row_groups == 3
    for name in ("min", "max", "mean", "std", "count"):
        for key in old.meta.stats:
            np.testing.assert_allclose(new.meta.stats[key][name], old.meta.stats[key][name], rtol=1e-6, atol=1e-9)
    assert new.meta.stats["action"].keys() - old.meta.stats["action"].keys() == {"q01", "q10", "q50", "q90", "q99"}


def test_info_and_rows_are_those_of_the_format(pair):
    info = json.loads((pair[1] / "meta/info.json").read_text())
    head = ["codebase_version", "robot_type", "total_episodes", "total_frames", "total_tasks", "chunks_size"]
    tail = ["data_files_size_in_mb", "video_files_size_in_mb", "fps", "splits", "data_path", "video_path", "features"]
    assert list(info) == head + tail and info["features"][CAMERA]["info"]["video.codec"] == "h264"
    row = LeRobotDataset(root=pair[1]).meta.episodes[1]
    assert (row["dataset_from_index"], row["dataset_to_index"], row["tasks"]) == (5, 13, ["task 1"])
    assert row[f"videos/{CAMERA}/from_timestamp"] == 0.5
    assert row[f"videos/{CAMERA}/to_timestamp"] == pytest.approx(1.3)


def test_full_files_are_followed_by_new_ones(tmp_path):
    limits = {"data_files_size_in_mb": 0.000001, "video_files_size_in_mb": 0.000001}
    dataset = record(tmp_path / "set", (4, 4, 4), codebase_version="v3.0", **limits)
    names = files(dataset.root)
    assert sum(name.startswith("data/") for name in names) == sum(name.endswith(".mp4") for name in names) == 3
    again = LeRobotDataset(root=dataset.root, episodes=[2], return_uint8=True)
    assert again[1]["action"][0] == 201.5
    frames = list(iter_video_frames(dataset.root / f"videos/{CAMERA}/chunk-000/file-002.mp4"))
    np.testing.assert_array_equal(again[1][CAMERA].permute(1, 2, 0), frames[1])


def test_recording_goes_on_after_opening(tmp_path):
    root = record(tmp_path / "set", (5, 8), codebase_version="v3.0").root
    record_episode(LeRobotDataset(root=root), 2, 6)
    assert same_items(LeRobotDataset(root=root), record(tmp_path / "at once", codebase_version="v3.0"))


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_the_next_episode_is_recorded_while_the_last_is_saved(tmp_path, version):
    dataset = LeRobotDataset.create(None, 10, root=tmp_path / "set", features=features(), codebase_version=version)
    for episode, length in enumerate((5, 8, 6)):
        for index in range(length):
            dataset.add_frame(frame(dataset, episode, index))
        assert dataset.episode_buffer["size"] == length
        dataset.save_episode(background=True)
    dataset.wait_until_saved()
    assert not (dataset.root / UNFINISHED_DIR).exists()
    assert same_items(LeRobotDataset(root=dataset.root), record(tmp_path / "same", codebase_version=version))


@pytest.mark.parametrize("step", range(1, 7))
def test_a_failure_between_two_files_puts_everything_back(tmp_path, monkeypatch, step):
    dataset = record(tmp_path / "set", (4, 3), codebase_version="v3.0")
    before = {name: (dataset.root / name).read_bytes() for name in files(dataset.root)}
    from lerobot.common.datasets import journal

    calls, replace = [], journal.os.replace

    def fails(source, target):
        calls.append(target)
        if len(calls) == step + 1:  # the first one is the journal itself
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(journal.os, "replace", fails)
    for index in range(5):
        dataset.add_frame(frame(dataset, 2, index, task="a new task"))
    with pytest.raises(OSError, match="No space"):
        dataset.save_episode()
    monkeypatch.setattr(journal.os, "replace", replace)
    dataset.clear_episode_buffer()
    assert {name: (dataset.root / name).read_bytes() for name in files(dataset.root)} == before
    assert undo(dataset.root, dataset.root / UNFINISHED_DIR) == []
    assert len(LeRobotDataset(root=dataset.root)) == 7


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_stop_between_any_two_file_operations_leaves_whole_episodes(tmp_path, version):
    dataset = record(tmp_path / "set", (4, 3), codebase_version=version)
    frames = [frame(dataset, 2, index, task="a new task") for index in range(5)]
    with states_on_the_way(dataset.root, tmp_path / "states") as states:
        for one in frames:
            dataset.add_frame(one)
        dataset.save_episode()
    found = []
    for root in states:
        again = LeRobotDataset(root=root, return_uint8=True)
        numbers = [100 * e + i + 0.5 for e, length in enumerate((4, 3, 5)[: again.num_episodes]) for i in range(length)]
        assert [float(again[i]["action"][0]) for i in range(len(again))] == numbers, root
        assert all(again[i][CAMERA].shape == (3, 64, 96) for i in range(len(again)))
        assert len(again.meta.tasks) == again.num_episodes and not (root / UNFINISHED_DIR).exists()
        assert again.meta.stats["action"]["count"] == [len(again)]
        found.append(again.num_episodes)
    assert found == sorted(found) and set(found) == {2, 3} and len(found) > 15
    record_episode(LeRobotDataset(root=states[found.index(3) - 1]), 2, 6)  # recording goes on where it stopped


RECORD = """
    import sys
    from pathlib import Path
    from tests.datasets.conftest import features, record, record_episode
    dataset = record(Path(sys.argv[1]), (), feature_set=features(video=1, image=1), codebase_version=sys.argv[2])
    for episode in range(40):
        print("begin", flush=True)
        record_episode(dataset, episode, 3)
        print("saved", flush=True)
"""


def kill_once(root, version: str, seed: int) -> None:
    lines = run_and_kill(RECORD, root, version, after_lines=1, within_s=0.6, seed=seed)
    saved = lines.count("saved")
    dataset = LeRobotDataset(root=root, return_uint8=True)
    assert dataset.num_episodes in (saved, saved + 1)  # the last one may have become complete unannounced
    assert len(dataset) == 3 * dataset.num_episodes and not (root / UNFINISHED_DIR).exists()
    for index in range(len(dataset)):
        assert dataset[index]["action"][0] == 100 * (index // 3) + index % 3 + 0.5
    record_episode(dataset, dataset.num_episodes, 3)
    assert LeRobotDataset(root=root)[-1][CAMERA].shape == (3, 64, 96)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_kill_loses_no_saved_episode(tmp_path, version):
    for seed in range(2):
        kill_once(tmp_path / str(seed), version, seed)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_200_kills_lose_no_saved_episode(tmp_path, version):
    for seed in range(100):
        kill_once(tmp_path / str(seed), version, 1000 + seed)


def test_the_writer_names_the_next_chunk_after_a_full_one():
    assert writer._next_place({"chunk_index": 0, "file_index": 999}, 1000) == {"chunk_index": 1, "file_index": 0}
