"""Calibrate, teleoperate, record, replay, or run a policy on a Koch arm, real or simulated.

python lerobot/scripts/control_robot.py --robot.type=koch_sim --control.type=teleoperate --control.teleop_time_s=10
"""

import logging
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pprint import pformat

from lerobot.common.robot_devices.control_configs import (
    CalibrateControlConfig,
    ControlPipelineConfig,
    RecordControlConfig,
    ReplayControlConfig,
    TeleoperateControlConfig,
    parse_control,
)
from lerobot.common.robot_devices.control_utils import landing_on_signals
from lerobot.common.robot_devices.keyboard import unechoed
from lerobot.common.robot_devices.recording import calibrate, record, replay, teleoperate
from lerobot.common.robot_devices.robots.utils import make_robot_from_config
from lerobot.common.utils.utils import init_logging, run_command

COMMANDS = {
    CalibrateControlConfig: calibrate,
    TeleoperateControlConfig: teleoperate,
    RecordControlConfig: record,
    ReplayControlConfig: replay,
}


def control_robot(cfg: ControlPipelineConfig, command: Callable | None = None):
    """Do what the configuration says; whatever ends it, the arm is landed and its torque switched off.

    `command` (robot, control) takes the place of what usually belongs to the control's type.
    """
    logging.debug("%s", pformat(cfg))
    command = command or COMMANDS.get(type(cfg.control))
    if command is None:
        raise NotImplementedError(f"--control.type={cfg.control.type} is not for a Koch arm.")
    robot = make_robot_from_config(cfg.robot, cfg.envelope, cfg.safety != "off")
    typed = nullcontext() if isinstance(cfg.control, CalibrateControlConfig) else unechoed()
    with typed, landing_on_signals():
        try:
            return command(robot, cfg.control)
        finally:
            if robot.is_open:
                robot.disconnect()


def main() -> None:
    """The command."""
    init_logging()
    run_command(lambda: control_robot(parse_control(sys.argv[1:])))


if __name__ == "__main__":
    main()
