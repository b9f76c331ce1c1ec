"""The number systems in which datasets give joint angles; the simulator itself computes in legacy degrees."""

from __future__ import annotations

import numpy as np

from lerobot.common.envs.koch_sim.arm import JOINT_HIGH, JOINT_LOW

GRIPPER_FULL = 90.0  # degrees of the gripper at 100 percent
LOW, HIGH = np.array(JOINT_LOW), np.array(JOINT_HIGH)

# Per unit and joint: value = (degrees - zero) * scale.
_ONES, _ZEROS = np.ones(6), np.zeros(6)
_PERCENT = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 100.0 / GRIPPER_FULL])
_MIDDLE = np.append((LOW + HIGH)[:5] / 2, 0.0)
_NORMAL = np.append(200.0 / (HIGH - LOW)[:5], 100.0 / GRIPPER_FULL)
UNITS = {
    "legacy": (_ZEROS, _ONES),  # degrees, the gripper too
    "deg_percent": (_ZEROS, _PERCENT),  # degrees, gripper 0..100
    "normalized": (_MIDDLE, _NORMAL),  # -100..100 over the joint range, gripper 0..100
}


def from_degrees(angles, units: str) -> np.ndarray:
    """Six angles in degrees as numbers of `units`."""
    zero, scale = UNITS[units]
    return (np.asarray(angles) - zero) * scale


def to_degrees(values, units: str) -> np.ndarray:
    """Six numbers of `units` as angles in degrees."""
    zero, scale = UNITS[units]
    return np.asarray(values) / scale + zero
