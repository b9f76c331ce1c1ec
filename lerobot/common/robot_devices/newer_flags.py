"""Command lines of LeRobot 0.3.4-0.4 (`lerobot-record --robot.type=koch_follower ...`) as those of `control_robot`."""

from __future__ import annotations

import json
import logging
from typing import Any

import draccus

from lerobot.common.robot_devices.robots.configs import FOLLOWER_MODELS, LEADER_MODELS, koch_bus
from lerobot.configs.parser import split_arguments

ROBOTS = {"koch_follower": "koch", "koch": "koch", "koch_sim": "koch_sim", "koch_bimanual": "koch_bimanual"}
LEADERS = ("koch_leader", "koch", "koch_sim")
# Flags that stand at the top of the newer commands and belong to the control here.
TOP_FLAGS = ("fps", "teleop_time_s", "display_data", "play_sounds", "resume")
PORTS = {"robot.port": ("follower_arms", FOLLOWER_MODELS), "teleop.port": ("leader_arms", LEADER_MODELS)}
WITHOUT_COUNTERPART = ("robot.id", "teleop.id", "robot.calibration_dir", "teleop.calibration_dir")


def translate(command: str, argv: list[str]) -> list[str]:
    """The arguments for `control_robot` of the newer `lerobot-<command>`.

    Flags with one meaning in both pass through. Raises ValueError for a robot or teleoperator that is no Koch.
    """
    if {"-h", "--help"} & set(argv):
        return ["--help"]
    translated = [f"--control.type={command}"]
    for name, value in split_arguments(argv):
        if name in WITHOUT_COUNTERPART:
            logging.warning("--%s has no effect: calibrations are kept by robot type (--robot.calibration_dir).", name)
        elif (flag := _flag(name, value)) is not None:
            translated.append(flag)
    return translated


def _flag(name: str, value: str) -> str | None:
    if name == "robot.type":
        return f"--robot.type={_known(name, value, ROBOTS)}"
    if name == "teleop.type":
        _known(name, value, LEADERS)
        return None  # a Koch pair is one robot here
    if name in PORTS:
        arms, models = PORTS[name]
        return f"--robot.{arms}={json.dumps({'main': {'type': 'dynamixel', **_encoded(koch_bus(value, models))}})}"
    if name == "robot.cameras":
        return f"--robot.cameras={json.dumps(_cameras(value))}"
    first, _, rest = name.partition(".")
    if first == "dataset":
        return f"--control.{rest}={value}"
    return f"--control.{name}={value}" if first == "policy" or name in TOP_FLAGS else f"--{name}={value}"


def _known(name: str, value: str, choices) -> str:
    if value not in choices:
        raise ValueError(f"--{name}={value}: this project drives Koch arms; expected one of {', '.join(choices)}.")
    return choices[value] if isinstance(choices, dict) else value


def _encoded(config: Any) -> dict[str, Any]:
    return draccus.encode(config)


def _cameras(text: str) -> dict[str, dict[str, Any]]:
    """Cameras by name; written as JSON or as YAML in braces, `index_or_path` being the camera's number."""
    import yaml

    cameras = yaml.safe_load(text)
    renamed = {"index_or_path": "camera_index", "serial_number_or_name": "serial_number"}
    return {name: {renamed.get(k, k): v for k, v in camera.items()} for name, camera in cameras.items()}
