"""Teleoperate the arm with the flags of LeRobot 0.4's `lerobot-teleoperate`.

The same as `control_robot.py --control.type=teleoperate`.
"""

import sys

from lerobot.common.robot_devices.control_configs import parse_control
from lerobot.common.robot_devices.newer_configs import TeleoperateConfig
from lerobot.common.robot_devices.newer_flags import translate
from lerobot.common.utils.utils import init_logging, run_command
from lerobot.scripts.control_robot import control_robot

__all__ = ["TeleoperateConfig", "main", "teleoperate"]


def teleoperate(cfg: TeleoperateConfig):
    """Do what the command does, for a configuration built in Python."""
    return control_robot(cfg.control())


def main() -> None:
    """The command."""
    init_logging()
    run_command(lambda: control_robot(parse_control(translate("teleoperate", sys.argv[1:]))))


if __name__ == "__main__":
    main()
