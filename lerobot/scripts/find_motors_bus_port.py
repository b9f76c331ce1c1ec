"""Find the port of an arm: unplug it when asked, and see which port goes away.

python lerobot/scripts/find_motors_bus_port.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

from lerobot.common.utils.utils import run_command

SETTLE_S = 0.5


def find_available_ports() -> list[str]:
    """The serial devices of this machine."""
    from lerobot.common.robot_devices.motors.dynamixel_port import available_ports, import_sdk

    import_sdk()
    return available_ports()


def find_port(ask: Callable[[str], object] | None = None, ports: Callable[[], list[str]] | None = None) -> str:
    """The port that goes away when the arm is unplugged; OSError if none or several do."""
    ask, ports = ask or input, ports or find_available_ports
    before = ports()
    print(f"Serial ports: {', '.join(before) or 'none'}")
    ask("Unplug the arm's USB cable and press Enter.")
    time.sleep(SETTLE_S)  # the system needs a moment to notice
    gone = sorted(set(before) - set(ports()))
    if not gone:
        raise OSError("No port went away: was the arm's own cable unplugged? Plug it in and try again.")
    if len(gone) > 1:
        raise OSError(f"{len(gone)} ports went away ({', '.join(gone)}), expected one: plug all in and try again.")
    print(f"The arm's port is {gone[0]}. Plug it in again.")
    return gone[0]


def main() -> None:
    """The command."""
    run_command(find_port)


if __name__ == "__main__":
    main()
