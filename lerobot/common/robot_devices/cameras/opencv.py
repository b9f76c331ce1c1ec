"""Cameras through OpenCV: a number, a device path, a video file or a URL."""

from __future__ import annotations

import logging
import os
import platform
import time
from pathlib import Path

import cv2
import numpy as np

from lerobot.common.robot_devices.cameras.base import Camera
from lerobot.common.robot_devices.cameras.configs import OpenCVCameraConfig

MOST_INDICES = 60
TOLERANCE = 1e-3  # between the rate asked for and the rate given
MOCK_SIZE = (640, 480)
MOCK_FPS = 30
if "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # that a camera does not open is told here


class OpenCVCamera(Camera):
    """A camera that OpenCV opens.

    A file is played at its own rate, from the start again at its end, so that a recording can stand in for a camera.
    """

    def __init__(self, config: OpenCVCameraConfig):
        super().__init__(config, f"Camera '{config.camera_index}'")
        self.camera_index = config.camera_index
        self._capture: cv2.VideoCapture | None = None
        self._is_file = isinstance(config.camera_index, str) and Path(config.camera_index).is_file()
        self._next = 0.0
        if config.mock:
            self.fps = config.fps or MOCK_FPS
            self.width, self.height = self._turned(config.width or MOCK_SIZE[0], config.height or MOCK_SIZE[1])

    def _open(self) -> None:
        if self.config.mock:
            self._noise = np.random.default_rng(0)
            return
        cv2.setNumThreads(1)
        source = self.camera_index
        capture = cv2.VideoCapture(source, _backend() if _is_device(source) else cv2.CAP_ANY)
        if not capture.isOpened():
            capture.release()
            raise _why_not_opened(source)
        try:
            self._configure(capture)
        except OSError:
            capture.release()
            raise
        self._capture, self._next = capture, time.monotonic()

    def _configure(self, capture: cv2.VideoCapture) -> None:
        config = self.config
        if config.fourcc and not self._is_file:
            code = cv2.VideoWriter_fourcc(*config.fourcc)
            if not capture.set(cv2.CAP_PROP_FOURCC, code) or int(capture.get(cv2.CAP_PROP_FOURCC)) != code:
                logging.warning("%s does not offer fourcc=%s and keeps its own format.", self.label, config.fourcc)
        wanted = {"fps": (cv2.CAP_PROP_FPS, config.fps)}
        wanted["width"] = (cv2.CAP_PROP_FRAME_WIDTH, config.width)
        wanted["height"] = (cv2.CAP_PROP_FRAME_HEIGHT, config.height)
        given = {}
        for name, (prop, value) in wanted.items():
            if value is not None and not self._is_file:
                capture.set(prop, value)
            given[name] = capture.get(prop)
            if value is not None and abs(given[name] - value) > TOLERANCE * value:
                raise OSError(
                    f"{self.label} gives {name} {given[name]:g}, asked for was {value}: set {name}={given[name]:g}, or "
                    "another size or rate that the camera offers (v4l2-ctl --list-formats-ext)."
                )
        self.fps = round(given["fps"]) or None
        self.width, self.height = self._turned(round(given["width"]), round(given["height"]))

    def _grab(self) -> np.ndarray:
        if self.config.mock:
            height, width = self._turned(self.height, self.width)
            self._pause(self.fps)
            return self._noise.integers(0, 256, (height, width, 3), dtype=np.uint8)
        if self._capture is None:
            raise OSError(f"{self.label} is closed.")
        if self._is_file:
            self._pause(self.fps or MOCK_FPS)
        done, picture = self._capture.read()
        if not done and self._is_file:
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            done, picture = self._capture.read()
        if not done:
            raise OSError(f"{self.label} gives no pictures any more: check its cable.")
        return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)

    def _pause(self, fps: float) -> None:
        now = time.monotonic()
        self._next = max(self._next + 1 / fps, now)
        self._stop.wait(self._next - now)

    def _release(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def find_cameras() -> list[int | str]:
    """What OpenCV can open here: device paths on Linux, numbers elsewhere."""
    if platform.system() == "Linux":
        candidates = [str(path) for path in sorted(Path("/dev").glob("video*"))]
    else:
        candidates = list(range(MOST_INDICES))
    return [candidate for candidate in candidates if _opens(candidate)]


def _opens(source: int | str) -> bool:
    capture = cv2.VideoCapture(source, _backend())
    opened = capture.isOpened()
    capture.release()
    return opened


def _is_device(source: int | str) -> bool:
    return isinstance(source, int) or str(source).startswith("/dev/")


def _backend() -> int:
    names = {"Linux": cv2.CAP_V4L2, "Windows": cv2.CAP_DSHOW, "Darwin": cv2.CAP_AVFOUNDATION}
    return names.get(platform.system(), cv2.CAP_ANY)


def _why_not_opened(source: int | str) -> Exception:
    path = Path(f"/dev/video{source}") if isinstance(source, int) else Path(str(source))
    if platform.system() == "Linux" and path.exists():
        return OSError(f"Camera '{source}' cannot be opened: close the program that uses it (fuser {path}).")
    found = ", ".join(map(str, find_cameras())) or "none"
    return ValueError(
        f"There is no camera '{source}'; found: {found}. Set camera_index to one of them; "
        "python lerobot/scripts/find_cameras.py saves a picture of each."
    )


if __name__ == "__main__":  # as LeRobot 0.1 had it
    from lerobot.scripts.find_cameras import legacy_main

    legacy_main()
