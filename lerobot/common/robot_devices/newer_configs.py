"""Configurations of LeRobot 0.4's robot commands, for scripts that build them: `record(RecordConfig(...))`.

A Koch pair is one robot here (`lerobot.robots.KochRobotConfig`), so `teleop` names no second device; each
configuration is translated to that of `control_robot.py`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lerobot.common.robot_devices.control_configs import (
    CalibrateControlConfig,
    ControlPipelineConfig,
    RecordControlConfig,
    ReplayControlConfig,
    TeleoperateControlConfig,
)
from lerobot.common.robot_devices.robots.configs import RobotConfig
from lerobot.configs.policies import PreTrainedConfig

# Fields of DatasetRecordConfig that have no effect here: videos are encoded while the next episode is prepared.
ENCODING = {
    "video_encoding_batch_size": 1,
    "vcodec": "libsvtav1",
    "streaming_encoding": False,
    "encoder_queue_maxsize": 30,
    "encoder_threads": None,
}

DISPLAY = ("display_data", "display_ip", "display_port", "display_compressed_images")


@dataclass
class DatasetRecordConfig:
    """What is recorded."""

    repo_id: str
    single_task: str
    root: str | Path | None = None
    fps: int = 30
    episode_time_s: int | float = 60
    reset_time_s: int | float = 60
    num_episodes: int = 50
    video: bool = True
    push_to_hub: bool = True
    private: bool = False
    tags: list[str] | None = None
    num_image_writer_processes: int = 0
    num_image_writer_threads_per_camera: int = 4
    video_encoding_batch_size: int = 1
    vcodec: str = "libsvtav1"
    streaming_encoding: bool = False
    encoder_queue_maxsize: int = 30
    encoder_threads: int | None = None
    rename_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if not self.single_task:
            raise ValueError("DatasetRecordConfig needs a single_task: the sentence that is stored with every frame.")
        if self.rename_map:
            raise ValueError(
                "rename_map: a policy's names for cameras are kept in its checkpoint here; set them once when training "
                "(--rename_map), or name the robot's cameras as the policy does."
            )
        changed = [name for name, usual in ENCODING.items() if getattr(self, name) != usual]
        if changed:
            logging.warning("%s of DatasetRecordConfig has no effect here.", ", ".join(changed))


@dataclass
class RecordConfig:
    """Record episodes, moved by the leader or by a policy."""

    robot: RobotConfig
    dataset: DatasetRecordConfig
    teleop: Any = None  # the leader arms are part of `robot`
    policy: PreTrainedConfig | None = None
    display_data: bool = False
    display_ip: str | None = None
    display_port: int | None = None
    display_compressed_images: bool = False
    play_sounds: bool = True
    resume: bool = False

    def __post_init__(self):
        if self.policy is None and not (getattr(self.robot, "leader_arms", None) or self.robot.type == "koch_sim"):
            raise ValueError("Recording needs leader arms in `robot`, or a `policy`.")

    def control(self) -> ControlPipelineConfig:
        """The same as a configuration of `control_robot.py`."""
        wanted = {k: v for k, v in vars(self.dataset).items() if k not in ENCODING and k != "rename_map"}
        wanted["root"] = _text(self.dataset.root)
        flags = {name: getattr(self, name) for name in ("policy", "play_sounds", "resume", *DISPLAY)}
        return ControlPipelineConfig(self.robot, RecordControlConfig(**wanted, **flags))


@dataclass
class DatasetReplayConfig:
    """Which episode is replayed; at its own rate, whatever `fps` says."""

    repo_id: str
    episode: int
    root: str | Path | None = None
    fps: int = 30


@dataclass
class ReplayConfig:
    """Send the actions of a recorded episode."""

    robot: RobotConfig
    dataset: DatasetReplayConfig
    play_sounds: bool = True

    def control(self) -> ControlPipelineConfig:
        """The same as a configuration of `control_robot.py`."""
        wanted = {"repo_id": self.dataset.repo_id, "episode": self.dataset.episode, "root": _text(self.dataset.root)}
        return ControlPipelineConfig(self.robot, ReplayControlConfig(**wanted, play_sounds=self.play_sounds))


@dataclass
class TeleoperateConfig:
    """The follower follows the leader; `teleop` may be the pair, and `robot` left out."""

    teleop: Any = None
    robot: RobotConfig | None = None
    fps: int = 60
    teleop_time_s: float | None = None
    display_data: bool = False
    display_ip: str | None = None
    display_port: int | None = None
    display_compressed_images: bool = False

    def control(self) -> ControlPipelineConfig:
        """The same as a configuration of `control_robot.py`."""
        flags = {name: getattr(self, name) for name in ("fps", "teleop_time_s", *DISPLAY)}
        return ControlPipelineConfig(_pair(self.robot or self.teleop), TeleoperateControlConfig(**flags))


@dataclass
class CalibrateConfig:
    """Calibrate the followers of `robot`, or the leaders of `teleop`."""

    teleop: Any = None
    robot: RobotConfig | None = None

    def __post_init__(self):
        if (self.teleop is None) == (self.robot is None):
            raise ValueError("Choose either a teleop or a robot.")

    def control(self) -> ControlPipelineConfig:
        """The same as a configuration of `control_robot.py`."""
        pair, side = _pair(self.robot or self.teleop), "follower" if self.robot else "leader"
        arms = [f"{name}_{side}" for name in getattr(pair, f"{side}_arms")]
        return ControlPipelineConfig(pair, CalibrateControlConfig(arms))


def _pair(robot: Any) -> RobotConfig:
    if not isinstance(robot, RobotConfig):
        raise TypeError(
            f"Expected a robot's configuration (lerobot.robots.KochRobotConfig, leader and follower in one), got "
            f"{type(robot).__name__}."
        )
    return robot


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)
