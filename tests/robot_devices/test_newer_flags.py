"""Command lines of newer releases become those of control_robot."""

import json
import os

import pytest

from lerobot.common.robot_devices.control_configs import RecordControlConfig, parse_control
from lerobot.common.robot_devices.newer_flags import translate, translate_robot
from lerobot.common.robot_devices.robots.configs import JOINTS
from lerobot.scripts.lerobot_rollout import parse as rollout_flags

SIM = "--robot.type=koch_sim"
REPLAY = ["--robot.type=koch_follower", "--robot.port=x", "--dataset.repo_id=a/b", "--dataset.episode=0"]
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
    assert "--robot.id: there is no newer" in caplog.text


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
    assert not any("fps" in flag for flag in translate("replay", [SIM, "--dataset.fps=10"])), "at its own rate"


def test_other_arms_are_refused():
    for flag in ("--robot.type=so101_follower", "--teleop.type=so101_leader"):
        with pytest.raises(ValueError, match="Koch arms"):
            translate("record", [flag])


def test_what_cannot_be_done_is_refused():
    with pytest.raises(ValueError, match="teleoperator"):
        translate("record", ["--robot.type=koch_follower", "--dataset.repo_id=a/b"])
    with pytest.raises(ValueError, match="Teleoperating needs"):
        translate("teleoperate", ["--robot.type=koch_follower", "--robot.port=x"])
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


def test_numbers_per_joint_come_in_the_order_of_the_joints():
    numbers = {name: 5 + i for i, name in enumerate(reversed(JOINTS))}
    flags = translate("replay", ["--robot.type=koch_follower", f"--robot.max_relative_target={json.dumps(numbers)}"])
    assert "--robot.max_relative_target=[10.0, 9.0, 8.0, 7.0, 6.0, 5.0]" in flags
    assert "--robot.max_relative_target=7" in translate("replay", [SIM, "--robot.max_relative_target=7"])
    with pytest.raises(ValueError, match="one for each of shoulder_pan"):
        translate("replay", [SIM, "--robot.max_relative_target={gripper: 5}"])


def test_units_and_the_leaders_gripper(tmp_path):
    flags = [SIM, "--robot.use_degrees=true", "--teleop.type=koch_sim", "--teleop.gripper_open_pos=50"]
    config = parse_control(translate("teleoperate", flags)).robot
    assert config.use_degrees and config.gripper_open_pos == 50
    assert parse_control(translate("record", RECORD)).robot.gripper_open_pos == 50, "as newer leaders rest"
    assert parse_control(translate("record", [*RECORD, "--teleop.gripper_open_pos=20"])).robot.gripper_open_pos == 20
    with pytest.raises(ValueError, match="gripper_open_pos=101"):
        parse_control(translate("teleoperate", [SIM, "--teleop.gripper_open_pos=101"]))


def test_what_cannot_be_switched_off_is_refused_and_the_rest_is_named(caplog):
    assert translate("replay", [SIM, "--robot.disable_torque_on_disconnect=true"])[1:] == [SIM]
    with pytest.raises(ValueError, match="disable_torque_on_disconnect=false cannot"):
        translate("replay", [SIM, "--robot.disable_torque_on_disconnect=false"])
    with pytest.raises(ValueError, match="display_mode=foxglove"):
        translate("teleoperate", [SIM, "--display_mode=foxglove"])
    translate("record", [SIM, "--dataset.no_stamp=true", "--dataset.encoder_threads=2", "--dataset.rgb_encoder.crf=30"])
    for name in ("no_stamp", "encoder_threads", "rgb_encoder.crf"):
        assert f"{name} has no effect" in caplog.text
    shown = parse_control(translate("teleoperate", [SIM, "--display_ip=robot.lan", "--display_port=9876"])).control
    assert (shown.display_ip, shown.display_port) == ("robot.lan", 9876)


def test_a_turned_camera_has_the_size_that_newer_releases_mean(caplog):
    camera = (
        "{type: opencv, index_or_path: 0, width: 480, height: 640, fps: 30, rotation: 90, warmup_s: 2, fourcc: MJPG}"
    )
    config = parse_control(translate("replay", [*REPLAY, f"--robot.cameras={{ up: {camera}}}"])).robot.cameras["up"]
    assert (config.width, config.height, config.fourcc) == (640, 480, "MJPG") and "warmup_s" in caplog.text
    with pytest.raises(ValueError, match="four letters"):
        parse_control(translate("replay", [*REPLAY, "--robot.cameras={up: {type: opencv, fourcc: MJPEG}}"]))


def test_the_calibration_that_newer_releases_keep_for_an_id_is_used(tmp_path):
    named = ["--robot.type=koch_follower", f"--robot.calibration_dir={tmp_path}", "--robot.id=blue"]
    assert not any("follower_calibration" in flag for flag in translate("replay", named))
    (tmp_path / "blue.json").write_text("{}")
    assert f"--robot.follower_calibration={tmp_path / 'blue.json'}" in translate("replay", named)
    assert f"--robot.follower_calibration={tmp_path / 'blue.json'}" in translate_robot(named)
    assert not any("follower_calibration" in flag for flag in translate("calibrate", named)), "it is not overwritten"
    own = tmp_path / "main_follower.json"
    own.write_text("{}")
    os.utime(own, (2e9, 2e9))
    assert not any("follower_calibration" in flag for flag in translate("replay", named)), "calibrated here since"


def test_a_rollout_is_a_policy_run_that_records_nothing(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"type": "act"}))
    policy = [SIM, f"--policy.path={tmp_path}"]
    config = rollout_flags([*policy, "--task=Pick.", "--inference.type=async", "--duration=20", "--strategy.type=base"])
    control = config.control
    assert (control.single_task, control.player, control.episode_time_s) == ("Pick.", "async", 20)
    assert control.fps is None and rollout_flags([*policy, "--fps=15"]).control.fps == 15
    assert rollout_flags(policy).control.episode_time_s == float("inf")
    with pytest.raises(ValueError, match="--strategy.type=dagger cannot be had"):
        rollout_flags([*policy, "--strategy.type=dagger"])
    with pytest.raises(ValueError, match="--policy.path"):
        rollout_flags([SIM])
