"""The bus: the official SDK talks to simulated servos through a pseudo-terminal."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from lerobot.common.checks.robot import check_calibration, check_health, check_motors
from lerobot.common.robot_devices.motors import dynamixel_port
from lerobot.common.robot_devices.motors.calibration import save_calibration
from lerobot.common.robot_devices.motors.configs import DynamixelMotorsBusConfig
from lerobot.common.robot_devices.motors.dynamixel import DynamixelMotorsBus
from lerobot.common.robot_devices.robots.arm_setup import undo_slipped_turns
from lerobot.common.robot_devices.robots.configs import FOLLOWER_MODELS, koch_motors
from lerobot.common.robot_devices.robots.dynamixel_calibration import calibration_from_poses, run_arm_calibration
from lerobot.common.robot_devices.utils import RobotDeviceAlreadyConnectedError, RobotDeviceNotConnectedError
from lerobot.scripts import configure_motor

needs_sdk = pytest.mark.skipif(find_spec("dynamixel_sdk") is None, reason="the extra koch is not installed")


def goals(arm) -> list[int]:
    return [servo.get("Goal_Position") for servo in arm.servos]


def test_registers_are_read_and_written_in_the_order_asked(arm):
    assert arm.read("ID").tolist() == [1, 2, 3, 4, 5, 6]
    assert arm.read("Model_Number", ["gripper", "shoulder_pan"]).tolist() == [1200, 1060]
    arm.write("Position_P_Gain", [700, 1500], ["shoulder_pan", "elbow_flex"])
    assert arm.read("Position_P_Gain").tolist() == [700, 640, 1500, 400, 400, 400]
    assert arm.read("ID", "elbow_flex").shape == (1,)
    assert "delta_timestamp_s_read_ID_elbow_flex" in arm.logs


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_goal_that_is_no_number_reaches_no_servo(arm, value):
    before = goals(arm)
    for values in ([2000.0] * 5 + [value], value):
        with pytest.raises(ValueError, match="not finite"):
            arm.write("Goal_Position", values)
    assert goals(arm) == before and not any(servo.goal_writes for servo in arm.servos)


@pytest.mark.parametrize("mode, word", [(4, "as a time"), (8, "torque on"), (13, "torque on")])
def test_a_drive_mode_that_changes_what_goals_mean_is_refused(arm, mode, word):
    arm.servos[3].set("Drive_Mode", mode)
    (finding,) = check_motors("main_follower", arm)
    assert finding.code == "robot.motor.drive_mode" and word in finding.message and "wrist_flex" in finding.message
    assert finding.severity == "error" and f"write {mode & 1} " in finding.fix
    arm.servos[3].set("Drive_Mode", 1)
    assert not check_motors("main_follower", arm)


def test_homing_offsets_in_the_motors_are_compared_with_the_calibration(arm, tmp_path):
    newer = {"drive_mode": 0, "homing_offset": 5, "range_min": 100, "range_max": 3000}
    path = tmp_path / "arm.json"
    path.write_text(json.dumps({name: {"id": i + 1, **newer} for i, name in enumerate(arm.motors)}))
    (finding,) = check_calibration("main_follower", path, arm)
    assert finding.code == "robot.calibration.motors" and "'gripper': 0" in finding.message
    for servo in arm.servos:
        servo.set("Homing_Offset", 5)
    assert not check_calibration("main_follower", path, arm)
    save_calibration(calibration_from_poses(list(arm.motors), np.zeros(6, int), np.full(6, 1024)), path)
    (finding,) = check_calibration("main_follower", path, arm)
    assert (finding.code, finding.severity) == ("robot.calibration.shifted", "warning")


def test_directions_in_the_motors_are_compared_with_the_calibration(arm, tmp_path):
    """LeRobot 0.4 lets the leader's elbow count backwards; a motor from the factory would mirror that joint."""
    newer = {"homing_offset": 0, "range_min": 100, "range_max": 3000}
    path = tmp_path / "arm.json"
    entries = {n: {"id": i + 1, "drive_mode": int(n == "elbow_flex"), **newer} for i, n in enumerate(arm.motors)}
    path.write_text(json.dumps(entries))
    (finding,) = check_calibration("main_leader", path, arm)
    assert finding.severity == "error" and "directions" in finding.message and "'elbow_flex': 0" in finding.message
    arm.servos[2].set("Drive_Mode", 1)
    assert not check_calibration("main_leader", path, arm)
    save_calibration(calibration_from_poses(list(arm.motors), np.zeros(6, int), np.full(6, 1024)), path)
    (finding,) = check_calibration("main_leader", path, arm)
    assert finding.severity == "warning" and "count backwards {'elbow_flex': 1}" in finding.message


