"""The command names of newer LeRobot releases, for a Koch arm: their flags in, `control_robot.py` behind them."""

from __future__ import annotations

import sys

from lerobot.common.robot_devices.control_configs import parse_control
from lerobot.common.utils.utils import init_logging, run_command
from lerobot.configs.parser import split_arguments
from lerobot.scripts.control_robot import control_robot

ROBOTS = {"koch_follower": "koch", "koch_leader": "koch"}
# Flag of the newer command -> flag here; None: it has no effect here.
SAME = {
    "robot.port": "robot.follower_port",
    "teleop.port": "robot.leader_port",
    "robot.cameras": "robot.cameras",
    "robot.calibration_dir": "robot.calibration_dir",
    "robot.max_relative_target": "robot.max_relative_target",
    "robot.id": None,
    "teleop.id": None,
    "teleop.calibration_dir": None,
    "dataset.streaming_encoding": None,
    "dataset.video_encoding_batch_size": None,
    "resume": "control.resume",
    "play_sounds": "control.play_sounds",
    "display_data": "control.display_data",
    "fps": "control.fps",
    "teleop_time_s": "control.teleop_time_s",
}
DEFAULTS = {"teleoperate": {"control.fps": "60"}, "record": {"control.fps": "30"}, "replay": {}, "calibrate": {}}


def translate(control: str, argv: list[str]) -> list[str]:
    """The arguments of `control_robot.py` for those of a newer command; ValueError where a flag has no counterpart."""
    given = dict(split_arguments(argv))
    _require_devices(control, given)
    flags = {"control.type": control, **DEFAULTS[control]}
    for name, value in given.items():
        if name in ("robot.type", "teleop.type"):
            flags.setdefault("robot.type", ROBOTS.get(value, value))
        elif (new := _counterpart(name)) is not None:
            flags[new] = value
    if control == "calibrate":
        flags["control.arms"] = '["main_follower"]' if "robot.type" in given else '["main_leader"]'
    if flags["robot.type"] == "koch":
        flags |= {} if "robot.type" in given else {"robot.follower_arms": "{}"}
        flags |= {} if "teleop.type" in given else {"robot.leader_arms": "{}"}
    return [f"--{name}={value}" for name, value in flags.items()]


def _require_devices(control: str, given: dict[str, str]) -> None:
    robot, teleop = given.get("robot.type"), given.get("teleop.type")
    if control == "calibrate" and (robot is None) == (teleop is None):
        raise ValueError("Calibrating needs exactly one of --robot.type and --teleop.type.")
    if control != "calibrate" and robot is None:
        raise ValueError("Name the robot: --robot.type=koch_follower --robot.port=...")
    if control == "record" and not (teleop or "policy.path" in given or robot == "koch_sim"):
        raise ValueError("Recording needs a teleoperator (--teleop.type=koch_leader) or a policy (--policy.path=...).")


def _counterpart(name: str) -> str | None:
    """The flag here, None for one without effect."""
    if name in SAME:
        return SAME[name]
    if name.startswith("dataset."):
        return "control." + name.removeprefix("dataset.")
    if name.startswith("policy."):
        return "control." + name
    if name.startswith(("control.", "envelope.", "robot.")) or name == "safety":
        return name
    raise ValueError(f"--{name} has no counterpart in lerobot/scripts/control_robot.py; see its --help.")


def _run(control: str) -> None:
    init_logging()
    run_command(lambda: control_robot(parse_control(translate(control, sys.argv[1:]))))


def calibrate() -> None:
    """lerobot-calibrate"""
    _run("calibrate")


def teleoperate() -> None:
    """lerobot-teleoperate"""
    _run("teleoperate")


def record() -> None:
    """lerobot-record"""
    _run("record")


def replay() -> None:
    """lerobot-replay"""
    _run("replay")
