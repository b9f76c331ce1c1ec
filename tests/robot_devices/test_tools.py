"""The small commands around the arm, and the newer names."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from lerobot.common.robot_devices.robots.configs import FOLLOWER_MODELS, LEADER_MODELS
from lerobot.common.robot_devices.simulation.pty_server import ServoThread
from lerobot.common.robot_devices.simulation.servo import Servo
from lerobot.scripts.configure_motor import configure_motor
from lerobot.scripts.find_motors_bus_port import find_port
from lerobot.scripts.koch_sim_bus import SimulatedPair, write_calibrations
from lerobot.scripts.lerobot_setup_motors import parse, setup_motors

needs_sdk = pytest.mark.skipif(find_spec("dynamixel_sdk") is None, reason="the extra koch is not installed")


@needs_sdk
def test_a_new_motor_gets_its_id():
    servo = Servo(1, "xl330-m288")
    with ServoThread([[servo]]) as sim:
        configure_motor(sim.paths[0], "xl330-m288", 3)
        assert servo.motor == 3 and servo.get("Baud_Rate") == 3
        with pytest.raises(ValueError, match="1200"):
            configure_motor(sim.paths[0], "xl430-w250", 2)


@needs_sdk
@pytest.mark.patience(0.2)
def test_a_motor_fresh_from_the_factory_is_found_at_its_own_rate():
    servo = Servo(1, "xl430-w250")
    servo.set("Baud_Rate", 1)
    with ServoThread([[servo]]) as sim:
        configure_motor(sim.paths[0], "xl430-w250", 2)
    assert servo.motor == 2 and servo.baud_rate == 1_000_000


@needs_sdk
def test_several_motors_are_refused():
    with (
        ServoThread([[Servo(1, "xl330-m288"), Servo(2, "xl330-m288")]]) as sim,
        pytest.raises(OSError, match="2 motors"),
    ):
        configure_motor(sim.paths[0], "xl330-m288", 3)


@needs_sdk
def test_the_motors_of_an_arm_are_set_up_one_after_the_other():
    motors = {"gripper": Servo(1, "xl330-m288"), "wrist_roll": Servo(1, "xl330-m288")}
    waiting, done = list(motors.items()), []
    with ServoThread([[]]) as sim:

        def connect(prompt):
            if not waiting:
                raise EOFError
            name, servo = waiting.pop(0)
            assert f"'{name}'" in prompt
            sim.buses[0].servos[:] = [servo]
            done.append(servo)

        with pytest.raises(EOFError):
            setup_motors(sim.paths[0], FOLLOWER_MODELS, connect)
    assert [servo.motor for servo in done] == [6, 5]


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ([], "Name one arm"),
        (["--robot.type=koch_follower", "--teleop.type=koch_leader"], "Name one arm"),
        (["--robot.type=so101_follower", "--robot.port=/dev/a"], "Koch"),
        (["--teleop.type=koch_leader"], "--teleop.port"),
        (["--teleop.type=koch_leader", "--teleop.port=/dev/a", "--baud=3"], "--baud"),
    ],
)
def test_setting_up_needs_one_arm_and_its_port(flags, word):
    with pytest.raises(ValueError, match=word):
        parse(flags)
    assert parse(["--teleop.type=koch_leader", "--teleop.port=/dev/a"]) == ("/dev/a", LEADER_MODELS)


def test_the_port_that_goes_away_is_the_arm():
    plugged = [["/dev/a", "/dev/b"], ["/dev/b"]]
    assert find_port(lambda _: None, lambda: plugged.pop(0)) == "/dev/a"
    with pytest.raises(OSError, match="No port went away"):
        find_port(lambda _: None, lambda: ["/dev/b"])


@needs_sdk
def test_an_id_that_no_motor_can_have_is_refused():
    with pytest.raises(ValueError, match="--ID=300: expected 0 to 252"):
        configure_motor("/dev/nothing", "xl330-m288", 300)


@needs_sdk
def test_the_pair_behind_two_devices_is_moved_and_broken_by_typed_lines(tmp_path):
    from lerobot.common.robot_devices.robots.utils import make_robot

    pair = SimulatedPair()
    try:
        write_calibrations(tmp_path)
        ports = {f"{arm}_port": port for arm, port in pair.ports.items()}
        robot = make_robot("koch", cameras={}, calibration_dir=str(tmp_path), supervise=False, **ports)
        robot.open()
        assert not robot.check()
        pair.command("leader.wrist_flex.vanish")
        pair.command("follower.gripper.volts=6.5")
        found = {finding.code for finding in robot.check()}
        assert found == {"robot.motor.missing", "robot.motor.voltage"}
        robot.load_calibrations()
        pair.command("rotated\n")
        assert robot.follower_positions() == pytest.approx([90.0] * 6, abs=0.1)
        robot.disconnect()
        with pytest.raises(ValueError, match="expected ARM.JOINT.FAULT"):
            pair.command("gripper")
    finally:
        pair.close()
