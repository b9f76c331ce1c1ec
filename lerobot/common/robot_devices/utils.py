"""Errors, clocks and small helpers that every device shares."""

from __future__ import annotations

import platform
import time

from lerobot.common.utils.user_errors import UserError


class DeviceNotConnectedError(ConnectionError):
    """A device is used before `connect()`."""

    def __init__(self, message: str = "This device is not connected; call connect() first."):
        super().__init__(message)


class DeviceAlreadyConnectedError(ConnectionError):
    """A device is connected a second time."""

    def __init__(self, message: str = "This device is already connected; connect() is called once."):
        super().__init__(message)


class DeviceError(UserError):
    """A device refuses what it was told, or what watches over it is gone."""


RobotDeviceNotConnectedError = DeviceNotConnectedError  # the names of the legacy layout
RobotDeviceAlreadyConnectedError = DeviceAlreadyConnectedError

SPIN_S = 0.005  # the last stretch of a wait where the system's sleep is coarse


def busy_wait(seconds: float) -> None:
    """Wait that many seconds (nothing if negative), to the millisecond on every system."""
    if seconds <= 0:
        return
    if platform.system() == "Linux":
        time.sleep(seconds)
        return
    deadline = time.perf_counter() + seconds
    if seconds > 2 * SPIN_S:
        time.sleep(seconds - SPIN_S)
    while time.perf_counter() < deadline:
        pass


class RealClock:
    """Time as it passes."""

    lockstep = False

    def now(self) -> float:
        """Seconds, monotonic."""
        return time.perf_counter()

    def wait(self, seconds: float) -> None:
        """Sleep."""
        busy_wait(seconds)
