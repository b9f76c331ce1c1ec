"""Command lines of LeRobot 0.3.4-0.4 (`lerobot-record --robot.type=koch_follower ...`) as those of `control_robot`."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from lerobot.common.constants import HF_LEROBOT_CALIBRATION
from lerobot.common.robot_devices.robots.configs import JOINTS, calibration_folder
from lerobot.configs.parser import read_value, split_arguments

ROBOTS = {"koch_follower": "koch", "koch": "koch", "koch_sim": "koch_sim", "koch_bimanual": "koch_bimanual"}
LEADERS = ("koch_leader", "koch", "koch_sim")
NEWER_FOLDERS = {"robot": "robots/koch_follower", "teleop": "teleoperators/koch_leader"}
# Flags that stand at the top of the newer commands and belong to the control here.
TOP_FLAGS = ("fps", "teleop_time_s", "display_data", "display_ip", "display_port", "display_compressed_images",
             "play_sounds", "resume")  # fmt: skip
PORTS = {"robot.port": "robot.follower_port", "teleop.port": "robot.leader_port"}
CALIBRATION = ("robot.id", "teleop.id", "robot.calibration_dir", "teleop.calibration_dir")
WITHOUT_COUNTERPART = (
    "dataset.streaming_encoding",
    "dataset.video_encoding_batch_size",
    "dataset.encoder_queue_maxsize",
    "dataset.encoder_threads",
    "dataset.vcodec",
    "dataset.no_stamp",
)
ENCODERS = ("dataset.rgb_encoder.", "dataset.depth_encoder.")
# Flags that may be given if they ask for what happens here anyway.
ALWAYS = {"robot.disable_torque_on_disconnect": "true", "display_mode": "rerun"}
RENAMED = {"teleop.gripper_open_pos": "robot.gripper_open_pos"}
CAMERA_WITHOUT = ("warmup_s", "backend")  # a camera is waited for anyway; OpenCV's own choice of backend is kept
OWN = ("control.", "envelope.", "robot.", "safety")  # flags of control_robot itself
NEWER_ROBOT = ("robot.type", "robot.port", "robot.cameras")
DEFAULTS = {"teleoperate": {"control.fps": "60"}, "record": {"control.fps": "30"}}
GRIPPER_REST = {"robot.gripper_open_pos": "50"}  # of a newer leader


def translate(command: str, argv: list[str]) -> list[str]:
    """The arguments for `control_robot` of the newer `lerobot-<command>`.

    Flags with one meaning in both pass through. Raises ValueError for a robot or teleoperator that is no Koch, for a
    device that is missing, and for a flag without a counterpart.
    """
    if {"-h", "--help"} & set(argv):
        return ["--help"]
    given = dict(split_arguments(argv))
    flags = {"control.type": command, **DEFAULTS.get(command, {})}
    flags |= GRIPPER_REST if given.get("teleop.type") == "koch_leader" else {}
    if command == "replay" and given.pop("dataset.fps", None):
        logging.warning("--dataset.fps has no effect here: an episode is replayed at its own rate.")
    for name, value in given.items():
        flags |= {} if name in CALIBRATION else _counterpart(name, value)
    flags |= _calibrations(command, given)
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
        known = name in NEWER_ROBOT or name in ALWAYS or name in WITHOUT_COUNTERPART
        flags |= {} if name in ("robot.id", "teleop.id") else _counterpart(name, value) if known else {name: value}
    flags |= _calibrations("", {name: given[name] for name in CALIBRATION if name in given})
    if given.get("robot.type") == "koch_follower":
        flags["robot.leader_arms"] = "{}"
    return [f"--{name}={value}" for name, value in flags.items()]


def _require_devices(command: str, given: dict[str, str]) -> None:
    robot, teleop = given.get("robot.type"), given.get("teleop.type")
    if command == "calibrate" and (robot is None) == (teleop is None):
        raise ValueError("Calibrating needs exactly one of --robot.type and --teleop.type.")
    if command != "calibrate" and robot is None:
        raise ValueError("Name the robot: --robot.type=koch_follower --robot.port=...")
    if command == "teleoperate" and not (teleop or robot == "koch_sim"):
        raise ValueError("Teleoperating needs a teleoperator: --teleop.type=koch_leader --teleop.port=...")
    if command == "record" and not (teleop or "policy.path" in given or robot == "koch_sim"):
        raise ValueError("Recording needs a teleoperator (--teleop.type=koch_leader) or a policy (--policy.path=...).")


def _counterpart(name: str, value: str) -> dict[str, str]:
    """Name and value of the flag here, or nothing for one without an effect."""
    if name in WITHOUT_COUNTERPART or name.startswith(ENCODERS):
        logging.warning("--%s has no effect here.", name)
        return {}
    if name in ALWAYS:
        if value.lower() != ALWAYS[name]:
            raise ValueError(f"--{name}={value} cannot be had here; leave it away, or set it to {ALWAYS[name]}.")
        return {}
    if name == "robot.max_relative_target":
        return {name: _per_joint(name, value)}
    if name == "robot.type":
        return {name: _known(name, value, ROBOTS)}
    if name == "teleop.type":
        leader = _known(name, value, LEADERS)
        return {"robot.type": "koch_sim" if leader == "koch_sim" else "koch"}
    if name in PORTS or name in RENAMED:
        return {{**PORTS, **RENAMED}[name]: value}
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
    return {name: _camera({renamed.get(k, k): v for k, v in camera.items()}) for name, camera in cameras.items()}


def _camera(camera: dict[str, Any]) -> dict[str, Any]:
    """One camera; newer releases give the size after the rotation, here it is that of the capture."""
    kept = {key: value for key, value in camera.items() if key not in CAMERA_WITHOUT}
    if dropped := [key for key in camera if key in CAMERA_WITHOUT]:
        logging.warning("%s of a camera has no effect here.", ", ".join(dropped))
    if kept.get("rotation") in (90, -90) and {"width", "height"} <= kept.keys():
        kept |= {"width": kept["height"], "height": kept["width"]}
    return kept


def _per_joint(name: str, text: str) -> str:
    """`max_relative_target` with a number per joint's name as a list in the order of the joints."""
    if not text.strip().startswith("{"):
        return text
    numbers = read_value(text, {dict})
    if set(numbers) != set(JOINTS):
        raise ValueError(f"--{name}={text}: expected one number, or one for each of {', '.join(JOINTS)}.")
    return json.dumps([float(numbers[joint]) for joint in JOINTS])


