"""v2.1 to v3.0 and back: same numbers, frames and metadata, across kills."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from lerobot.common.datasets.conversion import WORK_DIR, verify_same
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.utils import DatasetError
from lerobot.common.datasets.v30 import convert_dataset_v21_to_v30 as up
from lerobot.common.datasets.v30 import convert_dataset_v30_to_v21 as down
from lerobot.common.datasets.video_utils import VideoEncoder
from tests.datasets.conftest import ARTIFACTS, features, picture, record

CAMERA = "observation.images.cam0"


@pytest.fixture(scope="module")
def v21(tmp_path_factory):
    root = tmp_path_factory.mktemp("source") / "v21"
    return record(root, (5, 8, 6), feature_set=features(video=2, image=1)).root


def metadata(root) -> dict:
    names = ("info.json", "tasks.jsonl", "episodes.jsonl", "episodes_stats.jsonl")
    return {name: (root / "meta" / name).read_text() for name in names}


@pytest.mark.parametrize("size", [100, 0.0001])
def test_there_and_back_is_the_identity(v21, tmp_path, size):
    up.convert(LeRobotDataset(root=v21), tmp_path / "v30", size, size)
    videos = list((tmp_path / "v30" / "videos" / CAMERA).rglob("*.mp4"))
    assert len(videos) == (1 if size == 100 else 3)
    down.convert(LeRobotDataset(root=tmp_path / "v30"), tmp_path / "v21")
    assert metadata(tmp_path / "v21") == metadata(v21)
    assert verify_same(LeRobotDataset(root=v21), LeRobotDataset(root=tmp_path / "v21")) == 19
    for path in v21.rglob("*.parquet"):
        assert pq.read_table(path).equals(pq.read_table(tmp_path / "v21" / path.relative_to(v21)))


def test_what_lerobot_wrote_converts_to_what_it_wrote_in_the_other_format(tmp_path):
    down.convert(LeRobotDataset(root=ARTIFACTS / "v30"), tmp_path / "v21")
    ours, theirs = (LeRobotDataset(root=root) for root in (tmp_path / "v21", ARTIFACTS / "v21"))
    assert verify_same(theirs, ours) == 70
    for key in theirs.meta.camera_keys:  # the v3.0 file has std 0
        np.testing.assert_allclose(ours.meta.stats[key]["std"], theirs.meta.stats[key]["std"], rtol=0.1)
    up.convert(theirs, tmp_path / "v30")
    assert verify_same(LeRobotDataset(root=ARTIFACTS / "v30"), LeRobotDataset(root=tmp_path / "v30")) == 70


def test_a_stopped_conversion_continues(v21, tmp_path, monkeypatch):
    calls, original = [], up._join_videos

    def stopped(*args):
        calls.append(args[1])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(up, "_join_videos", stopped)
    with pytest.raises(KeyboardInterrupt):
        up.convert(LeRobotDataset(root=v21), tmp_path / "v30")
    assert not (tmp_path / "v30/meta/info.json").exists()
    with pytest.raises(ValueError, match="begun with"):
        up.convert(LeRobotDataset(root=v21), tmp_path / "v30", 7)
    up.convert(LeRobotDataset(root=v21), tmp_path / "v30")
    assert calls == [CAMERA, "observation.images.cam1", "observation.images.cam1"]
    assert not (tmp_path / "v30" / WORK_DIR).exists()


def test_an_episode_between_keyframes_is_encoded_without_loss(tmp_path):
    root = shutil.copytree(record(tmp_path / "set", (3, 4), codebase_version="v3.0").root, tmp_path / "copy")
    encoder = VideoEncoder(root / f"videos/{CAMERA}/chunk-000/file-000.mp4", 10, g=100)
    for index in range(7):
        encoder.write(picture(0, index))
    encoder.close()
    down.convert(LeRobotDataset(root=root), tmp_path / "v21")  # compares every frame
    assert LeRobotDataset(root=tmp_path / "v21").num_episodes == 2


def test_a_difference_is_found(v21, tmp_path):
    up.convert(LeRobotDataset(root=v21), tmp_path / "v30", verify=False)
    other = shutil.copytree(v21, tmp_path / "other")
    name = f"videos/chunk-000/{CAMERA}/episode_000001.mp4"
    shutil.copy(v21 / name.replace("cam0", "cam1"), other / name)
    with pytest.raises(DatasetError, match="Episode 1, camera 'observation.images.cam0', frame 0 differs"):
        verify_same(LeRobotDataset(root=other), LeRobotDataset(root=tmp_path / "v30"))


def test_an_occupied_folder_and_other_versions_are_refused(v21, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="--output"):
        up.convert(LeRobotDataset(root=v21), tmp_path)
    with pytest.raises(ValueError, match="expected v2.1"):
        up.convert(LeRobotDataset(root=ARTIFACTS / "v30"), tmp_path / "new")
    with pytest.raises(ValueError, match="expected v3.0"):
        down.convert(LeRobotDataset(root=v21), tmp_path / "new")


def test_the_command_says_what_it_would_do_and_does_it(v21, tmp_path):
    command = [sys.executable, up.__file__, f"--root={v21}", f"--output={tmp_path / 'v30'}"]
    dry = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, timeout=120)
    assert "3 episodes, 19 frames" in dry.stdout and not (tmp_path / "v30").exists(), dry.stderr
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "19 frames compared" in done.stdout, done.stderr
    assert json.loads((tmp_path / "v30/meta/info.json").read_text())["features"]["action"]["fps"] == 10