@pytest.mark.parametrize("mode", ["RANGE_M100_100", "DEGREES", "LINEAR"])
@pytest.mark.parametrize("turns", [-1, 0, 2])
def test_a_slipped_turn_is_seen_in_every_kind_of_calibration(arm, mode, turns):
    """A range cuts off what lies beyond it: a joint that is a turn away would read as being at its end."""
    count = len(arm.motors)
    plain = {"homing_offset": [0] * count, "drive_mode": [1] * count, "motor_names": list(arm.motors)}
    ends = {"start_pos": [1000] * count, "end_pos": [3000] * count, "calib_mode": [mode] * count}
    arm.set_calibration({**plain, **ends})
    arm.servos[1].shaft = 2500.0
    arm.servos[1].sense()
    before = arm.read("Present_Position")
    arm.servos[1].slip(turns)
    undo_slipped_turns("main_follower", arm)
    np.testing.assert_array_equal(arm.read("Present_Position"), before)
    arm.servos[1].shaft += 1800
    arm.servos[1].sense()
    with pytest.raises(ConnectionError, match=r"outside of its range by {'shoulder_lift': 70\.0} degrees"):
        undo_slipped_turns("main_follower", arm)


def test_torque_on_keeps_the_pose_and_disconnect_switches_it_off(arm):
    arm.servos[2].shaft = 1234.0
    arm.servos[2].set("Goal_Position", 3999)
    arm.write("Operating_Mode", 4)
    arm.set_torque(True)
    assert goals(arm)[2] == 1234
    arm.disconnect()
    assert not any(servo.torque for servo in arm.servos)


def test_a_motor_that_refuses_is_named(arm):
    arm.set_torque(True)
    with pytest.raises(RuntimeError, match="Motor 1 refused 4"):
        arm.write("Operating_Mode", 4)
    with pytest.raises(NotImplementedError, match="xl430"):
        arm.write("Goal_Current", 300)


def test_connecting_twice_or_not_at_all(arm):
    with pytest.raises(RobotDeviceAlreadyConnectedError):
        arm.connect()
    arm.disconnect()
    with pytest.raises(RobotDeviceNotConnectedError):
        arm.read("ID")


@pytest.mark.patience(0)
@pytest.mark.parametrize("kind", ["lost", "corrupt", "duplicate"])
def test_faults_are_retried_counted_and_never_change_a_value(arm, kind):
    arm.write("Operating_Mode", 4)
    setattr(arm.faults, kind, 0.02)
    for step in range(80):
        arm.servos[4].shaft = float(1000 + step)
        arm.servos[4].sense()
        assert arm.read("Present_Position")[4] == 1000 + step
        assert arm.read("Goal_Position", "gripper")[0] == goals(arm)[5]
    assert arm.faults.counts
    assert kind == "duplicate" or arm.counters.retries > 0


@pytest.mark.patience(0)
def test_a_late_answer_is_not_taken_for_the_next_one(arm):
    arm.servos[0].set("Goal_Position", 111)
    arm.faults.late, arm.faults.late_s = 0.3, 0.08
    wrong = [
        (goal, position)
        for _ in range(12)
        if (goal := arm.read("Goal_Position", "shoulder_pan")[0]) != 111
        or (position := arm.read("Present_Position", "shoulder_pan")[0]) != 2048
    ]
    assert not wrong and arm.faults.counts["late"] > 0


def test_a_motor_that_vanished_is_named_after_bounded_tries(arm):
    arm.servos[3].muted = True
    with pytest.raises(ConnectionError, match="motor 4 after 2 tries"):
        arm.read_with_motor_ids(arm.motor_models, arm.motor_indices, "ID", num_retry=2)
    assert arm.counters.by_motor == {4: 2} and arm.counters.failures == 1


def test_an_unplugged_adapter_is_a_connection_error(arm):
    with arm.sim.lock:
        arm.sim.server.unplug(0)
    with pytest.raises(ConnectionError, match="gone|no answer"):
        arm.read("Present_Position")
    arm.disconnect(torque_off=False)


def test_an_overloaded_motor_raises_the_alert_in_the_loop(arm):
    arm.servos[1].trip(5)
    arm.read("Present_Position")
    assert arm.alerts == ["shoulder_lift"]
    assert arm.health()["shoulder_lift"].errors == ("overload",)
    assert [finding.code for finding in check_health("main", arm)] == ["robot.motor.error"]


def test_checks_tell_missing_and_wrong_motors_and_low_supply(arm):
    arm.servos[0].set("Model_Number", 1190)
    arm.servos[5].muted = True
    arm.servos[3].set("Present_Input_Voltage", 41)
    codes = {finding.code: finding for finding in check_motors("main_follower", arm)}
    assert set(codes) == {"robot.motor.missing", "robot.motor.model", "robot.motor.voltage"}
    assert codes["robot.motor.missing"].evidence["missing"] == {"gripper": 6}


@pytest.mark.patience(0.1)
def test_another_baud_rate_is_found_and_told(arm):
    for servo in arm.servos:
        servo.set("Baud_Rate", 1)
    (finding,) = check_motors("main_follower", arm)
    assert finding.code == "robot.bus.silent" and finding.evidence["answering_baud_rate"] == 57_600


