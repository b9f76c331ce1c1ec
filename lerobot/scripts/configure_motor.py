"""Give a motor its id and baud rate; exactly one motor is connected meanwhile.

python lerobot/scripts/configure_motor.py --port=/dev/ttyACM0 --brand=dynamixel --model=xl330-m288 --ID=3

With --answer_all instead, every motor of an arm is told to answer again (Status_Return_Level 2).
"""

from __future__ import annotations

import argparse

from lerobot.common.robot_devices.motors.control_table import (
    ANSWER_ALL,
    BAUD_RATES,
    CONTROL_TABLE,
    DEFAULT_BAUD_RATE,
    MODELS,
)
from lerobot.common.robot_devices.motors.dynamixel_port import DynamixelPort
from lerobot.common.utils.utils import run_command

SCANNED_IDS = range(1, 10)
MOST_ID = 252


def find_motor(port: DynamixelPort) -> tuple[int, int]:
    """(baud rate, id) of the one motor that answers; OSError if none or several do."""
    found = []
    for rate in sorted(BAUD_RATES, key=lambda rate: rate != port.baud_rate):
        port.set_baud_rate(rate)
        found += [(rate, motor) for motor in SCANNED_IDS if port.ping(motor, tries=1) is not None]
        if found:
            break
    if not found:
        raise OSError(f"No motor answers on '{port.path}' at any rate: is its power on, and its id one of 1 to 9?")
    if len(found) > 1:
        raise OSError(f"{len(found)} motors answer ({found}), expected one: connect only the motor to be configured.")
    port.set_baud_rate(found[0][0])
    return found[0]


def configure_motor(path: str, model: str, motor: int, baud_rate: int = DEFAULT_BAUD_RATE) -> None:
    """Set id and baud rate of the one motor on a port, and read both back; OSError, ValueError."""
    if baud_rate not in BAUD_RATES:
        raise ValueError(f"--baudrate={baud_rate}: expected one of {', '.join(map(str, BAUD_RATES))}.")
    if not 0 <= motor <= MOST_ID:
        raise ValueError(f"--ID={motor}: expected 0 to {MOST_ID}.")
    port = DynamixelPort(path, DEFAULT_BAUD_RATE)
    port.open()
    try:
        rate, old = find_motor(port)
        number = port.ping(old)
        if number != MODELS[model].number:
            raise ValueError(f"The motor has model number {number}, a {model} has {MODELS[model].number}.")
        port.write(old, *CONTROL_TABLE["Torque_Enable"], 0)
        port.write(old, *CONTROL_TABLE["ID"], motor)
        port.write(motor, *CONTROL_TABLE["Baud_Rate"], BAUD_RATES.index(baud_rate))
        port.set_baud_rate(baud_rate)
        stored = port.sync_read(*CONTROL_TABLE["ID"], [motor])[0][0]
        if stored != motor:
            raise OSError(f"The motor stores id {stored}, expected {motor}: try again.")
        print(f"Motor {model}: id {old} -> {motor}, {rate} -> {baud_rate} baud.")
    finally:
        port.close()


def answer_all(path: str, baud_rate: int = DEFAULT_BAUD_RATE) -> list[int]:
    """Set Status_Return_Level of every motor on a port to 2, and read it back; their ids. OSError."""
    port, register = DynamixelPort(path, baud_rate), CONTROL_TABLE["Status_Return_Level"]
    port.open()
    try:
        found = [motor for motor in SCANNED_IDS if port.ping(motor, tries=2) is not None]
        if not found:
            raise OSError(f"No motor answers on '{path}' at {baud_rate} baud: is the arm's power on?")
        port.sync_write(*register, dict.fromkeys(found, ANSWER_ALL))  # one that is silent acknowledges nothing
        levels = [block[0] for block in port.sync_read(*register, found)]
        if set(levels) != {ANSWER_ALL}:
            raise OSError(f"The motors {found} have Status_Return_Level {levels}, expected {ANSWER_ALL}: try again.")
        print(f"Motors {found} answer every instruction.")
        return found
    finally:
        port.close()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", required=True)
    parser.add_argument("--brand", choices=("dynamixel",), default="dynamixel")
    parser.add_argument("--model", choices=sorted(MODELS))
    parser.add_argument("--ID", type=int)
    parser.add_argument("--baudrate", type=int, default=DEFAULT_BAUD_RATE)
    parser.add_argument("--answer_all", action="store_true", help="make every motor of an arm answer again")
    args = parser.parse_args()
    if args.answer_all:
        run_command(lambda: answer_all(args.port, args.baudrate))
        return
    if args.model is None or args.ID is None:
        parser.error("--model and --ID are needed to configure a motor")
    run_command(lambda: configure_motor(args.port, args.model, args.ID, args.baudrate))


if __name__ == "__main__":
    main()
