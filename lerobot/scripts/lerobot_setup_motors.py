"""Give the motors of a new arm their ids and baud rate, one after the other, with the flags of newer LeRobot releases.

lerobot-setup-motors --robot.type=koch_follower --robot.port=/dev/ttyACM0     # or --teleop.type=koch_leader ...
One motor at any time: python lerobot/scripts/configure_motor.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from lerobot.common.robot_devices.robots.configs import FOLLOWER_MODELS, LEADER_MODELS, koch_motors
from lerobot.common.utils.utils import run_command
from lerobot.configs.parser import split_arguments
from lerobot.scripts.configure_motor import configure_motor

ARMS = {"robot": ("koch_follower", FOLLOWER_MODELS), "teleop": ("koch_leader", LEADER_MODELS)}


def setup_motors(port: str, models: tuple[str, ...], ask: Callable[[str], object] | None = None) -> None:
    """From the gripper to the base: ask for each motor to be the only one connected, and configure it."""
    ask = ask or input
    for name, (motor, model) in reversed(koch_motors(models).items()):
        ask(f"Connect only the motor '{name}' ({model}) to the board and press Enter.")
        configure_motor(port, model, motor)


def parse(argv: list[str]) -> tuple[str, tuple[str, ...]]:
    """Port and motor models of a command line; ValueError."""
    given = dict(split_arguments(argv))
    kinds = [kind for kind in ARMS if f"{kind}.type" in given]
    if len(kinds) != 1:
        raise ValueError("Name one arm: --robot.type=koch_follower or --teleop.type=koch_leader, with its port.")
    (kind,) = kinds
    expected, models = ARMS[kind]
    if given[f"{kind}.type"] != expected:
        raise ValueError(f"--{kind}.type={given[f'{kind}.type']}: this project drives Koch arms; expected {expected}.")
    if not given.get(f"{kind}.port"):
        raise ValueError(f"Name the port: --{kind}.port=/dev/ttyACM0 (lerobot-find-port finds it).")
    if unknown := sorted(set(given) - {f"{kind}.{name}" for name in ("type", "port", "id")}):
        raise ValueError(f"--{unknown[0]} is not a flag of this command; expected --{kind}.type and --{kind}.port.")
    return given[f"{kind}.port"], models


def main() -> None:
    """The command."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    run_command(lambda: setup_motors(*parse(sys.argv[1:])))


if __name__ == "__main__":
    main()
