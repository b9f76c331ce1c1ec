"""The small commands around the arm, and the newer names."""

from __future__ import annotations

import pytest

from lerobot.common.robot_devices.control_configs import parse_control
from lerobot.common.robot_devices.robots.configs import KochRobotConfig
from lerobot.common.robot_devices.simulation.pty_server import ServoThread
from lerobot.common.robot_devices.simulation.servo import Servo
from lerobot.scripts.configure_motor import configure_motor
from lerobot.scripts.find_motors_bus_port import find_port
from lerobot.scripts.newer_commands import translate


def test_a_new_motor_gets_its_id():
    servo = Servo(1, "xl330-m288")
    with ServoThread([[servo]]) as sim:
        configure_motor(sim.paths[0], "xl330-m288", 3)
        assert servo.motor == 3 and servo.get("Baud_Rate") == 3
        with pytest.raises(ValueError, match="1200"):
            configure_motor(sim.paths[0], "xl430-w250", 2)


def test_several_motors_are_refused():
    with (
        ServoThread([[Servo(1, "xl330-m288"), Servo(2, "xl330-m288")]]) as sim,
        pytest.raises(OSError, match="2 motors"),
    ):
        configure_motor(sim.paths[0], "xl330-m288", 3)


def test_the_port_that_goes_away_is_the_arm():
    plugged = [["/dev/a", "/dev/b"], ["/dev/b"]]
    assert find_port(lambda _: None, lambda: plugged.pop(0)) == "/dev/a"
    with pytest.raises(OSError, match="0 ports"):
        find_port(lambda _: None, lambda: ["/dev/b"])


def test_flags_of_the_newer_commands_are_understood():
    words = "--robot.type=koch_follower --robot.port=/dev/f --teleop.type=koch_leader --teleop.port=/dev/l".split()
    words += ["--dataset.repo_id=a/b", "--dataset.single_task=t", "--dataset.num_episodes=3", "--display_data=true"]
    cfg = parse_control(translate("record", words))
    assert isinstance(cfg.robot, KochRobotConfig)
    assert (cfg.robot.follower_arms["main"].port, cfg.robot.leader_arms["main"].port) == ("/dev/f", "/dev/l")
    assert cfg.control.num_episodes == 3 and cfg.control.fps == 30 and cfg.control.display_data


def test_newer_commands_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match="teleoperator"):
        translate("record", ["--robot.type=koch_follower", "--dataset.repo_id=a/b"])
    with pytest.raises(ValueError, match="exactly one"):
        translate("calibrate", ["--robot.type=koch_follower", "--teleop.type=koch_leader"])
    with pytest.raises(ValueError, match="--strategy.type"):
        translate("record", ["--robot.type=koch_sim", "--strategy.type=dagger"])
