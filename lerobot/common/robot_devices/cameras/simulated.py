"""Cameras of the simulated arm."""

from __future__ import annotations

import time

import numpy as np

from lerobot.common.robot_devices.cameras.base import Camera
from lerobot.common.robot_devices.cameras.configs import SimCameraConfig


class SimCamera(Camera):
    """A camera of a `TwinProcess`, which the robot hands over as `twin`.

    In lockstep there is no thread: a picture is drawn when asked for, so that it shows the present frame.
    """

    def __init__(self, config: SimCameraConfig):
        super().__init__(config, f"Simulated camera '{config.name}'")
        self.twin = None
        self._next = 0.0

    def _open(self) -> None:
        if self.twin is None:
            raise ValueError("A camera of type sim belongs to a simulated arm: use --robot.type=koch_sim.")
        self._next = time.monotonic()

    def _grab(self) -> np.ndarray:
        return self.twin.picture(self.config.name)[0]

    def _release(self) -> None:
        pass

    def read(self, temporary_color_mode: str | None = None) -> np.ndarray:
        """A picture, at the camera's own rate while time is real."""
        if self.twin is not None and self.twin.time == "realtime" and self._thread is not None:
            self._next = max(self._next + 1 / self.fps, time.monotonic() - 1 / self.fps)
            self._stop.wait(max(0.0, self._next - time.monotonic()))
        try:
            return super().read(temporary_color_mode)
        except RuntimeError as e:
            raise OSError(str(e)) from e

    def read_latest(self, max_age_ms: float | None = None) -> np.ndarray:
        """The newest picture; in lockstep the one of this frame."""
        if self.twin is not None and self.twin.time == "lockstep":
            self._require()
            picture = self.read()
            self._latest = (picture, time.monotonic())
            self.frames += 1
            return picture
        return super().read_latest(max_age_ms)
