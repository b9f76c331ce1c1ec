"""Configurations of LeRobot 0.4's robot commands."""

import pytest

from lerobot.common.robot_devices import decorators
from lerobot.common.robot_devices.newer_configs import (
    CalibrateConfig,
    DatasetRecordConfig,
    DatasetReplayConfig,
    RecordConfig,
    ReplayConfig,
    TeleoperateConfig,
)
from lerobot.common.robot_devices.robots.configs import KochRobotConfig, RobotConfig
from lerobot.common.robot_devices.utils import DeviceAlreadyConnectedError, DeviceNotConnectedError
from lerobot.scripts import lerobot_record


@pytest.fixture
def pair():
    return KochRobotConfig(mock=True)


def test_they_become_those_of_control_robot(pair, tmp_path):
    record = RecordConfig(pair, DatasetRecordConfig("me/x", "lift", root=tmp_path, num_episodes=2), play_sounds=False)
    control = record.control().control
    assert (control.repo_id, control.root, control.fps, control.play_sounds) == ("me/x", str(tmp_path), 30, False)
    replay = ReplayConfig(pair, DatasetReplayConfig("me/x", 3)).control().control
    assert (replay.type, replay.episode, replay.fps) == ("replay", 3, None), "at the episode's own rate"
    teleoperate = TeleoperateConfig(pair, teleop_time_s=2, display_ip="10.0.0.1", display_port=9876).control().control
    assert (teleoperate.fps, teleoperate.display_ip, teleoperate.display_port) == (60, "10.0.0.1", 9876)
    assert CalibrateConfig(robot=pair).control().control.arms == ["main_follower"]
    assert CalibrateConfig(teleop=pair).control().control.arms == ["main_leader"]


def test_what_has_no_counterpart_is_said(pair, caplog):
    DatasetRecordConfig("me/x", "lift", vcodec="h264")
    assert "vcodec of DatasetRecordConfig has no effect" in caplog.text
    with pytest.raises(ValueError, match="--rename_map"):
        DatasetRecordConfig("me/x", "lift", rename_map={"a": "b"})
    with pytest.raises(ValueError, match="single_task"):
        DatasetRecordConfig("me/x", "")
    with pytest.raises(ValueError, match="leader arms"):
        RecordConfig(KochRobotConfig(leader_arms={}), DatasetRecordConfig("me/x", "lift"))
    with pytest.raises(ValueError, match="either a teleop or a robot"):
        CalibrateConfig(robot=pair, teleop=pair)
    with pytest.raises(TypeError, match="KochRobotConfig"):
        TeleoperateConfig({"type": "koch_leader"}).control()


def test_recording_from_python_does_what_the_command_does(monkeypatch):
    monkeypatch.setattr(lerobot_record, "control_robot", lambda cfg: cfg)
    robot = RobotConfig.get_choice_class("koch_sim")()  # moved by its own expert
    done = lerobot_record.record(RecordConfig(robot, DatasetRecordConfig("me/x", "lift")))
    assert done.robot is robot and done.control.single_task == "lift" and done.safety == "on"


def test_guards_of_a_device():
    class Device:
        is_connected = False

        @decorators.check_if_not_connected
        def read(self):
            return 1

        @decorators.check_if_already_connected
        def connect(self):
            self.is_connected = True

    device = Device()
    with pytest.raises(DeviceNotConnectedError, match="Device is not connected"):
        device.read()
    device.connect()
    assert device.read() == 1
    with pytest.raises(DeviceAlreadyConnectedError):
        device.connect()
