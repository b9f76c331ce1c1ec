"""When an episode counts: saved before the time to reset, taken back by a key, never lost by a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from itertools import chain, repeat
from types import SimpleNamespace

import pytest

pytest.importorskip("mujoco")
pytest.importorskip("dynamixel_sdk")

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.robot_devices import episodes, recording
from lerobot.common.robot_devices.control_configs import parse_control
from lerobot.common.robot_devices.keyboard import new_events
from lerobot.common.robot_devices.robots.koch_sim import KochSimRobot
from lerobot.common.robot_devices.robots.manipulator import ManipulatorRobot
from tests.kill import REPO

FLAGS = [
    "--robot.type=koch_sim",
    "--robot.time=lockstep",
    "--robot.supervise=false",
    "--robot.cameras={}",
    "--control.type=record",
    "--control.repo_id=me/cubes",
    "--control.single_task=Pick.",
    "--control.warmup_time_s=0",
    "--control.episode_time_s=0.2",
    "--control.push_to_hub=false",
    "--control.play_sounds=false",
]


class HandResetRobot(KochSimRobot):
    """The simulated pair, whose scene a person puts back: there is a time to reset, as with a real arm."""

    reset_scene = property(lambda self: object.__getattribute__(self, "no_such_attribute"))


def record(root, monkeypatch, keys: list[str], count: int = 1) -> list[int]:
    """Record while `keys` are pressed, one per time to reset; how many episodes were on disk then."""
    on_disk = []

    def reset(robot, events, *_):
        on_disk.append(json.loads((root / "meta/info.json").read_text())["total_episodes"])
        events["rerecord_episode"] = "left" in (pressed := keys.pop(0))
        events["stop_recording"] |= "escape" in pressed

    monkeypatch.setattr(episodes, "reset_environment", reset)
    cfg = parse_control([*FLAGS, f"--control.root={root}", f"--control.num_episodes={count}"])
    recording.record(HandResetRobot(cfg.robot), cfg.control)
    return on_disk


def reports(root) -> list[int]:
    lines = (root.parent / f"{root.name}.control_report.jsonl").read_text().splitlines()
    return [json.loads(line)["episode"] for line in lines]


def test_an_episode_is_on_disk_before_the_reset_and_left_takes_it_back(tmp_path, monkeypatch):
    root = tmp_path / "cubes"
    assert record(root, monkeypatch, ["", "left", ""], count=3) == [1, 2, 2]
    dataset = LeRobotDataset("me/cubes", root=root)
    assert (dataset.num_episodes, len(dataset)) == (3, 18) and reports(root) == [0, 1, 2]


def test_escape_in_the_reset_keeps_the_episode_and_stops(tmp_path, monkeypatch):
    root = tmp_path / "cubes"
    assert record(root, monkeypatch, ["escape"], count=5) == [1]
    assert LeRobotDataset("me/cubes", root=root).num_episodes == 1


def test_an_error_in_the_reset_does_not_lose_the_episode(tmp_path, monkeypatch):
    root = tmp_path / "cubes"
    with pytest.raises(IndexError):
        record(root, monkeypatch, [], count=2)
    assert LeRobotDataset("me/cubes", root=root).num_episodes == 1


def test_the_only_episode_can_be_taken_back(tmp_path, monkeypatch):
    root = tmp_path / "cubes"
    assert record(root, monkeypatch, ["left", ""], count=2) == [1, 1]
    assert LeRobotDataset("me/cubes", root=root).num_episodes == 2


@pytest.mark.parametrize(("key", "expected"), [("left", [0, 1]), ("", [0, 1])])
def test_the_coachs_advice_can_be_followed_where_the_scene_puts_itself_back(tmp_path, monkeypatch, key, expected):
    root, asked, advice = tmp_path / "cubes", [], chain(["redo"], repeat("keep"))
    events = new_events()

    def press(events, seconds):
        asked.append((seconds, len(reports(root))))
        events["rerecord_episode"] = key == "left"

    monkeypatch.setattr(recording, "init_keyboard_listener", lambda: (SimpleNamespace(stop=lambda: None), events))
    monkeypatch.setattr(episodes, "wait_for_key", press)
    monkeypatch.setattr(
        episodes.EpisodeReport, "advice", property(lambda self: self.__dict__.setdefault("a", next(advice)))
    )
    cfg = parse_control([*FLAGS, f"--control.root={root}", "--control.num_episodes=2", "--control.reset_time_s=4"])
    recording.record(KochSimRobot(cfg.robot), cfg.control)
    assert asked == [(4.0, 1)] and reports(root) == expected
    lines = (tmp_path / "cubes.control_report.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [0, 1], "again means the same layout"


def test_without_keys_nobody_is_asked(tmp_path, monkeypatch):
    root = tmp_path / "cubes"
    monkeypatch.setattr(episodes, "wait_for_key", lambda *_: pytest.fail("waited for a key that nobody can press"))
    monkeypatch.setattr(episodes.EpisodeReport, "advice", "redo")
    cfg = parse_control([*FLAGS, f"--control.root={root}", "--control.num_episodes=2"])
    recording.record(KochSimRobot(cfg.robot), cfg.control)
    assert reports(root) == [0, 1]


RECORD_ON_REAL_PORTS = """
    import sys
    from lerobot.common.robot_devices import episodes
    from lerobot.common.robot_devices.robots.utils import make_robot
    from lerobot.common.robot_devices.simulation.twin_process import TwinProcess
    from lerobot.common.robot_devices.control_configs import parse_control
    from lerobot.scripts.control_robot import control_robot
    twin, calibrated = TwinProcess(leader="hold"), make_robot("koch_sim", cameras={})
    reset = episodes.reset_environment
    def told(*args):
        print("reset begins", flush=True)
        reset(*args)
    episodes.reset_environment = told
    control_robot(parse_control([*sys.argv[1:], f"--robot.follower_port={twin.ports[0]}",
        f"--robot.leader_port={twin.ports[1]}", f"--robot.calibration_dir={calibrated.calibration_dir}"]))
"""


def test_a_kill_during_the_reset_loses_nothing(tmp_path):
    root = tmp_path / "cubes"
    flags = [f for f in FLAGS if not f.startswith(("--robot.type", "--robot.time"))]
    flags += ["--robot.type=koch", f"--control.root={root}", "--control.num_episodes=2", "--control.reset_time_s=600"]
    command = [sys.executable, "-c", textwrap.dedent(RECORD_ON_REAL_PORTS), *flags]
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        alarm = threading.Timer(300, process.kill)
        alarm.start()
        assert any("reset begins" in line for line in process.stdout)
        alarm.cancel()
        os.kill(process.pid, signal.SIGKILL)
    dataset = LeRobotDataset("me/cubes", root=root)
    assert dataset.num_episodes == 1 and dataset[len(dataset) - 1]["action"].isfinite().all()


def test_the_real_arm_has_a_time_to_reset():
    assert not hasattr(ManipulatorRobot, "reset_scene")
