"""What every camera does: a thread keeps the newest picture and its time; one that is too old is never handed out."""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime, timezone

import cv2
import numpy as np

from lerobot.common.robot_devices.utils import DeviceAlreadyConnectedError, DeviceNotConnectedError

FIRST_PICTURE_S = 5.0
STUCK_S = 15.0  # a picture that takes longer does not come: the drivers give up before
RECONNECT_S = 0.5  # between tries to find a camera again
TURNS = {-90: cv2.ROTATE_90_COUNTERCLOCKWISE, 90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180}


class StaleFrameError(TimeoutError):
    """The newest picture is older than its limit: the camera is frozen, busy or unplugged."""


class Camera:
    """A source of uint8 (height, width, 3) pictures.

    Subclasses implement `_open`, `_grab` and `_release`; `_grab` gives RGB or raises OSError. `width` and `height` are
    those of the pictures handed out, after the rotation. `drops` counts pictures that came later than 1.5 periods.
    """

    def __init__(self, config, label: str):
        self.config, self.label = config, label
        self.fps, self.rotation = config.fps, getattr(config, "rotation", None)
        self.color_mode = getattr(config, "color_mode", "rgb")
        self.channels = 3
        self.width, self.height = self._turned(config.width, config.height)
        self.is_connected = False
        self.logs: dict = {}
        self.drops = self.frames = self.reconnects = 0
        self._thread: threading.Thread | None = None
        self._latest: tuple[np.ndarray, float] | None = None
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._failure = self._told = ""

    # -- for subclasses ------------------------------------------------------------------------------------------

    def _open(self) -> None:
        raise NotImplementedError

    def _grab(self) -> np.ndarray:
        raise NotImplementedError

    def _release(self) -> None:
        raise NotImplementedError

    def _turned(self, width, height):
        return (height, width) if self.rotation in (-90, 90) else (width, height)

    # -- public --------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open the camera; raises OSError or ValueError that says what to change."""
        if self.is_connected:
            raise DeviceAlreadyConnectedError(f"{self.label} is already connected.")
        self._open()
        self.is_connected = True

    def read(self, temporary_color_mode: str | None = None) -> np.ndarray:
        """Take a picture now; raises OSError."""
        self._require()
        start = time.perf_counter()
        mode = temporary_color_mode or self.color_mode
        if mode not in ("rgb", "bgr"):
            raise ValueError(f"color mode '{mode}': expected rgb or bgr.")
        picture = self._grab()
        if self.rotation in TURNS:
            picture = cv2.rotate(picture, TURNS[self.rotation])
        if (self.height, self.width) != picture.shape[:2]:
            raise OSError(f"{self.label} gave {picture.shape[1]}x{picture.shape[0]}, not {self.width}x{self.height}.")
        if mode == "bgr":
            picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        self.logs["delta_timestamp_s"] = time.perf_counter() - start
        self.logs["timestamp_utc"] = datetime.now(timezone.utc)
        return picture

    def async_read(self) -> np.ndarray:
        """The newest picture of the background thread; StaleFrameError if it is older than `max_age_ms`."""
        return self.read_latest()

    def read_latest(self, max_age_ms: float | None = None) -> np.ndarray:
        """The newest picture, at most `max_age_ms` (by default the configuration's) old; raises StaleFrameError."""
        self._require()
        self._start_thread()
        limit = self.config.max_age_ms if max_age_ms is None else max_age_ms
        with self._news:
            if self._latest is None:
                self._news.wait_for(lambda: self._latest is not None or self._stop.is_set(), FIRST_PICTURE_S)
            latest = self._latest
        if latest is None:
            raise StaleFrameError(f"{self.label} gave no picture within {FIRST_PICTURE_S:.0f} s. {self._failure}")
        age = (time.monotonic() - latest[1]) * 1000
        if age > limit:
            raise StaleFrameError(
                f"{self.label}: its newest picture is {age:.0f} ms old, at most {limit:.0f} ms are acted upon. "
                f"{self._failure or 'Is it frozen or busy?'}"
            )
        return latest[0]

    @property
    def age_ms(self) -> float:
        """Age of the newest picture in milliseconds; infinite before the first."""
        return float("inf") if self._latest is None else (time.monotonic() - self._latest[1]) * 1000

    def disconnect(self) -> None:
        """Stop the thread and close the camera."""
        self._require()
        self._stop.set()
        thread, self._thread, self.is_connected = self._thread, None, False
        if thread is not None:
            thread.join(STUCK_S)
            if thread.is_alive():  # releasing what it waits for would crash; it ends with the program
                logging.error("%s does not answer: it stays open until the program ends.", self.label)
                return
        self._release()
        self._latest = None
        self._stop.clear()

    def __del__(self):
        if getattr(self, "is_connected", False):
            self._stop.set()

    # -- the thread ----------------------------------------------------------------------------------------------

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        last = None
        while not self._stop.is_set():
            try:
                picture = self.read()
            except (OSError, cv2.error) as e:
                if not self._stop.is_set():  # closed while a picture was awaited: nothing is lost
                    self._lost(e)
                continue
            now = time.monotonic()
            if last is not None and self.fps and now - last > 1.5 / self.fps:
                self.drops += 1
            last = now
            self.frames += 1
            self._told = ""
            with self._news:
                self._latest = (picture, now)
                self._news.notify_all()

    def _lost(self, error: Exception) -> None:
        """A picture could not be taken: try to open the camera again until it comes back."""
        self._failure = str(error)
        level = logging.DEBUG if self._failure == self._told else logging.WARNING  # once, until pictures come again
        logging.log(level, "%s Trying to reconnect.", error if self.label in str(error) else f"{self.label}: {error}")
        self._told = self._failure
        while not self._stop.wait(RECONNECT_S):
            try:
                self._release()
                self._open()
            except (OSError, ValueError) as e:
                self._failure = str(e)
                continue
            self.reconnects += 1
            self._failure = ""
            return

    def _require(self) -> None:
        if not self.is_connected:
            raise DeviceNotConnectedError(f"{self.label} is not connected; call connect() first.")
