"""Guards for the methods of a device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from lerobot.common.robot_devices.utils import DeviceAlreadyConnectedError, DeviceNotConnectedError

F = TypeVar("F", bound=Callable[..., Any])


def check_if_not_connected(method: F) -> F:
    """Let a method raise DeviceNotConnectedError while `self.is_connected` is false."""

    @functools.wraps(method)
    def guarded(self, *args, **kwargs):
        if not self.is_connected:
            raise DeviceNotConnectedError(
                f"{type(self).__name__} is not connected. Run `.connect()` first, before `{method.__name__}`."
            )
        return method(self, *args, **kwargs)

    return guarded


def check_if_already_connected(method: F) -> F:
    """Let a method raise DeviceAlreadyConnectedError while `self.is_connected` is true."""

    @functools.wraps(method)
    def guarded(self, *args, **kwargs):
        if self.is_connected:
            raise DeviceAlreadyConnectedError(f"{type(self).__name__} is already connected.")
        return method(self, *args, **kwargs)

    return guarded
