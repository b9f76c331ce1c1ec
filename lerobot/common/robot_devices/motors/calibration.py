"""From servo steps to joint values and back, and the two calibration files that hold the numbers.

A calibration is a dict of lists that run along `motor_names`: `homing_offset`, `drive_mode`, `start_pos`, `end_pos`
and `calib_mode`. Modes of the legacy file: DEGREE, LINEAR (percent between two positions). Modes of the newer one:
RANGE_M100_100, RANGE_0_100 and DEGREES, all between `start_pos` (range_min) and `end_pos` (range_max).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from lerobot.common.robot_devices.motors.control_table import HALF_TURN, HALF_TURN_DEGREES, MOST_STEPS, RESOLUTION
from lerobot.common.utils.io_utils import write_text

LEGACY_KEYS = ("homing_offset", "drive_mode", "start_pos", "end_pos", "calib_mode", "motor_names")
NEWER_KEYS = ("id", "drive_mode", "homing_offset", "range_min", "range_max")
DEGREE, LINEAR = "DEGREE", "LINEAR"
RANGE_M100_100, RANGE_0_100, DEGREES = "RANGE_M100_100", "RANGE_0_100", "DEGREES"
MODES = (DEGREE, LINEAR, RANGE_M100_100, RANGE_0_100, DEGREES)
LOWEST_DEGREE, HIGHEST_DEGREE = -270.0, 270.0
LOWEST_PERCENT, HIGHEST_PERCENT = -10.0, 110.0

Calibration = dict[str, list]


class JointOutOfRangeError(ValueError):
    """A calibrated position that no arm can have: a servo slipped by whole turns, or the file is another arm's."""


# --- values -------------------------------------------------------------------------------------------------------


def to_joint_values(raw: np.ndarray, names: list[str], calibration: Calibration) -> np.ndarray:
    """Servo steps (J,) as joint values, float32 (J,); raises JointOutOfRangeError."""
    values = np.asarray(raw).astype(np.float32)
    for i, name in enumerate(names):
        values[i] = _to_joint_value(values[i], calibration["motor_names"].index(name), name, calibration)
    return values


def _to_joint_value(raw: np.float32, index: int, name: str, calibration: Calibration) -> np.float32:
    mode = calibration["calib_mode"][index]
    if mode == DEGREE:
        signed = -raw if calibration["drive_mode"][index] else raw
        value = (signed + np.float32(calibration["homing_offset"][index])) / np.float32(HALF_TURN) * np.float32(180)
        low, high, unit = LOWEST_DEGREE, HIGHEST_DEGREE, "degrees"
    elif mode == LINEAR:
        start, end = calibration["start_pos"][index], calibration["end_pos"][index]
        value = (raw - np.float32(start)) / np.float32(end - start) * np.float32(100)
        low, high, unit = LOWEST_PERCENT, HIGHEST_PERCENT, "percent"
    else:
        return _to_range(raw, mode, calibration["start_pos"][index], calibration["end_pos"][index])
    if not low <= value <= high:
        raise JointOutOfRangeError(
            f"Motor '{name}' is at {value:.1f} {unit}, expected {low:.0f} to {high:.0f}: it slipped by whole turns, or "
            "the calibration belongs to another arm. Calibrate again: --control.type=calibrate."
        )
    return value


def _to_range(raw: np.float32, mode: str, low: int, high: int) -> np.float32:
    if mode == DEGREES:
        return np.float32((raw - (low + high) / 2) * 360 / (RESOLUTION - 1))
    share = (min(max(float(raw), low), high) - low) / (high - low)
    return np.float32(share * 200 - 100 if mode == RANGE_M100_100 else share * 100)


