"""Recording episodes: files, metadata, statistics, refusals, and what a kill leaves behind."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from lerobot.common.datasets.compute_stats import aggregate_stats
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.utils import UNFINISHED_DIR, load_jsonlines
from lerobot.common.datasets.video_utils import iter_video_frames
from tests.datasets.conftest import features, frame, picture, record, record_episode


def files(root) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_layout_and_info_are_those_of_v21(recorded_root):
    info = json.loads((recorded_root / "meta" / "info.json").read_text())
    expected = {
        "codebase_version": "v2.1",
        "robot_type": None,
        "total_episodes": 3,
        "total_frames": 19,
        "total_tasks": 2,
        "total_videos": 3,
        "total_chunks": 1,
        "chunks_size": 1000,
        "fps": 10,
        "splits": {"train": "0:3"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    assert list(info) == [*expected, "features"]
    assert {key: info[key] for key in expected} == expected
    defaults = ["timestamp", "frame_index", "episode_index", "index", "task_index"]
    assert list(info["features"])[-5:] == defaults
    assert info["features"]["observation.images.cam0"]["info"] == {
        "video.height": 64,
        "video.width": 96,
        "video.codec": "h264",
        "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False,
        "video.fps": 10,
        "video.channels": 3,
        "has_audio": False,
    }
    meta = {f"meta/{name}" for name in ("info.json", "episodes.jsonl", "tasks.jsonl", "episodes_stats.jsonl")}
    data = {f"data/chunk-000/episode_00000{i}.parquet" for i in range(3)}
    videos = {f"videos/chunk-000/observation.images.cam0/episode_00000{i}.mp4" for i in range(3)}
    assert files(recorded_root) == meta | data | videos
    assert load_jsonlines(recorded_root / "meta" / "episodes.jsonl")[1] == {
        "episode_index": 1,
        "tasks": ["task 1"],
        "length": 8,
    }


def test_parquet_has_the_columns_that_the_datasets_library_reads(tmp_path):
    root = record(tmp_path / "set", (3,), feature_set=features(video=1, image=1)).root
    table = pq.read_table(root / "data/chunk-000/episode_000000.parquet")
    assert str(table.schema.field("action").type) == "fixed_size_list<element: float>[6]".replace(
        "element", "item"
    ) or (table.schema.field("action").type.list_size == 6)
    assert "observation.images.cam0" not in table.column_names  # videos have no column
    assert table.schema.field("observation.images.cam1").type.names == ["bytes", "path"]
    assert table.column("observation.images.cam1")[1].as_py()["path"] == "frame_000001.png"
    assert str(table.schema.field("timestamp").type) == "float"
    described = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert described["observation.images.cam1"] == {"_type": "Image"}
    assert described["action"] == {
        "feature": {"dtype": "float32", "_type": "Value"},
        "length": 6,
        "_type": "Sequence",
    }


def test_recorded_frames_come_back(recorded_root):
    dataset = LeRobotDataset(root=recorded_root, return_uint8=True)
    for row, (episode, index) in {0: (0, 0), 12: (1, 7), 18: (2, 5)}.items():
        item = dataset[row]
        assert item["action"].tolist() == [100 * episode + index + 0.5] * 6
        assert (item["index"], item["episode_index"], item["frame_index"]) == (row, episode, index)
        assert item["timestamp"] == torch.tensor(index / 10, dtype=torch.float32)
        assert item["task"] == f"task {episode % 2}"
        difference = item["observation.images.cam0"].permute(1, 2, 0).numpy().astype(int) - picture(episode, index)
        assert np.abs(difference).mean() < 8  # crf 30 and half the colour resolution


def test_a_dataset_can_be_read_while_it_grows(tmp_path):
    dataset = record(tmp_path / "set", (3,))
    assert len(dataset) == 3
    record_episode(dataset, 1, 4)
    assert len(dataset) == 7 and dataset[6]["action"][0] == 103.5


def test_recording_goes_on_after_opening(own_root):
    dataset = LeRobotDataset("whatever", root=own_root)
    record_episode(dataset, 3, 4)
    again = LeRobotDataset(root=own_root)
    assert (again.num_episodes, len(again)) == (4, 23)
    assert again[22]["task"] == "task 1" and again[22]["index"] == 22
    stats = aggregate_stats(list(again.meta.episodes_stats.values()))
    np.testing.assert_allclose(dataset.meta.stats["action"]["mean"], stats["action"]["mean"], rtol=1e-6)


def test_both_forms_of_add_frame_and_all_kinds_of_pictures(tmp_path):
    dataset = LeRobotDataset.create(None, 10, root=tmp_path / "set", features=features(video=0, image=1))
    base = frame(dataset, 0, 0, "inside")
    image = base["observation.images.cam0"]
    without = {key: value for key, value in base.items() if key != "task"}
    kinds = [image, image.transpose(2, 0, 1), Image.fromarray(image), image.astype(np.float32) / 255]
    dataset.add_frame(base)
    dataset.add_frame(without, "as argument")
    dataset.add_frame(without, task="as keyword", timestamp=0.2)
    for kind in kinds:
        dataset.add_frame({**base, "observation.images.cam0": kind, "action": torch.ones(6)})
    assert dataset.episode_buffer["size"] == 7 and dataset.has_pending_frames()
    dataset.save_episode()
    assert not dataset.has_pending_frames()
    tasks = [dataset[i]["task"] for i in range(4)]
    assert tasks == ["inside", "as argument", "as keyword", "inside"]
    assert dataset.meta.episodes[0]["tasks"] == ["inside", "as argument", "as keyword"]
    for row in range(3, 6):
        assert torch.equal(dataset[row]["observation.images.cam0"], dataset[0]["observation.images.cam0"])
    # floats are truncated, as LeRobot does
    assert (dataset[6]["observation.images.cam0"] - dataset[0]["observation.images.cam0"]).abs().max() < 1.1 / 255


def test_the_callers_frame_is_left_alone_and_may_be_reused(tmp_path):
    dataset = LeRobotDataset.create(None, 10, root=tmp_path / "set", features=features(video=0, image=1))
    reused = frame(dataset, 0, 0)
    for index in range(3):
        reused["observation.images.cam0"][:] = picture(0, index)
        reused["action"][:] = index
        dataset.add_frame(reused)
    dataset.save_episode()
    assert reused["task"] == "task 0"
    assert [dataset[i]["action"][0].item() for i in range(3)] == [0, 1, 2]
    expected = torch.from_numpy(picture(0, 1)).permute(2, 0, 1) / 255
    assert torch.equal(dataset[1]["observation.images.cam0"], expected)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"action": np.zeros(5, np.float32)}, r"'action' of shape '\(5,\)' does not have the expected shape '\(6,\)'"),
        ({"action": np.zeros(6)}, "'action' of dtype 'float64' is not of the expected dtype 'float32'"),
        ({"action": [0.0] * 6}, "'action' is not a 'np.ndarray'"),
        ({"action": None, "other": 1}, r"Missing features: {'action'}\nExtra features: {'other'}"),
        ({"observation.images.cam0": np.zeros((96, 64, 3), np.uint8)}, r"of shape '\(96, 64, 3\)'"),
        ({"task": None}, "no task"),
        ({"task": 3}, "'task' is expected to be of type 'str'"),
        ({"observation.images.cam0": np.full((64, 96, 3), 2.0, np.float32)}, r"must lie in \[0, 1\]"),
    ],
)
def test_frames_that_do_not_fit_are_refused_and_not_added(tmp_path, change, message):
    dataset = LeRobotDataset.create(None, 10, root=tmp_path / "set", features=features())
    good = frame(dataset, 0, 0)
    bad = {key: value for key, value in {**good, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        dataset.add_frame(bad)
    dataset.add_frame(good)
    dataset.save_episode()
    assert len(dataset) == 1


def test_an_empty_episode_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        LeRobotDataset.create(None, 10, root=tmp_path / "set", features=features()).save_episode()


def test_wrong_timestamps_are_refused_before_anything_is_written(tmp_path):
    dataset = LeRobotDataset.create(None, 10, root=tmp_path / "set", features=features())
    dataset.add_frame(frame(dataset, 0, 0))
    dataset.add_frame(frame(dataset, 0, 1), timestamp=0.25)
    with pytest.raises(ValueError, match="not 1/fps"):
        dataset.save_episode()
    dataset.clear_episode_buffer()
    assert len(LeRobotDataset(root=dataset.root)) == 0


def test_cleared_frames_leave_no_trace(tmp_path):
    dataset = record(tmp_path / "set", (4,), feature_set=features(video=1, image=1))
    before = files(dataset.root)
    for index in range(6):
        dataset.add_frame(frame(dataset, 7, index))
    dataset.clear_episode_buffer()
    assert files(dataset.root) == before and not (dataset.root / UNFINISHED_DIR).exists()
    record_episode(dataset, 1, 3)  # shorter than what was cleared
    assert len(dataset) == 7 and dataset[6]["action"][0] == 102.5
    video = dataset.meta.video_file(1, "observation.images.cam0")
    assert len(list(iter_video_frames(video))) == 3


def test_save_episode_takes_whole_columns(tmp_path):
    dataset = LeRobotDataset.create(None, 10, root=tmp_path / "set", features=features())
    frames = [frame(dataset, 0, index) for index in range(4)]
    dataset.save_episode({key: [f[key] for f in frames] for key in frames[0]})
    assert len(dataset) == 4 and dataset[3]["observation.state"][0] == 3


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"features": features(), "use_videos": False}, ValueError, "use_videos=False"),
        ({"features": None}, ValueError, "needs features"),
        ({"features": {"a/b": {"dtype": "float32", "shape": (1,)}}}, ValueError, "contains '/'"),
        ({"features": {"a": {"dtype": "float32"}}}, ValueError, "'dtype' and 'shape'"),
        ({"features": {"a": {"dtype": "video", "shape": (33, 64, 3)}}}, ValueError, "must be even"),
        ({"features": {"a": {"dtype": "image", "shape": (64, 64, 1)}}}, ValueError, "3 channels"),
        ({"features": features(), "codebase_version": "v4.0"}, ValueError, "v4.0"),
        ({"features": features(), "vcodec": "vp9"}, ValueError, "vp9"),
    ],
)
def test_impossible_datasets_are_refused_and_leave_no_folder(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        LeRobotDataset.create(None, 10, root=tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


def test_an_existing_folder_is_refused(tmp_path):
    with pytest.raises(FileExistsError, match="another root"):
        LeRobotDataset.create(None, 10, root=tmp_path, features=features())


def test_features_in_third_place_as_newer_releases_have_them(tmp_path, monkeypatch):
    monkeypatch.setattr("lerobot.common.datasets.dataset_metadata.HF_LEROBOT_HOME", tmp_path)
    dataset = LeRobotDataset.create("owner/name", 10, features(), robot_type="koch")
    assert dataset.root == tmp_path / "owner" / "name" and dataset.meta.robot_type == "koch"


@pytest.mark.parametrize("vcodec, stored", [("hevc", "hevc"), ("libsvtav1", "av1")])
def test_other_codecs(tmp_path, vcodec, stored):
    root = record(tmp_path / "set", (6,), vcodec=vcodec).root
    dataset = LeRobotDataset(root=root, return_uint8=True)
    assert dataset.features["observation.images.cam0"]["info"]["video.codec"] == stored
    frames = list(iter_video_frames(dataset.meta.video_file(0, "observation.images.cam0")))
    for row in (5, 0, 3):
        np.testing.assert_array_equal(dataset[row]["observation.images.cam0"].permute(1, 2, 0), frames[row])


def test_images_by_writer_threads(tmp_path):
    options = {"feature_set": features(video=0, image=2), "image_writer_threads": 3}
    dataset = record(tmp_path / "set", (20,), **options)
    dataset.stop_image_writer()
    expected = torch.from_numpy(picture(0, 17, 1)).permute(2, 0, 1) / 255
    assert torch.equal(dataset[17]["observation.images.cam1"], expected)


RECORD_UNTIL_KILLED = """
    import sys
    from pathlib import Path
    from tests.datasets.conftest import record, features, frame
    dataset = record(Path(sys.argv[1]), (4, 3), feature_set=features(video=1, image=1))
    stage = sys.argv[2]
    if stage == "frames":
        for index in range(5):
            dataset.add_frame(frame(dataset, 2, index))
    else:
        import lerobot.common.datasets.dataset_metadata as metadata
        wrapped, calls = getattr(metadata, stage), []
        def stop_here(*args):
            if stage != "append_jsonlines" or len(calls) == 1:
                print("ready", flush=True); sys.stdin.read()
            calls.append(1)
            return wrapped(*args)
        setattr(metadata, stage, stop_here)
        for index in range(5):
            dataset.add_frame(frame(dataset, 2, index, task="a new task"))
        dataset.save_episode()
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("stage", ["frames", "write_jsonlines", "append_jsonlines", "write_info"])
def test_kill_leaves_every_saved_episode_and_nothing_of_the_running_one(tmp_path, stage):
    root = tmp_path / "set"
    command = [sys.executable, "-c", textwrap.dedent(RECORD_UNTIL_KILLED), str(root), stage]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        meanwhile = LeRobotDataset(root=root)  # reading while another process records disturbs nothing
        assert len(meanwhile) == 7 and (root / UNFINISHED_DIR).exists()
        with pytest.raises(RuntimeError, match="Another process records"):
            meanwhile.add_frame(frame(meanwhile, 2, 0))
        os.kill(process.pid, signal.SIGKILL)
    (root / "meta" / ".info.json.99.part").write_text('{"half')  # killed while a metadata file was written
    dataset = LeRobotDataset(root=root)
    assert (dataset.num_episodes, len(dataset), dataset.meta.tasks) == (2, 7, {0: "task 0", 1: "task 1"})
    assert not (root / UNFINISHED_DIR).exists()
    assert not [name for name in files(root) if "000002" in name or name.endswith(".part")]
    for name in ("episodes", "episodes_stats"):
        assert len(load_jsonlines(root / "meta" / f"{name}.jsonl")) == 2
    record_episode(dataset, 2, 3)
    assert LeRobotDataset(root=root)[9]["action"][0] == 202.5


DROP_UNTIL_KILLED = """
    import sys
    from lerobot.common.datasets import recovery
    from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
    def stop_here(*_):
        print("ready", flush=True); sys.stdin.read()
    recovery._remove_uncounted = stop_here
    LeRobotDataset(root=sys.argv[1]).drop_last_episode()
"""


@pytest.mark.parametrize("killed", [False, True])
def test_the_last_episode_can_be_taken_out_and_a_kill_leaves_no_half_of_it(tmp_path, killed):
    root = tmp_path / "set"
    dataset = record(root, (4, 3), feature_set=features(video=1, image=1))
    if killed:
        command = [sys.executable, "-c", textwrap.dedent(DROP_UNTIL_KILLED), str(root)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            os.kill(process.pid, signal.SIGKILL)
        dataset = LeRobotDataset(root=root)
    else:
        dataset.drop_last_episode()
    assert (dataset.num_episodes, dataset.meta.total_frames) == (1, 4) and not (root / UNFINISHED_DIR).exists()
    assert not [name for name in files(root) if "episode_000001" in name]
    record_episode(dataset, 1, 5)
    again = LeRobotDataset(root=root)
    assert (again.num_episodes, len(again)) == (2, 9) and again.meta.stats["action"]["count"] == [9]
