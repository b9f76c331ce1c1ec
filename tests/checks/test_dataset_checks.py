"""A sound dataset gives no warnings; each damage gives its finding, with episode, frame and repair."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lerobot.common.checks.dataset_checks import check_dataset
from lerobot.common.checks.dataset_numbers import Episode, check_joints
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.utils import load_jsonlines, write_jsonlines
from lerobot.common.datasets.video_utils import VideoEncoder
from tests.datasets.conftest import ARTIFACTS, features, picture

CAMERA = "observation.images.cam0"
LENGTH, FPS = 60, 10
VIDEO = f"videos/chunk-000/{CAMERA}/episode_000001.mp4"
DATA = "data/chunk-000/episode_000001.parquet"


def joints(episode: int, frame: np.ndarray | int) -> np.ndarray:
    """Smooth movement of 6 joints in degrees."""
    t = np.asarray(frame)[..., None] / FPS
    return (60 * np.sin(t * (1 + 0.1 * np.arange(6)) + episode)).astype(np.float32)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    root = tmp_path_factory.mktemp("sound") / "set"
    dataset = LeRobotDataset.create(None, FPS, root=root, features=features())
    for episode in range(3):
        for i in range(LENGTH):
            state = joints(episode, i)
            pictures = {CAMERA: picture(episode, i)}
            dataset.add_frame({"observation.state": state, "action": joints(episode, i + 1), "task": "go", **pictures})
        dataset.save_episode()
    return root


@pytest.fixture
def root(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "set")


def found(root, **options) -> dict:
    """The first finding of each kind, infos left out."""
    return {f.code: f for f in reversed(check_dataset(root, **options)) if f.severity != "info"}


def set_column(root, name: str, change):
    table = pq.read_table(root / DATA)
    values = change(np.array(table.column(name).to_pylist()))
    column = pa.array(values.tolist(), table.schema.field(name).type)
    pq.write_table(table.set_column(table.column_names.index(name), name, column), root / DATA)


def write_video(root, pictures, fps=FPS):
    encoder = VideoEncoder(root / VIDEO, fps)
    for image in pictures:
        encoder.write(image)
    encoder.close()


def changed(values: np.ndarray, index, value) -> np.ndarray:
    values[index] = value
    return values


def test_a_sound_dataset_has_no_warnings(sound):
    assert found(sound) == {}
    units = [f for f in check_dataset(sound, decode=False) if f.code == "joint.unit"]
    assert [f.where.feature for f in units] == ["observation.state", "action"] and "degrees" in units[0].message


NUMBERS = {
    "time.timestamp": (lambda r: set_column(r, "timestamp", lambda v: changed(v, slice(20, None), v[20:] + 0.05)), 20),
    "time.index": (lambda r: set_column(r, "index", lambda v: v + 1), 0),
    "joint.jump": (lambda r: set_column(r, "action", lambda v: changed(v, (30, 2), 400.0)), 30),
    "data.nan": (lambda r: set_column(r, "action", lambda v: changed(v, (30, 2), np.nan)), 30),
    "stats.outdated": (lambda r: set_column(r, "action", lambda v: v + 5), None),
}


@pytest.mark.parametrize("code", NUMBERS)
def test_damaged_numbers(root, code):
    damage, frame = NUMBERS[code]
    damage(root)
    finding = found(root, decode=False)[code]
    assert (finding.where.episode, finding.where.frame) == (1, frame)
    if code in ("data.nan", "stats.outdated"):
        assert str(root) in finding.fix


def test_a_jump_is_one_finding_however_many_joints_and_frames_it_has(root):
    spikes = lambda v: changed(changed(v, (30, slice(1, 4)), 400.0), (45, 0), 400.0)  # noqa: E731
    set_column(root, "action", spikes)
    first, second = (f for f in check_dataset(root, decode=False) if f.code == "joint.jump")
    assert (first.where.frame, first.where.last_frame, second.where.frame) == (30, 31, 45)
    assert first.evidence["joints"] == ["motor_1", "motor_2", "motor_3"] and "(also motor_" in first.message
    assert second.where.feature == "action[motor_0]" and "also" not in second.message


def test_an_episode_that_cannot_be_read_is_still_asked_for_its_task(root):
    rows = load_jsonlines(root / "meta/episodes.jsonl")
    write_jsonlines(
        [{**row, "tasks": [""] if row["episode_index"] == 1 else row["tasks"]} for row in rows],
        root / "meta/episodes.jsonl",
    )
    set_column(root, "action", lambda v: changed(v, (30, 2), np.nan))
    findings = found(root, decode=False)
    assert findings["data.nan"].where.episode == findings["task.missing"].where.episode == 1
    assert "--tasks=" in findings["task.missing"].fix


def test_damaged_pictures(root):
    pictures = [picture(1, i) for i in range(LENGTH)]
    write_video(root, pictures[:55])
    assert found(root)["video.frame_count"].evidence == {"video": 55, "episode": 60}
    write_video(root, pictures, fps=15)
    assert found(root)["video.fps"].evidence["fps"] == pytest.approx(15)
    write_video(root, pictures[:20] + [pictures[20]] * 20 + pictures[40:])
    frozen = found(root)["video.frozen"]
    assert (frozen.where.episode, frozen.where.frame, frozen.where.feature) == (1, 20, CAMERA)
    write_video(root, [pictures[i // 2] for i in range(LENGTH)])
    assert "video.duplicates" in found(root)
    write_video(root, [np.zeros_like(pictures[0])] * LENGTH)
    assert "video.dark" in found(root)
    data = (root / VIDEO).read_bytes()
    (root / VIDEO).write_bytes(data[: len(data) // 2])
    finding = found(root)["video.unreadable"]
    assert '--delete="[1]"' in finding.fix
    (root / VIDEO).unlink()
    assert "does not exist" in found(root)["video.unreadable"].message


def test_habits_of_recording(root):
    def stand(values):
        values[:20], values[40:] = values[20], values[39]
        return values

    set_column(root, "observation.state", stand)
    set_column(root, "action", lambda v: stand(v) + np.eye(6)[3] * 20)
    findings = {f.code: f for f in check_dataset(root, decode=False)}
    assert findings["episode.idle_begin"].where.last_frame == 20
    assert findings["episode.idle_end"].where.frame == 40
    offsets = {f.where.feature: f for f in check_dataset(root, decode=False) if f.code == "joint.offset"}
    assert offsets["action[motor_3]"].evidence["offset"] > 10
    assert found(root, chunk=100, decode=False)["episode.short"].evidence == {"frames": 60, "chunk": 100}


def test_constant_joints_and_missing_tasks(root):
    for episode in range(3):
        path = root / f"data/chunk-000/episode_{episode:06d}.parquet"
        table = pq.read_table(path)
        values = np.array(table.column("action").to_pylist(), dtype=np.float32)
        values[:, 4] = 7
        values[:30, 1] = 60
        column = pa.array(values.tolist(), table.schema.field("action").type)
        pq.write_table(table.set_column(table.column_names.index("action"), "action", column), path)
    write_jsonlines([{"task_index": 0, "task": ""}], root / "meta/tasks.jsonl")
    findings = found(root, decode=False)
    assert findings["joint.constant"].where.feature == "action[motor_4]"
    assert findings["joint.saturated"].where.feature == "action[motor_1]"
    assert "task.missing" in findings


def test_an_outermost_goal_that_the_follower_passes_is_no_limit():
    goal = np.concatenate([np.linspace(0, 60, 30), np.full(30, 60.0)])[:, None]
    for overshoot, codes in ((0.0, ["joint.saturated"]), (6.0, [])):
        state = goal + overshoot * np.sin(np.arange(60))[:, None]
        episode = Episode(0, 0, {"timestamp": np.arange(60) / FPS, "action": goal, "observation.state": state}, ["go"])
        assert [f.code for f in check_joints([episode], "action", ["pan"])] == codes
    state, goal = goal, goal * 1.2
    episode = Episode(0, 0, {"timestamp": np.arange(60) / FPS, "action": goal, "observation.state": state}, ["go"])
    assert [f.code for f in check_joints([episode], "observation.state", ["pan"])] == ["joint.saturated"]


def test_the_shipped_dataset_has_no_finding():
    findings = check_dataset(Path("grasp_dataset"), decode=False)
    assert [f.code for f in findings if f.severity != "info"] == []


def test_contradicting_metadata_are_one_error(root):
    rows = load_jsonlines(root / "meta/episodes.jsonl")
    write_jsonlines([{**row, "length": 61} for row in rows], root / "meta/episodes.jsonl")
    (finding,) = check_dataset(root)
    assert finding.code == "structure.metadata" and "add up to 183" in finding.message


def test_wrong_camera_statistics_of_lerobot_are_named_and_repaired(tmp_path):
    root = shutil.copytree(ARTIFACTS / "v30", tmp_path / "v30")
    assert "stats.camera_std" in found(root, decode=False)
    run = command(root, "--fix", "--fast")
    assert "again" in run.stdout, run.stderr
    assert not {code for code in found(root, decode=False) if code.startswith("stats")}


def command(root, *options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "lerobot/scripts/check_dataset.py", str(root), *options],
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_command_reports_repairs_and_exits_with_the_severity(root, tmp_path):
    set_column(root, "action", lambda v: changed(v, (30, 2), np.nan))
    page, data, output = tmp_path / "page.html", tmp_path / "findings.json", tmp_path / "repaired"
    run = command(root, f"--json={data}", f"--html={page}", "--fix", f"--output={output}")
    assert run.returncode == 2 and "data.nan (episode 1, frame 30)" in run.stdout, run.stderr
    assert any(finding["code"] == "data.nan" for finding in json.loads(data.read_text()))
    assert "NaN" in page.read_text()
    assert len(LeRobotDataset(root=output)) == 120 and found(output) == {}
    sound = command(output, "--fast", "--fix", f"--output={tmp_path / 'other'}")
    assert sound.returncode == 0 and "nothing to repair" in sound.stdout and not (tmp_path / "other").exists()


def test_the_page_shows_the_frames_that_are_meant(root, tmp_path):
    write_video(root, [picture(1, min(i, 20)) for i in range(LENGTH)])
    command(root, f"--html={tmp_path / 'page.html'}")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img src='data:image/jpeg;base64,") == 3 and "frame 20</figcaption>" in page
    set_column(root, "action", lambda v: changed(v, (30, slice(1, 3)), 400.0))
    command(root, "--fast", f"--html={tmp_path / 'page.html'}")
    assert (tmp_path / "page.html").read_text().count("<polyline") == 2  # both joints that jump
