"""Command lines of newer releases become those of control_robot."""

import pytest

from lerobot.common.robot_devices.control_configs import RecordControlConfig, parse_control
from lerobot.common.robot_devices.newer_flags import translate

RECORD = [
    "--robot.type=koch_follower",
    "--robot.port=/dev/ttyF",
    "--robot.id=my_follower",
    "--robot.cameras={ front: {type: opencv, index_or_path: 2, width: 640, height: 480, fps: 30}}",
    "--teleop.type=koch_leader",
    "--teleop.port=/dev/ttyL",
    "--dataset.repo_id=me/cubes",
    "--dataset.single_task=Grasp the cube",
    "--dataset.num_episodes",
    "5",
    "--display_data=true",
    "--resume=true",
]


def test_a_recording_command_keeps_its_meaning(caplog):
    config = parse_control(translate("record", RECORD))
    assert isinstance(config.control, RecordControlConfig)
    control = config.control
    assert (control.repo_id, control.single_task, control.num_episodes) == ("me/cubes", "Grasp the cube", 5)
    assert control.display_data and control.resume and config.robot.type == "koch"
    follower, leader = config.robot.follower_arms["main"], config.robot.leader_arms["main"]
    assert (follower.port, leader.port) == ("/dev/ttyF", "/dev/ttyL") and list(follower.motors) == list(leader.motors)
    assert follower.motors != leader.motors, "leader and follower have other servos"
    assert config.robot.cameras["front"].camera_index == 2
    assert "--robot.id has no effect" in caplog.text


def test_the_other_commands():
    assert set(translate("teleoperate", ["--robot.type=koch_sim", "--fps=30"])[1:]) == {
        "--robot.type=koch_sim",
        "--control.fps=30",
    }
    assert parse_control(translate("teleoperate", ["--robot.type=koch_sim"])).control.fps == 60
    replay = parse_control(
        translate("replay", ["--robot.type=koch_sim", "--dataset.repo_id=a/b", "--dataset.episode=3"])
    )
    assert (replay.control.repo_id, replay.control.episode) == ("a/b", 3)


def test_other_arms_are_refused():
    for flag in ("--robot.type=so101_follower", "--teleop.type=so101_leader"):
        with pytest.raises(ValueError, match="Koch arms"):
            translate("record", [flag])


def test_what_cannot_be_done_is_refused():
    with pytest.raises(ValueError, match="teleoperator"):
        translate("record", ["--robot.type=koch_follower", "--dataset.repo_id=a/b"])
    with pytest.raises(ValueError, match="exactly one"):
        translate("calibrate", ["--robot.type=koch_follower", "--teleop.type=koch_leader"])
    with pytest.raises(ValueError, match="Name the robot"):
        translate("replay", ["--dataset.repo_id=a/b"])
    with pytest.raises(ValueError, match="--strategy.type"):
        translate("record", ["--robot.type=koch_sim", "--strategy.type=dagger"])


def test_an_arm_that_is_not_named_is_not_connected():
    policy = translate("record", ["--robot.type=koch_follower", "--policy.path=x", "--dataset.repo_id=a/b"])
    assert "--robot.leader_arms={}" in policy
    leader = translate("calibrate", ["--teleop.type=koch_leader", "--teleop.port=/dev/l"])
    assert {"--robot.follower_arms={}", "--robot.leader_port=/dev/l", '--control.arms=["main_leader"]'} <= set(leader)
