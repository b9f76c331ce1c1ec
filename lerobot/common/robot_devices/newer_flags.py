"""Command lines of LeRobot 0.3.4-0.4 (`lerobot-record --robot.type=koch_follower ...`) as those of `control_robot`."""

from __future__ import annotations

import json
import logging
from typing import Any

from lerobot.configs.parser import read_value, split_arguments

ROBOTS = {"koch_follower": "koch", "koch": "koch", "koch_sim": "koch_sim", "koch_bimanual": "koch_bimanual"}
LEADERS = ("koch_leader", "koch", "koch_sim")
# Flags that stand at the top of the newer commands and belong to the control here.
TOP_FLAGS = ("fps", "teleop_time_s", "display_data", "play_sounds", "resume")
PORTS = {"robot.port": "robot.follower_port", "teleop.port": "robot.leader_port"}
WITHOUT_COUNTERPART = (
    "robot.id",
    "teleop.id",
    "teleop.calibration_dir",
    "dataset.streaming_encoding",
    "dataset.video_encoding_batch_size",
)
OWN = ("control.", "envelope.", "robot.", "safety")  # flags of control_robot itself
NEWER_ROBOT = ("robot.type", "robot.port", "robot.cameras")
DEFAULTS = {"teleoperate": {"control.fps": "60"}, "record": {"control.fps": "30"}}


def translate(command: str, argv: list[str]) -> list[str]:
    """The arguments for `control_robot` of the newer `lerobot-<command>`.

    Flags with one meaning in both pass through. Raises ValueError for a robot or teleoperator that is no Koch, for a
    device that is missing, and for a flag without a counterpart.
    """
    if {"-h", "--help"} & set(argv):
        return ["--help"]
    given = dict(split_arguments(argv))
    flags = {"control.type": command, **DEFAULTS.get(command, {})}
    for name, value in given.items():
        if name in WITHOUT_COUNTERPART:
            logging.warning("--%s has no effect here.", name)
        else:
            flags |= _counterpart(name, value)
    _require_devices(command, given)
    if command == "calibrate":
        flags["control.arms"] = '["main_follower"]' if "robot.type" in given else '["main_leader"]'
    if flags["robot.type"] == "koch":  # a pair is one robot here; what is not named is not connected
        flags |= {} if "robot.type" in given else {"robot.follower_arms": "{}"}
        flags |= {} if "teleop.type" in given else {"robot.leader_arms": "{}"}
    return [f"--{name}={value}" for name, value in flags.items()]


def translate_robot(argv: list[str]) -> list[str]:
    """A command line whose robot is named as newer releases do (`--robot.type=koch_follower --robot.port=...`).

    Other flags, and robots named as here, pass through. ValueError for a robot that is no Koch.
    """
    if {"-h", "--help"} & set(argv):
        return argv
    given, flags = dict(split_arguments(argv)), {}
    for name, value in given.items():
        if name in WITHOUT_COUNTERPART:
            logging.warning("--%s has no effect here.", name)
        else:
            flags |= _counterpart(name, value) if name in NEWER_ROBOT else {name: value}
    if given.get("robot.type") == "koch_follower":
        flags["robot.leader_arms"] = "{}"
    return [f"--{name}={value}" for name, value in flags.items()]


def _require_devices(command: str, given: dict[str, str]) -> None:
    robot, teleop = given.get("robot.type"), given.get("teleop.type")
    if command == "calibrate" and (robot is None) == (teleop is None):
        raise ValueError("Calibrating needs exactly one of --robot.type and --teleop.type.")
    if command != "calibrate" and robot is None:
        raise ValueError("Name the robot: --robot.type=koch_follower --robot.port=...")
    if command == "record" and not (teleop or "policy.path" in given or robot == "koch_sim"):
        raise ValueError("Recording needs a teleoperator (--teleop.type=koch_leader) or a policy (--policy.path=...).")


def _counterpart(name: str, value: str) -> dict[str, str]:
    """Name and value of the flag here."""
    if name == "robot.type":
        return {name: _known(name, value, ROBOTS)}
    if name == "teleop.type":
        leader = _known(name, value, LEADERS)
        return {"robot.type": "koch_sim" if leader == "koch_sim" else "koch"}
    if name in PORTS:
        return {PORTS[name]: value}
    if name == "robot.cameras":
        try:
            return {name: json.dumps(_cameras(value))}
        except ValueError as e:
            raise ValueError(f"--{name}={e}") from None
    first, _, rest = name.partition(".")
    if first == "dataset":
        return {f"control.{rest}": value}
    if first == "policy" or name in TOP_FLAGS:
        return {f"control.{name}": value}
    if name.startswith(OWN):
        return {name: value}
    raise ValueError(f"--{name} has no counterpart in lerobot/scripts/control_robot.py; see its --help.")


def _known(name: str, value: str, choices) -> str:
    if value not in choices:
        raise ValueError(f"--{name}={value}: this project drives Koch arms; expected one of {', '.join(choices)}.")
    return choices[value] if isinstance(choices, dict) else value


def _cameras(text: str) -> dict[str, dict[str, Any]]:
    """Cameras by name; written as JSON or as YAML in braces, `index_or_path` being the camera's number."""
    cameras = read_value(text, {dict})
    renamed = {"index_or_path": "camera_index", "serial_number_or_name": "serial_number"}
    if any(not isinstance(camera, dict) for camera in cameras.values()):
        raise ValueError(f"{text}: expected the settings of each camera in braces, {{top: {{type: opencv, ...}}}}.")
    return {name: {renamed.get(k, k): v for k, v in camera.items()} for name, camera in cameras.items()}
