"""Setting up the servos of one Koch arm: preset, range of each joint, slipped turns, limits that the servos keep."""

from __future__ import annotations

import logging

import numpy as np

from lerobot.common.robot_devices.motors.calibration import (
    DEGREE,
    DEGREES,
    RANGE_M100_100,
    shift_turns,
    to_raw,
    turns_into_window,
)
from lerobot.common.robot_devices.motors.control_table import (
    CURRENT_POSITION_MODE,
    EXTENDED_POSITION_MODE,
    RESOLUTION,
    STEPS_PER_DEGREE,
    VELOCITY_UNIT,
)
from lerobot.common.robot_devices.motors.dynamixel import DynamixelMotorsBus
from lerobot.common.robot_devices.robots.configs import MECHANICAL_HIGH, MECHANICAL_LOW
from lerobot.common.robot_devices.safety import JointLimits

KOCH_PRESET = {"Position_P_Gain": 1500, "Position_I_Gain": 0, "Position_D_Gain": 600}  # elbow_flex of a follower
OUTSIDE = 20.0  # degrees beyond the mechanical range at which a pose cannot be believed
PROFILE_ROOM = 1.5  # the servo's own speed limit over the envelope's


def calibration_mode(bus: DynamixelMotorsBus, motor: str) -> str:
    """The `calib_mode` of one motor of a calibrated bus."""
    return bus.calibration["calib_mode"][bus.calibration["motor_names"].index(motor)]


def apply_preset(bus: DynamixelMotorsBus, follower: bool) -> None:
    """Operating modes of all servos and, of a follower, the gains of the elbow; torque must be off."""
    body = [name for name in bus.motors if name != "gripper"]
    bus.write("Operating_Mode", EXTENDED_POSITION_MODE, body)
    if "gripper" in bus.motors:
        bus.write("Operating_Mode", CURRENT_POSITION_MODE, "gripper")
    if follower and "elbow_flex" in bus.motors:
        for register, value in KOCH_PRESET.items():
            bus.write(register, value, "elbow_flex")


def mechanical_range(bus: DynamixelMotorsBus) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest value of each joint, (J,) each, in the units of the calibration."""
    low, high = np.array(MECHANICAL_LOW), np.array(MECHANICAL_HIGH)
    for index, name in enumerate(bus.motor_names):
        mode = calibration_mode(bus, name)
        if mode == DEGREES:  # from the middle of the range that the file has
            high[index] = _range_steps(bus, name) / 2 / STEPS_PER_DEGREE
            low[index] = -high[index]
        elif mode != DEGREE:
            low[index], high[index] = (-100.0, 100.0) if mode == RANGE_M100_100 else (0.0, 100.0)
    return low, high


def undo_slipped_turns(name: str, bus: DynamixelMotorsBus) -> None:
    """Bring joints that slipped by whole turns back into their mechanical range; ConnectionError if none fits.

    In steps, since values of a range are cut off at its ends, which would hide a joint that is a turn away.
    """
    low, high = _range_in_steps(bus)
    raw = bus.read_with_motor_ids(bus.motor_models, bus.motor_indices, "Present_Position")
    turns = turns_into_window(raw, low, high, RESOLUTION)
    if turns.any():
        slipped = {m: int(t) * _direction(bus, m) for m, t in zip(bus.motors, turns, strict=True) if t}
        logging.info("%s: turns that a servo does not remember are added: %s.", name, slipped)
        shift_turns(bus.calibration, slipped)
        low, high = _range_in_steps(bus)
    room = OUTSIDE * STEPS_PER_DEGREE
    if ((raw < low - room) | (raw > high + room)).any():
        beyond = np.maximum(low - raw, raw - high) / STEPS_PER_DEGREE
        where = {m: round(float(d), 1) for m, d in zip(bus.motors, beyond, strict=True) if d > OUTSIDE}
        raise ConnectionError(
            f"{name} is outside of its range by {where} degrees, which the arm cannot reach: it was calibrated "
            "differently, or moved by more than a turn. Torque stays off. Calibrate again: --control.type=calibrate."
        )


def _range_in_steps(bus: DynamixelMotorsBus) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest position of each servo that its joint can have, (J,) each."""
    ends = []
    for index, motor in enumerate(bus.motors):
        if calibration_mode(bus, motor) == DEGREE:
            degrees = np.array([MECHANICAL_LOW[index], MECHANICAL_HIGH[index]])
            pair = to_raw(degrees, [motor, motor], bus.calibration).tolist()
        else:
            row = bus.calibration["motor_names"].index(motor)
            pair = [bus.calibration[key][row] for key in ("start_pos", "end_pos")]
        ends.append(sorted(map(int, pair)))
    low, high = np.array(ends).T
    return low, high


def _direction(bus: DynamixelMotorsBus, motor: str) -> int:
    """-1 for a joint whose value falls while its servo counts up, in the calibration that knows of directions."""
    reversed_ = bus.calibration["drive_mode"][bus.calibration["motor_names"].index(motor)]
    return -1 if reversed_ and calibration_mode(bus, motor) == DEGREE else 1


def limit_motors(bus: DynamixelMotorsBus, limits: JointLimits, gripper_current: int) -> None:
    """What the servos themselves can guarantee: a speed per joint, and the gripper's current in milliampere."""
    fastest = bus.read("Velocity_Limit")
    for motor, speed, most in zip(bus.motors, limits.speed, fastest, strict=True):
        degrees = speed / _units_per_degree(bus, motor)
        wanted = round(degrees * PROFILE_ROOM / VELOCITY_UNIT)
        bus.write("Profile_Velocity", min(max(1, wanted), int(most)), motor)
    if "gripper" in bus.motors:
        bus.write("Goal_Current", gripper_current, "gripper")


def _units_per_degree(bus: DynamixelMotorsBus, motor: str) -> float:
    mode = calibration_mode(bus, motor)
    if mode in (DEGREE, DEGREES):
        return 1.0
    return (200.0 if mode == RANGE_M100_100 else 100.0) / (abs(_range_steps(bus, motor)) / STEPS_PER_DEGREE)


def _range_steps(bus: DynamixelMotorsBus, motor: str) -> int:
    row = bus.calibration["motor_names"].index(motor)
    return bus.calibration["end_pos"][row] - bus.calibration["start_pos"][row]
