"""What a client and a checkpoint say about each other at connect, before torque is on: the checks of the doctor."""

from __future__ import annotations

import os
import platform
from dataclasses import replace

import numpy as np

from lerobot.common.checks.facts import Facts
from lerobot.common.checks.finding import Finding
from lerobot.common.checks.match import check_match
from lerobot.common.checks.robot import check_policy_fits, check_task
from lerobot.common.constants import ACTION, OBS_STATE
from lerobot.common.robot_devices.robots.arm_setup import mechanical_range

TASK_FIX = "--task=... as it was recorded"
TOLD_BY_FIT = ("match.cameras", "match.channels", "match.aspect", "match.size", "match.missing")


def describe_robot(robot, fps: float) -> dict:
    """The `robot` field of a hello, of an open robot whose calibration is read."""
    bounds = [mechanical_range(bus) for bus in robot.follower_arms.values()]
    low, high = (np.concatenate([pair[side] for pair in bounds]).tolist() for side in (0, 1))
    return {
        "type": robot.robot_type,
        "cameras": {key: list(feature["shape"]) for key, feature in robot.camera_features.items()},
        "joints": list(robot.motor_features[ACTION]["names"]),
        "low": low,
        "high": high,
        "fps": float(fps),
        "units": robot.units,
    }


def name_arms(robot) -> list[str]:
    """The arms of a robot by where their buses are plugged in, unique among all machines."""
    return [f"{platform.node()}:{os.path.realpath(bus.port)}"[:256] for bus in robot.follower_arms.values()]


def compare(robot: dict, config, checkpoint: Facts, task: str) -> list[Finding]:
    """Findings on a robot as its hello describes it and a checkpoint; one with severity error refuses the client."""
    joints = len(robot["joints"])
    vector = {"shape": (joints,), "dtype": "float32", "names": robot["joints"]}
    features = {ACTION: vector, OBS_STATE: vector}
    features |= {key: {"shape": tuple(shape)} for key, shape in robot["cameras"].items()}
    stats = {key: {n: v.flatten() for n, v in entry.items()} for key, entry in checkpoint.stats.items()}
    findings = check_policy_fits(config, features, stats, robot["low"], robot["high"])
    for index, finding in enumerate(findings):
        if finding.code == "robot.policy.picture_size":
            findings[index] = replace(finding, severity="error")
    side = Facts(
        label=f"the robot {robot['type']}",
        cameras={key: (shape[-1], *shape[:-1]) for key, shape in robot["cameras"].items()},
        joints=robot["joints"],
        sizes=dict.fromkeys((OBS_STATE, ACTION), joints),
        fps=robot["fps"],
        units=robot["units"],
    )
    findings += [finding for finding in check_match(side, checkpoint) if finding.code not in TOLD_BY_FIT]
    return findings + [replace(finding, fix=TASK_FIX) for finding in check_task(task, checkpoint.tasks)]


def is_picture(key: str) -> bool:
    """Whether a feature is a camera's picture."""
    return key.startswith("observation.image")
