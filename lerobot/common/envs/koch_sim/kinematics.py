"""Closed-form inverse kinematics of the Koch arm; angles in degrees, lengths in metres."""

from __future__ import annotations

import numpy as np

from lerobot.common.envs.koch_sim.arm import JOINT_HIGH, JOINT_LOW, LINKS, TCP_OFFSET

OFFSET = {link.name: np.array(link.offset) for link in LINKS}
PAN_AXIS = OFFSET["shoulder"][:2]
LIFT_HEIGHT = OFFSET["shoulder"][2] + OFFSET["upper_arm"][2]
# In the vertical plane of the arm (forward, up): lift axis -> elbow -> wrist -> pinch point.
UPPER_ARM = OFFSET["forearm"][[0, 2]]
FOREARM = OFFSET["wrist"][[0, 2]]
TOOL = OFFSET["gripper"][[0, 2]] + np.array(TCP_OFFSET)[[0, 2]]
SIDEWAYS = sum(OFFSET[name][1] for name in ("upper_arm", "forearm", "wrist", "gripper"))
TILTS = np.arange(0.0, 0.61, 0.05)  # radians from straight down


class OutOfReachError(ValueError):
    """A point that the arm cannot reach with the gripper leaning as little as asked."""


def inverse(point, pitch: float, roll: float, gripper: float) -> np.ndarray | None:
    """The six angles that put the pinch point at `point` with the gripper at `pitch` above the horizontal.

    Two-link arm in the plane chosen by the pan joint, elbow up. None when out of reach or of joint range.
    """
    forward, left = np.subtract(point[:2], PAN_AXIS)
    distance = np.hypot(forward, left)
    radius = np.sqrt(distance**2 - SIDEWAYS**2)
    pan = -np.rad2deg(np.arctan2(left, forward) - np.arctan2(SIDEWAYS, radius))
    lean = np.deg2rad(pitch)
    rotation = np.array([[np.cos(lean), -np.sin(lean)], [np.sin(lean), np.cos(lean)]])
    wrist_point = np.array([radius, point[2] - LIFT_HEIGHT]) - rotation @ TOOL
    upper, fore = np.linalg.norm(UPPER_ARM), np.linalg.norm(FOREARM)
    cosine = (wrist_point @ wrist_point - upper**2 - fore**2) / (2 * upper * fore)
    if abs(cosine) > 1:
        return None
    bend = np.arccos(cosine)
    upper_angle = _angle(wrist_point) + np.arctan2(fore * np.sin(bend), upper + fore * np.cos(bend))
    lift = np.rad2deg(upper_angle - _angle(UPPER_ARM))
    elbow = np.rad2deg(bend + _angle(FOREARM) - _angle(UPPER_ARM))
    angles = np.array([pan, lift, elbow, lift - elbow - pitch, roll, gripper])
    inside = (angles >= JOINT_LOW).all() and (angles <= JOINT_HIGH).all()
    return angles if inside else None


def reach_down(point, roll: float, gripper: float) -> np.ndarray:
    """`inverse` with the gripper as near to straight down as the reach allows; raises OutOfReachError."""
    for tilt in TILTS:
        angles = inverse(point, np.rad2deg(tilt) - 90.0, roll, gripper)
        if angles is not None:
            return angles
    lean = np.rad2deg(TILTS[-1])
    raise OutOfReachError(f"{np.round(point, 3)} m is out of reach with the gripper within {lean:.0f} degrees of down")


def gripper_side(angles) -> np.ndarray:
    """Unit vector (3,) in the base frame from the fixed finger towards the moving one."""
    pan, roll = np.deg2rad([angles[0], angles[4]])
    pitch = np.deg2rad(angles[1] - angles[2] - angles[3])
    x, y, z = -np.sin(roll) * np.sin(pitch), np.cos(roll), np.sin(roll) * np.cos(pitch)
    return np.array([x * np.cos(pan) + y * np.sin(pan), y * np.cos(pan) - x * np.sin(pan), z])


def _angle(vector) -> float:
    return float(np.arctan2(vector[1], vector[0]))
