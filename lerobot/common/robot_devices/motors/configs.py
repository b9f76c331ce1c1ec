"""Configurations of motor buses."""

import abc
from dataclasses import dataclass

import draccus

from lerobot.common.robot_devices.motors.control_table import DEFAULT_BAUD_RATE


@dataclass
class MotorsBusConfig(draccus.ChoiceRegistry, abc.ABC):
    """A chain of servos behind one port."""

    @property
    def type(self) -> str:
        """The name on the command line."""
        return self.get_choice_name(self.__class__)


@MotorsBusConfig.register_subclass("dynamixel")
@dataclass
class DynamixelMotorsBusConfig(MotorsBusConfig):
    """Dynamixel X servos, protocol 2.0."""

    port: str  # serial device, as /dev/ttyACM0
    motors: dict[str, tuple[int, str]]  # name -> (id, model)
    baud_rate: int = DEFAULT_BAUD_RATE
    mock: bool = False  # a simulated bus takes the place of the port
