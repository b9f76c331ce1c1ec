"""Move the leader through everything that the follower shall do, and read how far each joint went.

lerobot-find-joint-limits --robot.type=koch_follower --robot.port=/dev/ttyACM0 --teleop.type=koch_leader \\
    --teleop.port=/dev/ttyACM1 --teleop_time_s=30

Flags as of `lerobot-teleoperate`. The numbers are joint values in the units of the follower's calibration.
"""

from __future__ import annotations

import sys

import numpy as np

from lerobot.common.robot_devices import recording
from lerobot.common.robot_devices.control_configs import TeleoperateControlConfig, parse_control
from lerobot.common.robot_devices.newer_flags import translate
from lerobot.common.utils.utils import init_logging, run_command
from lerobot.scripts.control_robot import control_robot

DEFAULT_S = 30.0


class Reach:
    """How far each joint of the followers went, (S,) each."""

    def __init__(self):
        self.low, self.high = np.inf, -np.inf

    def see(self, positions: np.ndarray) -> None:
        """Positions of a moment, (S,)."""
        self.low, self.high = np.minimum(self.low, positions), np.maximum(self.high, positions)

    def table(self, names: list[str]) -> str:
        """A line per joint."""
        width = max(map(len, names))
        rows = zip(names, np.atleast_1d(self.low), np.atleast_1d(self.high), strict=True)
        lines = [f"{name:<{width}}  {low:8.1f}  {high:8.1f}" for name, low, high in rows]
        return "\n".join([f"{'joint':<{width}}  {'lowest':>8}  {'highest':>8}", *lines])


def find_joint_limits(robot, cfg: TeleoperateControlConfig) -> Reach:
    """Teleoperate, then print the lowest and highest value of each joint of the followers."""
    reach = Reach()
    recording.teleoperate(robot, cfg, lambda: reach.see(robot.follower_positions()))
    print(reach.table(robot.motor_features["action"]["names"]), flush=True)
    return reach


def main() -> None:
    """The command."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    init_logging()

    def run() -> None:
        cfg = parse_control(translate("teleoperate", sys.argv[1:]))
        cfg.control.teleop_time_s = cfg.control.teleop_time_s or DEFAULT_S
        control_robot(cfg, find_joint_limits)

    run_command(run)


if __name__ == "__main__":
    main()
