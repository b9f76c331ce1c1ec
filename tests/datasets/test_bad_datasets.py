"""Datasets that are missing, damaged or of another version: one clear message each."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lerobot.common.checks.dataset_checks import check_dataset
from lerobot.common.datasets.backward_compatibility import (
    BackwardCompatibilityError,
    ForwardCompatibilityError,
)
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.recompute import repair_stats
from lerobot.common.datasets.utils import DatasetError
from lerobot.common.datasets.video_utils import FrameTimestampError, VideoDecodeError
from tests.datasets.conftest import record_episode
from tests.kill import run_and_kill

EPISODE_1 = "data/chunk-000/episode_000001.parquet"
VIDEO_1 = "videos/chunk-000/observation.images.cam0/episode_000001.mp4"


def edit_info(root, **changes):
    path = root / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_column(root, name: str, change):
    table = pq.read_table(root / EPISODE_1)
    values = change(table.column(name))
    index = table.column_names.index(name)
    table = table.remove_column(index) if values is None else table.set_column(index, name, values)
    pq.write_table(table, root / EPISODE_1)


@pytest.mark.parametrize("repo_id", [None, "owner/name", "just a name"])
def test_missing_dataset_names_the_path_and_the_flag(tmp_path, monkeypatch, repo_id):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="--dataset.root") as error:
        LeRobotDataset(repo_id, root=tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(error.value)


def test_no_dataset_named_at_all():
    with pytest.raises(ValueError, match="--dataset.root"):
        LeRobotDataset()


@pytest.mark.parametrize("version, error", [("v3.1", ForwardCompatibilityError), ("v1.6", BackwardCompatibilityError)])
def test_other_versions_are_named(own_root, version, error):
    edit_info(own_root, codebase_version=version)
    with pytest.raises(error, match=version):
        LeRobotDataset(root=own_root)


def test_v16_folder_is_recognized(tmp_path):
    (tmp_path / "meta_data").mkdir()
    (tmp_path / "meta_data" / "info.json").write_text("{}")
    with pytest.raises(BackwardCompatibilityError, match="v1.6"):
        LeRobotDataset(root=tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"codebase_version": "banana"}, "codebase_version 'banana'; expected v2.0"),
        ({"fps": "30"}, "fps '30'; expected a number above 0"),
        ({"fps": 0}, "fps 0"),
        ({"chunks_size": 0}, "chunks_size 0"),
        ({"total_frames": -1}, "total_frames -1"),
        ({"total_episodes": None}, "total_episodes None"),
        ({"features": []}, "features must be an object"),
        ({"data_path": "data/{foo}.parquet"}, r"data_path .* has \['foo'\]; known are"),
        ({"data_path": "data/{episode_index.__class__}.parquet"}, "known are"),
        ({"video_path": "videos/{episode_index"}, "video_path .* is no path template"),
        ({"data_path": 3}, "data_path 3 is no path template"),
    ],
)
def test_impossible_metadata_are_one_message(own_root, changes, message):
    edit_info(own_root, **changes)
    with pytest.raises(DatasetError, match=message) as error:
        LeRobotDataset(root=own_root)
    assert "info.json" in str(error.value)


@pytest.mark.parametrize("version, file", [("v2.1", "episodes_stats.jsonl"), ("v2.0", "stats.json")])
def test_a_missing_file_of_statistics_is_said_and_repaired(own_root, caplog, version, file):
    (own_root / "meta/episodes_stats.jsonl").unlink()
    edit_info(own_root, codebase_version=version)
    dataset = LeRobotDataset(root=own_root)
    assert len(dataset) == 19 and dataset[3]["action"][0] == 3.5 and dataset.meta.stats == {}
    assert f"meta/{file}' does not exist" in caplog.text and "--fix" in caplog.text
    with pytest.raises(ValueError, match="--fix"):
        dataset.add_frame({})
    assert {f.code for f in check_dataset(own_root, decode=False)} >= {"stats.missing"}
    repair_stats(own_root)
    assert (own_root / "meta" / file).is_file()
    assert LeRobotDataset(root=own_root).meta.stats["action"]["count"].tolist() == [19]


@pytest.mark.parametrize("template", ["/etc/episode_{episode_index}", "../episode_{episode_index}.parquet"])
def test_paths_outside_the_root_are_refused(own_root, template):
    edit_info(own_root, data_path=template)
    with pytest.raises(DatasetError, match="leaves the dataset folder"):
        LeRobotDataset(root=own_root)


def test_links_out_of_the_root_are_refused(own_root, tmp_path):
    os.rename(own_root / VIDEO_1, tmp_path / "elsewhere.mp4")
    (own_root / VIDEO_1).symlink_to(tmp_path / "elsewhere.mp4")
    with pytest.raises(DatasetError, match="leaves the dataset folder"):
        LeRobotDataset(root=own_root)


def test_nan_is_refused_with_file_episode_and_row(own_root):
    def spoil(column):
        rows = np.array(column.to_pylist(), dtype=np.float32)
        rows[3, 2] = np.nan
        return pa.array(rows.tolist(), type=column.type)

    edit_column(own_root, "action", spoil)
    with pytest.raises(
        DatasetError, match=r"Episode 1.*episode_000001.parquet.*'action': NaN in 1 of 8 rows, first in row 3"
    ):
        LeRobotDataset(root=own_root)
    assert len(LeRobotDataset(root=own_root, episodes=[0, 2])) == 11


def test_missing_column(own_root):
    edit_column(own_root, "observation.state", lambda column: None)
    with pytest.raises(DatasetError, match=r"Episode 1.*columns \['observation.state'\] are missing"):
        LeRobotDataset(root=own_root)


def test_empty_cell(own_root):
    edit_column(own_root, "task_index", lambda column: pa.array([0, None] + [0] * 6))
    with pytest.raises(DatasetError, match="Episode 1.*'task_index': row 1 is empty"):
        LeRobotDataset(root=own_root)


def test_unknown_task(own_root):
    edit_column(own_root, "task_index", lambda column: pa.array([7] * 8))
    with pytest.raises(DatasetError, match=r"\[7\].*tasks.jsonl"):
        LeRobotDataset(root=own_root)


def test_wrong_width(own_root):
    edit_column(own_root, "action", lambda column: pa.array([[0.0, 1.0]] * 8, type=pa.list_(pa.float32())))
    with pytest.raises(DatasetError, match=r"Episode 1.*16 numbers, expected 8 rows of shape \(6,\)"):
        LeRobotDataset(root=own_root)


def test_wrong_row_count(own_root):
    pq.write_table(pq.read_table(own_root / EPISODE_1).slice(0, 7), own_root / EPISODE_1)
    with pytest.raises(DatasetError, match="Episode 1.*7 rows.*length 8"):
        LeRobotDataset(root=own_root)


def test_truncated_parquet(own_root):
    (own_root / EPISODE_1).write_bytes((own_root / EPISODE_1).read_bytes()[:200])
    with pytest.raises(DatasetError, match="Episode 1.*cannot be read as parquet"):
        LeRobotDataset(root=own_root)


def test_lengths_that_do_not_add_up(own_root):
    edit_info(own_root, total_frames=20)
    with pytest.raises(DatasetError, match="add up to 19.*20"):
        LeRobotDataset(root=own_root)


def test_missing_episode_line(own_root):
    edit_info(own_root, total_episodes=4)
    with pytest.raises(DatasetError, match=r"lacks episodes \[3\]"):
        LeRobotDataset(root=own_root)


def test_broken_json_names_file_and_line(own_root):
    path = own_root / "meta" / "episodes.jsonl"
    path.write_text(path.read_text().replace('"length": 8', '"length": '))
    with pytest.raises(DatasetError, match="episodes.jsonl' line 2"):
        LeRobotDataset(root=own_root)


def test_timestamps_that_do_not_fit_fps(own_root):
    edit_info(own_root, fps=20)
    with pytest.raises(ValueError, match="not 1/fps = 0.05"):
        LeRobotDataset(root=own_root)


@pytest.mark.parametrize("keep", [0, 100, -300])
def test_truncated_video_names_the_file(own_root, keep):
    (own_root / VIDEO_1).write_bytes((own_root / VIDEO_1).read_bytes()[:keep])
    dataset = LeRobotDataset(root=own_root)
    assert dataset[0]["observation.images.cam0"].shape == (3, 64, 96)
    with pytest.raises(VideoDecodeError, match="episode_000001.mp4"):
        dataset[6]


def test_missing_video_is_noticed_when_opening(own_root):
    (own_root / VIDEO_1).unlink()
    with pytest.raises(FileNotFoundError, match="lacks .*episode_000001.mp4.*check_dataset.py"):
        LeRobotDataset(root=own_root)
    assert len(LeRobotDataset(root=own_root, episodes=[0])) == 5


def test_video_shorter_than_the_episode(own_root):
    os.replace(own_root / VIDEO_1.replace("1.mp4", "0.mp4"), own_root / VIDEO_1)
    (own_root / VIDEO_1.replace("1.mp4", "0.mp4")).write_bytes((own_root / VIDEO_1).read_bytes())
    with pytest.raises(FrameTimestampError, match="episode_000001.mp4.* no frame at 0.7"):
        LeRobotDataset(root=own_root)[12]


def test_unknown_episodes(own_root):
    with pytest.raises(ValueError, match=r"Episodes \[3\].*0 to 2.*--dataset.episodes"):
        LeRobotDataset(root=own_root, episodes=[0, 3])


RECORD_ON_A_FULL_DISK = """
    import resource, signal, sys
    from pathlib import Path
    from tests.datasets.conftest import features, frame, record
    from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
    dataset = record(Path(sys.argv[1]), (4, 3), feature_set=features(video=1, image=1), codebase_version=sys.argv[2])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))  # every file ends there, as on a full disk
    try:
        for index in range(60):
            dataset.add_frame(frame(dataset, 2, index))
        dataset.save_episode()
    except (OSError, RuntimeError) as error:
        print(type(error).__name__, error, flush=True)
        dataset.clear_episode_buffer()
"""


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_full_disk_while_recording_is_one_message_and_costs_only_the_running_episode(tmp_path, version):
    (message,) = run_and_kill(RECORD_ON_A_FULL_DISK, tmp_path / "set", version, within_s=60)
    assert "File too large" in message
    dataset = LeRobotDataset(root=tmp_path / "set")
    assert (dataset.num_episodes, len(dataset)) == (2, 7)
    record_episode(dataset, 2, 3)
    assert len(LeRobotDataset(root=tmp_path / "set")) == 10


def test_the_trainer_refuses_v16_with_the_command_that_converts_it(tmp_path):
    (tmp_path / "meta_data").mkdir()
    (tmp_path / "meta_data/info.json").write_text('{"codebase_version": "v1.6"}')
    command = [sys.executable, "lerobot/scripts/train.py", "--policy.type=act", f"--dataset.root={tmp_path}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1 and "convert_dataset_v1_to_v2.py" in run.stderr and "Traceback" not in run.stderr
