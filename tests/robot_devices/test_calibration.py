"""Joint values from servo steps: numbers of LeRobot 0.1, and the two files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lerobot.common.robot_devices.motors.calibration import (
    JointOutOfRangeError,
    corrected_for_turns,
    load_calibration,
    save_calibration,
    to_joint_values,
    to_raw,
    turns_into_window,
)
from lerobot.common.robot_devices.robots.configs import FOLLOWER_MODELS, JOINTS, koch_motors
from lerobot.common.robot_devices.robots.dynamixel_calibration import calibration_from_poses

NAMES = list(JOINTS)
ZERO = np.array([2054, 1010, 3071, 1031, 3049, 2041])
ROTATED = np.array([3100, 2050, 2050, 30, 4070, 3010])


@pytest.fixture
def calibration():
    return calibration_from_poses(NAMES, ZERO, ROTATED)


def test_two_poses_give_directions_and_offsets(calibration):
    assert calibration["drive_mode"] == [0, 0, 1, 1, 0, 0]
    assert calibration["homing_offset"] == [-2048, -1024, 3072, 1024, -3072, -2048]
    assert calibration["start_pos"] == ZERO.tolist()
    assert calibration["end_pos"] == [3100, 2050, -2050, -30, 4070, 3010]
    zero = to_joint_values(ZERO, NAMES, calibration)
    rotated = to_joint_values(ROTATED, NAMES, calibration)
    np.testing.assert_allclose(zero, [0.5273, -1.2305, 0.0879, -0.6152, -2.0215, -0.6152], atol=1e-4)
    np.testing.assert_allclose(rotated, [92.4609, 90.1758, 89.8242, 87.3633, 87.7148, 84.5508], atol=1e-4)
    assert zero.dtype == np.float32


def test_goals_become_steps_and_whole_numbers_are_truncated(calibration):
    goals = np.array([1, 90, -45.5, 12.3, 0, 35.156], dtype=np.float32)
    assert to_raw(goals, NAMES, calibration).tolist() == [2059, 2048, 3590, 884, 3072, 2448]
    assert to_raw(np.array([35]), ["gripper"], calibration).tolist() == [398 + 2048]


@pytest.mark.parametrize("raw, homing, drive, turns", [(6200, -2048, 0, -1), (-5000, 1024, 1, -1)])
def test_slipped_turns_are_corrected_as_in_lerobot_0_1(raw, homing, drive, turns):
    one = {"motor_names": ["a"], "homing_offset": [homing], "drive_mode": [drive], "calib_mode": ["DEGREE"]}
    with pytest.raises(JointOutOfRangeError):
        to_joint_values(np.array([raw]), ["a"], one)
    assert corrected_for_turns(np.array([raw]), ["a"], one) == {"a": turns}


def test_a_turn_slipped_at_rest_is_seen_though_it_reads_within_270_degrees():
    low, high = np.array([-15.0, -10.0]), np.array([145.0, 185.0])
    assert turns_into_window(np.array([134.0 - 360, 180.0 - 360]), low, high).tolist() == [1, 1]
    assert turns_into_window(np.array([134.0, 180.0]), low, high).tolist() == [0, 0]


def test_percent_and_newer_modes():
    calibration = {
        "motor_names": ["a", "b", "c", "d"],
        "homing_offset": [0] * 4,
        "drive_mode": [0] * 4,
        "start_pos": [1000] * 4,
        "end_pos": [3000] * 4,
        "calib_mode": ["LINEAR", "RANGE_M100_100", "RANGE_0_100", "DEGREES"],
    }
    names = calibration["motor_names"]
    values = to_joint_values(np.array([1500, 1500, 1500, 2500]), names, calibration)
    np.testing.assert_allclose(values, [25, -50, 25, 500 * 360 / 4095], rtol=1e-6)
    assert to_raw(values, names, calibration).tolist()[:3] == [1500, 1500, 1500]


def test_files_come_back_as_they_were(tmp_path, calibration):
    path = tmp_path / "main_follower.json"
    save_calibration(calibration, path)
    assert "\n" not in path.read_text()
    assert load_calibration(path, koch_motors(FOLLOWER_MODELS)) == calibration


def test_the_newer_file_is_read(tmp_path):
    entry = {"drive_mode": 0, "homing_offset": 5, "range_min": 100, "range_max": 3000}
    path = tmp_path / "arm.json"
    path.write_text(json.dumps({name: {"id": i + 1, **entry} for i, name in enumerate(NAMES)}))
    calibration = load_calibration(path, koch_motors(FOLLOWER_MODELS))
    assert calibration["calib_mode"][0] == "RANGE_M100_100" and calibration["calib_mode"][-1] == "RANGE_0_100"
    assert to_joint_values(np.array([100, 3000]), ["shoulder_pan", "gripper"], calibration).tolist() == [-100, 100]


@pytest.mark.parametrize(
    "damage, word",
    [
        (lambda c: c.pop("drive_mode"), "lacks"),
        (lambda c: c["homing_offset"].pop(), "homing_offset"),
        (lambda c: c["motor_names"].__setitem__(2, "knee"), "elbow_flex"),
        (lambda c: c["calib_mode"].__setitem__(0, "LINEARISH"), "calib_mode"),
        (lambda c: c["drive_mode"].__setitem__(0, 2), "expected 0 or 1"),
        (lambda c: c["homing_offset"].__setitem__(3, 0.5), "whole number"),
        (lambda c: c["homing_offset"].__setitem__(3, None), "whole number"),
        (lambda c: [column.append(column[0]) for column in c.values()], "twice"),
    ],
)
def test_half_a_calibration_is_refused(tmp_path, calibration, damage, word):
    damage(calibration)
    path = tmp_path / "main_follower.json"
    path.write_text(json.dumps(calibration))
    with pytest.raises(ValueError, match=word):
        load_calibration(path, koch_motors(FOLLOWER_MODELS))


def test_a_reversed_range_of_the_newer_file_is_refused(tmp_path):
    entry = {"drive_mode": 0, "homing_offset": 5, "range_min": 3000, "range_max": 100}
    path = tmp_path / "arm.json"
    path.write_text(json.dumps({name: {"id": i + 1, **entry} for i, name in enumerate(NAMES)}))
    with pytest.raises(ValueError, match="reversed range"):
        load_calibration(path, koch_motors(FOLLOWER_MODELS))


@pytest.mark.parametrize("mode", ["DEGREE", "LINEAR", "RANGE_M100_100", "RANGE_0_100", "DEGREES"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_never_becomes_steps(calibration, mode, value):
    calibration["calib_mode"] = [mode] * 6
    with pytest.raises(ValueError, match="elbow_flex are not finite"):
        to_raw(np.array([1, 2, value, 4, 5, 6]), NAMES, calibration)


def test_steps_beyond_the_count_of_a_servo_are_refused(calibration):
    with pytest.raises(ValueError, match="gripper"):
        to_raw(np.array([0, 0, 0, 0, 0, 1e8]), NAMES, calibration)


def test_a_newer_file_is_read_in_degrees_from_the_middle_of_each_range(tmp_path):
    entry = {"drive_mode": 0, "homing_offset": 0, "range_min": 1000, "range_max": 3000}
    path = tmp_path / "blue.json"
    motors = {"pan": (1, "xl430-w250"), "gripper": (2, "xl330-m288")}
    path.write_text(json.dumps({name: {"id": motor, **entry} for name, (motor, _) in motors.items()}))
    calibration = load_calibration(path, motors, degrees=True)
    values = to_joint_values(np.array([2000 + 4095 // 4, 1500]), list(motors), calibration)
    np.testing.assert_allclose(values, [1023 * 360 / 4095, 25.0], rtol=1e-6)
    assert load_calibration(path, motors)["calib_mode"] == ["RANGE_M100_100", "RANGE_0_100"]
