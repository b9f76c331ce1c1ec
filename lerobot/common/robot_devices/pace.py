"""How fast a control loop runs, and the live line that shows it."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import deque

import numpy as np

LINE_S = 0.2  # between two live lines
WIDTH = 200  # columns of a terminal that does not say
CLEAR_LINE = "\r\x1b[2K"
KEPT = 20_000  # periods of 11 minutes at 30 Hz; a longer run needs no more memory
LOG_S = 5.0  # between two lines of the log where there is no terminal


class Pace:
    """Periods of the ticks of one loop, in seconds: all of them in sums, the latest `KEPT` one by one."""

    def __init__(self, fps: float | None):
        self.fps = fps
        self.count, self.latest, self.worst = 0, 0.0, 0.0  # periods, the last one, the longest
        self.late = 0  # ticks whose work took longer than the period
        self.held = 0  # times that the arm held because a picture was too old
        self._sum, self._kept = 0.0, deque(maxlen=KEPT)
        self._last: float | None = None

    def tick(self, now: float, work_s: float) -> None:
        """One tick started at `now`; its work took that long."""
        if self._last is not None:
            self.latest = now - self._last
            self.count += 1
            self.worst = max(self.worst, self.latest)
            self._sum += self.latest
            self._kept.append(self.latest)
        self._last = now
        self.late += bool(self.fps) and work_s > 1 / self.fps

    @property
    def mean(self) -> float:
        """Seconds of a period; of at least one."""
        return self._sum / self.count

    def summary(self) -> dict[str, float]:
        """Mean and worst rate of all ticks (Hz), and the period that 99 % of the latest `KEPT` keep to (ms)."""
        if not self.count:
            return {"ticks": 0}
        return {
            "ticks": self.count + 1,
            "mean_hz": round(1 / self.mean, 2),
            "worst_hz": round(1 / self.worst, 2),
            "p99_ms": round(float(np.percentile(self._kept, 99) * 1000), 2),
            "late": self.late,
        }


class LiveLine:
    """One line in the terminal: loop rate, age of each picture, targets against limits, latency by stage."""

    def __init__(self, robot, stream=None, budget=None):
        self._robot, self._stream, self._budget = robot, stream or sys.stderr, budget
        self._live = self._stream.isatty()
        self._next = 0.0
        self._handlers = logging.getLogger().handlers if self._live else []
        for handler in self._handlers:
            handler.addFilter(self._make_room)

    def show(self, pace: Pace) -> None:
        """Draw the line if it is time."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (LINE_S if self._live else LOG_S)
        text = self.text(pace)
        if self._live:
            self._stream.write(CLEAR_LINE + text[: self._width() - 1])  # one that wraps cannot be drawn over
            self._stream.flush()
        elif pace.count:
            logging.info("%s", text)

    def text(self, pace: Pace) -> str:
        """The line: `30.0 Hz (mean 30.0, worst 28.9) | laptop 12 ms | safety 2x | pan 54% lift 93% ...`"""
        parts = []
        if pace.count:
            parts.append(f"{1 / pace.latest:.1f} Hz (mean {1 / pace.mean:.1f}, worst {1 / pace.worst:.1f})")
        ages = [f"{name} {camera.age_ms:.0f} ms" for name, camera in self._robot.cameras.items()]
        parts += [" ".join(ages)] if ages else []
        count = sum(sum(envelope.counts.values()) for envelope in self._robot.envelopes.values())
        parts += [f"safety {count}x"] if count else []
        parts += [_joints(envelope) for envelope in self._robot.envelopes.values()]
        parts += [self._budget.line()] if self._budget else []
        return " | ".join(parts)

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or WIDTH
        except (OSError, ValueError):  # no terminal of the system's
            return WIDTH

    def end(self) -> None:
        """Leave the line standing."""
        for handler in self._handlers:
            handler.removeFilter(self._make_room)
        self._handlers = []
        if self._live:
            self._stream.write("\n")
            self._stream.flush()

    def _make_room(self, _record) -> bool:
        """A message of the log takes the place of the line, which comes again below it."""
        self._stream.write(CLEAR_LINE)
        self._stream.flush()
        self._next = 0.0
        return True


def _joints(envelope) -> str:
    """Where each target is within its range (0 to 100 %), and how often the envelope stepped in."""
    limits, shares = envelope.limits, []
    for name, value, low, high in zip(limits.names, envelope.commanded, limits.low, limits.high, strict=True):
        shares.append(
            f"{name.removeprefix('shoulder_').removesuffix('_flex')} {100 * (value - low) / (high - low):.0f}%"
        )
    return " ".join(shares)


def log_control_info(robot, dt_s: float, episode_index=None, frame_index=None, fps=None) -> None:
    """The log line of LeRobot 0.1: duration and rate of the loop and of each device; yellow where too slow."""
    items = []
    if episode_index is not None:
        items.append(f"ep:{episode_index}")
    if frame_index is not None:
        items.append(f"frame:{frame_index}")

    def add(name: str, seconds: float) -> None:
        text = f"{name}:{seconds * 1000:5.2f} ({1 / seconds if seconds else 0:3.1f}hz)"
        slow = fps is not None and seconds and 1 / seconds < fps - 1
        items.append(f"\x1b[33m{text}\x1b[0m" if slow else text)

    add("dt", dt_s)
    names = {"read_leader_": "dtRlead", "write_follower_": "dtWfoll", "read_follower_": "dtRfoll"}
    for key, seconds in robot.logs.items():
        for start, name in names.items():
            if key.startswith(start):
                add(name, seconds)
        if key.startswith("read_camera_"):
            add(f"dtR{key.removeprefix('read_camera_').removesuffix('_dt_s')}", seconds)
    logging.info(" ".join(items))
