"""From configurations to motor buses."""

from __future__ import annotations

from lerobot.common.robot_devices.motors.configs import DynamixelMotorsBusConfig, MotorsBusConfig
from lerobot.common.robot_devices.motors.dynamixel import DynamixelMotorsBus


def make_motors_buses_from_configs(configs: dict[str, MotorsBusConfig]) -> dict[str, DynamixelMotorsBus]:
    """One bus per configuration, not connected; ValueError for an unknown type."""
    return {name: make_motors_bus(config.type, config=config) for name, config in configs.items()}


def make_motors_bus(motor_type: str, config: MotorsBusConfig | None = None, **kwargs) -> DynamixelMotorsBus:
    """A bus of the type named `motor_type`; ValueError for an unknown one."""
    if motor_type != "dynamixel":
        raise ValueError(f"Motor type '{motor_type}' is not available; expected dynamixel.")
    return DynamixelMotorsBus(config or DynamixelMotorsBusConfig(**kwargs))
