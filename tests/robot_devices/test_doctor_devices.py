"""The doctor looks at the devices whose ports are named, and at what joint values mean."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("dynamixel_sdk")

from lerobot.common.checks.devices import calibrated_units, check_devices
from lerobot.common.checks.doctor import examine
from lerobot.common.checks.facts import dataset_facts, robot_facts
from lerobot.common.checks.match import check_match
from lerobot.common.checks.robot import recorded_units
from lerobot.common.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.common.robot_devices.motors.calibration import DEGREE, LINEAR, save_calibration
from lerobot.common.robot_devices.robots.configs import FOLLOWER_MODELS, JOINTS, LEADER_MODELS
from lerobot.common.robot_devices.simulation.pty_server import ServoThread
from lerobot.common.robot_devices.simulation.servo import Servo
from lerobot.scripts.doctor import parse


@pytest.fixture
def pair():
    """Follower and leader on two ports; the follower is held up by another program: its torque is on."""
    chains = [[Servo(i + 1, model) for i, model in enumerate(models)] for models in (FOLLOWER_MODELS, LEADER_MODELS)]
    for servo in chains[0]:
        servo.set("Torque_Enable", 1)
    with ServoThread(chains) as sim:
        yield sim


def write_calibration(folder, modes):
    legacy = {"homing_offset": [0] * 6, "drive_mode": [0] * 6, "start_pos": [0] * 6, "end_pos": [4096] * 6}
    for arm in ("main_follower", "main_leader"):
        save_calibration({**legacy, "calib_mode": modes, "motor_names": list(JOINTS)}, folder / f"{arm}.json")


def robot(tmp_path, *flags):
    return parse(["--robot.type=koch", f"--robot.calibration_dir={tmp_path}", *flags])[1]


def test_motors_are_read_and_torque_stays_as_it_is(pair, tmp_path):
    write_calibration(tmp_path, [DEGREE] * 6)
    ports = [f"--robot.follower_port={pair.paths[0]}", f"--robot.leader_port={pair.paths[1]}", "--robot.cameras={}"]
    assert check_devices(robot(tmp_path, *ports)) == []
    pair.servos[0][3].muted = True
    pair.servos[1][1].set_volts(3.0)
    cfg, config = parse(["--robot.type=koch", f"--robot.calibration_dir={tmp_path}", *ports])
    found = {finding.code: finding for finding in examine(cfg, config)}
    assert found["robot.motor.missing"].evidence == {"missing": {"wrist_flex": 4}}
    assert found["robot.motor.voltage"].evidence["motor"] == "shoulder_lift"
    assert all(servo.torque for servo in pair.servos[0]) and not any(servo.torque for servo in pair.servos[1])


def test_only_ports_that_are_named_are_opened(pair, tmp_path):
    write_calibration(tmp_path, [DEGREE] * 6)
    assert check_devices(robot(tmp_path)) == []
    assert check_devices(robot(tmp_path, f"--robot.leader_port={pair.paths[1]}")) == []
    absent = check_devices(robot(tmp_path, "--robot.follower_port=/dev/none"))
    assert [finding.code for finding in absent] == ["robot.main_follower.port"]


def test_a_robot_is_compared_in_the_units_of_its_calibration(tmp_path):
    data = dataset_facts(LeRobotDatasetMetadata(None, root="grasp_dataset"))
    write_calibration(tmp_path, [DEGREE] * 6)
    assert check_match(robot_facts(robot(tmp_path)), data) == []
    write_calibration(tmp_path, [DEGREE] * 5 + [LINEAR])
    assert calibrated_units(robot(tmp_path)) == "deg_percent"
    found = check_match(robot_facts(robot(tmp_path)), data)
    assert [finding.code for finding in found] == ["match.units"]


@pytest.mark.parametrize(
    ("names", "largest", "units"),
    [
        (["main_shoulder_pan", "main_gripper"], 90.0, "legacy"),
        (["shoulder_pan.pos", "gripper.pos"], 100.0, "normalized"),
        ({"motors": ["shoulder_pan.pos", "gripper.pos"]}, 134.0, "deg_percent"),
        (["x", "y"], 1.0, None),
        (None, 1.0, None),
    ],
)
def test_recorded_units_are_told_by_the_joints_names(names, largest, units):
    stats = {"action": {"min": np.zeros(2), "max": np.array([largest, 1.0])}}
    action = {"dtype": "float32", "shape": [2], "names": names}
    assert recorded_units(None, action, stats) == units
    assert recorded_units("degrees", action, stats) == "degrees"