def to_raw(values: np.ndarray, names: list[str], calibration: Calibration) -> np.ndarray:
    """Joint values (J,) as servo steps, int32 (J,); an array of integers is truncated on the way, as in LeRobot 0.1.

    ValueError for a value that is not finite or beyond the servo's count of turns: as a number of steps it would be
    a motion.
    """
    values = np.array(values)
    require_finite(values, names)
    for i, name in enumerate(names):
        index = calibration["motor_names"].index(name)
        mode = calibration["calib_mode"][index]
        if mode == DEGREE:
            values[i] = values[i] / HALF_TURN_DEGREES * HALF_TURN  # the assignment truncates integers
            values[i] = values[i] - calibration["homing_offset"][index]
            if calibration["drive_mode"][index]:
                values[i] = -values[i]
        else:
            start, end = calibration["start_pos"][index], calibration["end_pos"][index]
            values[i] = _from_range(float(values[i]), mode, start, end)
    steps = np.round(values)
    if (np.abs(steps.astype(np.float64)) > MOST_STEPS).any():
        far = {name: float(step) for name, step in zip(names, steps, strict=True) if abs(float(step)) > MOST_STEPS}
        raise ValueError(f"Goals of {far} steps: a servo counts to {MOST_STEPS}. Nothing was sent.")
    return steps.astype(np.int32)


def require_finite(values: np.ndarray, names: list[str]) -> None:
    """ValueError that names the motors whose value is not a number."""
    bad = [name for name, value in zip(names, values.tolist(), strict=True) if not math.isfinite(value)]
    if bad:
        raise ValueError(f"The values for {', '.join(bad)} are not finite ({values.tolist()}). Nothing was sent.")


def _from_range(value: float, mode: str, start: int, end: int) -> float:
    if mode == LINEAR:
        return value / 100 * (end - start) + start
    if mode == DEGREES:
        return int(value * (RESOLUTION - 1) / 360 + (start + end) / 2)
    share = (value + 100) / 200 if mode == RANGE_M100_100 else value / 100
    return int(min(max(share, 0.0), 1.0) * (end - start) + start)


def corrected_for_turns(raw: np.ndarray, names: list[str], calibration: Calibration) -> dict[str, int]:
    """Turns to add to `homing_offset` per slipped joint so that it reads within half a turn of its zero.

    The rule of LeRobot 0.1 for the -270..270 window; ValueError for a joint that no whole number of turns brings back.
    """
    turns = {}
    for value, name in zip(np.asarray(raw, dtype=np.float64), names, strict=True):
        index = calibration["motor_names"].index(name)
        if calibration["calib_mode"][index] != DEGREE:
            continue
        signed = -value if calibration["drive_mode"][index] else value
        homing = calibration["homing_offset"][index]
        degrees = (signed + homing) / HALF_TURN * HALF_TURN_DEGREES
        if LOWEST_DEGREE < degrees < HIGHEST_DEGREE:
            continue
        lower, upper = (-HALF_TURN - signed - homing) / RESOLUTION, (HALF_TURN - signed - homing) / RESOLUTION
        factor = math.ceil(lower)
        if factor > upper:
            raise ValueError(f"Motor '{name}' at {degrees:.1f} degrees: no whole number of turns corrects it.")
        turns[name] = factor
    return turns


def shift_turns(calibration: Calibration, turns: dict[str, int]) -> None:
    """Add whole turns to the positions that the named joints read, in place."""
    for name, count in turns.items():
        index = calibration["motor_names"].index(name)
        if calibration["calib_mode"][index] == DEGREE:
            calibration["homing_offset"][index] += RESOLUTION * count
        else:  # the range lies where the servo counts it to be
            calibration["start_pos"][index] -= RESOLUTION * count
            calibration["end_pos"][index] -= RESOLUTION * count


def turns_into_window(values: np.ndarray, low: np.ndarray, high: np.ndarray, turn: float = 360.0) -> np.ndarray:
    """Turns (J,) to add to angles so that each lies within half a turn of the middle of its mechanical range."""
    middle = (np.asarray(low) + np.asarray(high)) / 2
    return -np.round((np.asarray(values, dtype=np.float64) - middle) / turn).astype(int)


# --- files --------------------------------------------------------------------------------------------------------