def _calibrations(command: str, given: dict[str, str]) -> dict[str, str]:
    """The calibration that LeRobot 0.3.4-0.4 keeps as <folder>/<id>.json, where there is one for the id.

    Calibrating here writes a file of its own; where both exist, the one written last counts.
    """
    flags = {}
    for device, folder in NEWER_FOLDERS.items():
        side, of = ("follower", "robot") if device == "robot" else ("leader", "teleop")
        where = given.get(f"{of}.calibration_dir")
        if device == "robot" and where:
            flags["robot.calibration_dir"] = where
        name = given.get(f"{of}.id")
        if name is None or command == "calibrate":
            if name is not None or (where and device == "teleop"):
                logging.warning("--%s.%s has no effect here.", of, "id" if name is not None else "calibration_dir")
            continue
        newer = (Path(where) if where else HF_LEROBOT_CALIBRATION / folder) / f"{name}.json"
        own = Path(given.get("robot.calibration_dir") or calibration_folder("koch")) / f"main_{side}.json"
        if newer.is_file() and not (own.is_file() and own.stat().st_mtime > newer.stat().st_mtime):
            logging.info("%s calibration: '%s'.", side, newer)
            flags[f"robot.{side}_calibration"] = str(newer)
        else:
            logging.warning("--%s.id: there is no newer '%s'; the %s's calibration is '%s'.", of, newer, side, own)
    return flags
