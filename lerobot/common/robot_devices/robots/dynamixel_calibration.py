"""Calibrating an arm of Dynamixel servos by hand: two poses tell each joint's zero and direction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lerobot.common.robot_devices.motors.calibration import DEGREE, Calibration
from lerobot.common.robot_devices.motors.control_table import RESOLUTION, STEPS_PER_DEGREE
from lerobot.common.robot_devices.motors.dynamixel import DynamixelMotorsBus

QUARTER_TURN = RESOLUTION // 4
LEAST, MOST = 30.0, 150.0  # degrees between the poses: less or more, and a pose is off by more than it may be
POSE_TRIES = 3
POSES = {
    "zero": "arm stretched out forward, horizontal; gripper upright and closed",
    "rotated": "every joint a quarter turn on: base turned to the right, upper arm vertical, forearm level, gripper "
    "pointing down, rolled, and open",
    "rest": "folded back, as it lies when it is switched off",
}


def nearest_quarter_turn(steps: np.ndarray) -> np.ndarray:
    """Steps rounded to whole quarter turns."""
    return (np.round(np.asarray(steps) / QUARTER_TURN) * QUARTER_TURN).astype(np.int64)


def run_arm_calibration(
    arm: DynamixelMotorsBus,
    robot_type: str,
    arm_name: str,
    arm_type: str,
    ask: Callable[[str], object] | None = None,
) -> Calibration:
    """Ask for the poses one after the other and return the calibration, all joints in degrees.

    Each pose may be up to 45 degrees off; accuracy comes from how the arm was assembled. ValueError if torque is on, or
    if joints did not turn by about a quarter between the poses, after `POSE_TRIES`.
    """
    ask = ask or input  # looked up now: whoever replaces builtins.input is heard
    if (arm.read("Torque_Enable") != 0).any():
        raise ValueError("Torque must be off while calibrating: the arm is moved by hand.")
    who = f"{robot_type} {arm_name} {arm_type}"
    ask(f"Move the {who} to its ZERO pose ({POSES['zero']}) and press Enter.")
    zero = arm.read("Present_Position").astype(np.int64)
    rotated = _read_rotated(arm, who, zero, ask)
    calibration = calibration_from_poses(arm.motor_names, zero, rotated)
    ask(f"Move the {who} to its REST pose ({POSES['rest']}) and press Enter.")
    return calibration


def _read_rotated(arm: DynamixelMotorsBus, who: str, zero: np.ndarray, ask) -> np.ndarray:
    """Raw positions in the second pose; it is asked for again where a joint is not a quarter turn from the first."""
    told = ""
    for _ in range(POSE_TRIES):
        ask(f"{told}Move the {who} to its ROTATED pose ({POSES['rotated']}) and press Enter.")
        rotated = arm.read("Present_Position").astype(np.int64)
        turned = np.abs(rotated - zero) / STEPS_PER_DEGREE
        wrong = {m: round(float(t)) for m, t in zip(arm.motors, turned, strict=True) if not LEAST < t < MOST}
        if not wrong or getattr(getattr(arm, "config", None), "mock", False):  # nobody turns mock motors
            return rotated
        told = f"Since the ZERO pose these joints turned by {wrong} degrees instead of about 90. "
    raise ValueError(f"{told}Nothing was written; begin again: --control.type=calibrate.")


def calibration_from_poses(names: list[str], zero: np.ndarray, rotated: np.ndarray) -> Calibration:
    """Drive mode and homing offset of each joint from raw positions in the two poses, as LeRobot 0.1 does."""
    reversed_ = rotated < zero
    signed = np.where(reversed_, -rotated, rotated)
    return {
        "homing_offset": (QUARTER_TURN - nearest_quarter_turn(signed)).tolist(),
        "drive_mode": reversed_.astype(int).tolist(),
        "start_pos": zero.tolist(),
        "end_pos": signed.tolist(),
        "calib_mode": [DEGREE] * len(names),
        "motor_names": list(names),
    }