def save_calibration(calibration: Calibration, path: str | Path) -> None:
    """Write the legacy file (one line of JSON), atomically."""
    plain = {key: [v.item() if isinstance(v, np.generic) else v for v in calibration[key]] for key in LEGACY_KEYS}
    write_text(json.dumps(plain), path)


def load_calibration(path: str | Path, motors: dict[str, tuple[int, str]], degrees: bool = False) -> Calibration:
    """Read a calibration file of either layout; ValueError names what is missing or does not fit `motors`.

    With `degrees`, joints of the newer layout but the gripper are in degrees from the middle of their range, not in
    -100..100; the legacy layout says itself what its joints are in.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as e:
        raise _bad(path, f"it is not JSON ({e})") from e
    if not isinstance(data, dict):
        raise _bad(path, f"it holds a {type(data).__name__}, expected an object")
    newer = "motor_names" not in data and any(isinstance(entry, dict) for entry in data.values())
    calibration = _from_newer(data, motors, path, DEGREES if degrees else RANGE_M100_100) if newer else data
    _check(calibration, motors, path)
    return calibration


def _from_newer(data: dict[str, Any], motors: dict[str, tuple[int, str]], path, body: str) -> Calibration:
    for name, entry in data.items():
        if missing := [key for key in NEWER_KEYS if key not in entry]:
            raise _bad(path, f"motor '{name}' lacks {missing}")
        if name in motors and entry["id"] != motors[name][0]:
            raise _bad(path, f"motor '{name}' has id {entry['id']}, the robot's has id {motors[name][0]}")
    names = list(data)
    columns = {key: [data[name][key] for name in names] for key in NEWER_KEYS}
    return {
        "homing_offset": columns["homing_offset"],
        "drive_mode": columns["drive_mode"],
        "start_pos": columns["range_min"],
        "end_pos": columns["range_max"],
        "calib_mode": [RANGE_0_100 if name == "gripper" else body for name in names],
        "motor_names": names,
    }


def _check(calibration: Calibration, motors: dict[str, tuple[int, str]], path) -> None:
    if missing := [key for key in LEGACY_KEYS if key not in calibration]:
        raise _bad(path, f"it lacks {missing}")
    names = calibration["motor_names"]
    if absent := [name for name in motors if name not in names]:
        raise _bad(path, f"it has no entry for the motors {absent}")
    for key in LEGACY_KEYS:
        if len(calibration[key]) != len(names):
            raise _bad(path, f"{key} has {len(calibration[key])} entries for {len(names)} motors")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise _bad(path, f"it names the motors {repeated} twice")
    for i, name in enumerate(names):
        _check_motor(name, {key: calibration[key][i] for key in LEGACY_KEYS}, path)


def _check_motor(name: str, entry: dict[str, Any], path) -> None:
    mode, start, end = entry["calib_mode"], entry["start_pos"], entry["end_pos"]
    if mode not in MODES:
        raise _bad(path, f"motor '{name}' has calib_mode '{mode}', expected one of {', '.join(MODES)}")
    for key in ("homing_offset", "drive_mode", "start_pos", "end_pos"):
        if isinstance(entry[key], bool) or not isinstance(entry[key], int):
            raise _bad(path, f"motor '{name}' has {key} {entry[key]!r}, expected a whole number")
    if entry["drive_mode"] not in (0, 1):
        raise _bad(path, f"motor '{name}' has drive_mode {entry['drive_mode']}, expected 0 or 1 (inverted)")
    if mode != DEGREE and start == end:
        raise _bad(path, f"motor '{name}' has no range (start_pos equals end_pos)")
    if mode in (RANGE_M100_100, RANGE_0_100, DEGREES) and start > end:
        raise _bad(path, f"motor '{name}' has a reversed range ({start} to {end})")


def _bad(path, problem: str) -> ValueError:
    return ValueError(f"Calibration '{path}' cannot be used: {problem}. Calibrate again: --control.type=calibrate.")