@pytest.mark.patience(0.1)
@pytest.mark.parametrize(
    "level, word", [(0, "elbow_flex answer a ping but no read"), (1, "elbow_flex acknowledge no write")]
)
def test_motors_that_do_not_answer_all_are_told_and_mended_by_the_command_named(arm, level, word, capsys, monkeypatch):
    arm.servos[2].set("Status_Return_Level", level)
    (finding,) = check_motors("main_follower", arm)
    assert (finding.code, finding.severity) == ("robot.motor.answers", "error")
    assert f"{word} ({level})" in finding.message
    arm.disconnect(torque_off=False)
    command = finding.fix.split(", or ")[0].split()
    monkeypatch.setattr(sys, "argv", command[1:])
    configure_motor.main()
    assert "Motors [1, 2, 3, 4, 5, 6] answer" in capsys.readouterr().out
    assert [servo.get("Status_Return_Level") for servo in arm.servos] == [2] * 6


def test_stopped_motors_are_named_and_take_goals_again(arm):
    assert arm.wake() == []
    arm.set_torque(True)
    arm.write("Bus_Watchdog", 1, "wrist_roll")
    with arm.sim.lock:
        arm.servos[4].tick(0.1)
    before = goals(arm)[4]
    arm.write("Goal_Position", before + 9, "wrist_roll")
    assert goals(arm)[4] == before, "a goal for a stopped motor is lost, and nobody tells"
    assert arm.wake() == ["wrist_roll"]
    arm.write("Goal_Position", before + 9, "wrist_roll")
    arm.read("ID")
    assert goals(arm)[4] == before + 9


@needs_sdk
def test_a_bus_that_stalled_is_not_asked_the_same_while_it_may_still_answer(monkeypatch):
    """What it owes comes in order: once a later question was answered, an earlier one is not."""
    clock = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    clock.sleep = lambda seconds: setattr(clock, "now", clock.now + seconds)
    monkeypatch.setattr(dynamixel_port, "time", clock)
    port = dynamixel_port.DynamixelPort("/dev/none", 1_000_000)
    count = len(port._tags[132])
    asked = [port._window(132)[1] for _ in range(count)]  # none is answered
    assert len(set(asked)) == count and clock.now == 100.0
    assert port._window(132)[1] == asked[0] and clock.now == pytest.approx(100.0 + dynamixel_port.SILENT_S, abs=0.01)
    port._answered = port._asked  # that one was: what was asked before does not come any more
    assert port._window(132)[1] == asked[1] and clock.now == pytest.approx(100.0 + dynamixel_port.SILENT_S, abs=0.01)


@needs_sdk
def test_a_missing_port_is_told_with_the_ports_found():
    bus = DynamixelMotorsBus(DynamixelMotorsBusConfig("/dev/ttyNOPE", koch_motors(FOLLOWER_MODELS)))
    with pytest.raises(ConnectionError, match="koch_sim"):
        bus.connect()


@needs_sdk
@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_port_without_permission_is_told(tmp_path):
    (tmp_path / "tty").touch(mode=0)
    bus = DynamixelMotorsBus(DynamixelMotorsBusConfig(str(tmp_path / "tty"), koch_motors(FOLLOWER_MODELS)))
    with pytest.raises(ConnectionError, match="dialout"):
        bus.connect()


def test_calibrating_by_hand_finds_the_mounting(arm):
    zero = [2054, 1010, 3071, 1031, 3049, 2041]
    rotated = [3100, 2050, 2050, 30, 4070, 3010]
    poses = iter([zero, rotated, zero])

    def hand(_prompt):
        with arm.sim.lock:
            for servo, steps in zip(arm.servos, next(poses), strict=True):
                servo.shaft = float(steps)
                servo.sense()

    calibration = run_arm_calibration(arm, "koch", "main", "follower", hand)
    assert calibration["homing_offset"] == [-2048, -1024, 3072, 1024, -3072, -2048]
    arm.set_calibration(calibration)
    np.testing.assert_allclose(arm.read("Present_Position"), [0.5, -1.2, 0.1, -0.6, -2.0, -0.6], atol=0.06)


def test_a_pose_that_was_not_taken_is_asked_for_again_and_no_calibration_is_made_of_it(arm):
    asked = []
    with pytest.raises(ValueError, match="'gripper': 0} degrees instead of about 90. Nothing was written"):
        run_arm_calibration(arm, "koch", "main", "follower", asked.append)
    assert len(asked) == 4 and asked[2].startswith("Since the ZERO pose these joints turned by {'shoulder_pan': 0")

    def ask(prompt):
        asked.append(prompt)
        if prompt.startswith("Since"):
            for servo in arm.servos:
                servo.shaft += 1000
                servo.sense()

    assert run_arm_calibration(arm, "koch", "main", "follower", ask)["drive_mode"] == [0] * 6


def test_calibrating_with_torque_on_is_refused(arm):
    arm.set_torque(True)
    with pytest.raises(ValueError, match="Torque"):
        run_arm_calibration(arm, "koch", "main", "follower", lambda _: None)
