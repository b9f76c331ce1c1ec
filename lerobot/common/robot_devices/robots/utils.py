"""From configurations to robots."""

from __future__ import annotations

from typing import Protocol

import torch

from lerobot.common.robot_devices.robots.configs import (
    KochBimanualRobotConfig,
    KochRobotConfig,
    KochSimRobotConfig,
    RobotConfig,
)
from lerobot.common.robot_devices.safety import EnvelopeConfig

CONFIGS = {"koch": KochRobotConfig, "koch_bimanual": KochBimanualRobotConfig, "koch_sim": KochSimRobotConfig}


class Robot(Protocol):
    """What the control loops need of a robot."""

    robot_type: str
    features: dict

    def connect(self) -> None: ...
    def teleop_step(self, record_data: bool = False) -> tuple[dict, dict] | None: ...
    def capture_observation(self) -> dict[str, torch.Tensor]: ...
    def send_action(self, action: torch.Tensor) -> torch.Tensor: ...
    def disconnect(self) -> None: ...


def make_robot_config(robot_type: str, **kwargs) -> RobotConfig:
    """A configuration by type; ValueError for an unknown one."""
    if robot_type not in CONFIGS:
        raise ValueError(f"Robot type '{robot_type}' is not available; expected one of {', '.join(CONFIGS)}.")
    return CONFIGS[robot_type](**kwargs)


def make_robot_from_config(config: RobotConfig, envelope: EnvelopeConfig | None = None, safety: bool = True):
    """The robot of a configuration, not connected."""
    if isinstance(config, KochSimRobotConfig):
        from lerobot.common.robot_devices.robots.koch_sim import KochSimRobot

        return KochSimRobot(config, envelope, safety)
    from lerobot.common.robot_devices.robots.manipulator import ManipulatorRobot

    return ManipulatorRobot(config, envelope, safety)


def make_robot(robot_type: str, **kwargs):
    """The robot of a type with the given fields, not connected."""
    return make_robot_from_config(make_robot_config(robot_type, **kwargs))
