"""Small things for scripts at a terminal: keys, the cursor, elapsed time."""

from __future__ import annotations

import logging
import select
import sys
import time
from contextlib import AbstractContextManager

import numpy as np


def enter_pressed() -> bool:
    """Whether Enter was pressed since the last call; does not wait."""
    ready = select.select([sys.stdin], [], [], 0)[0]
    return bool(ready) and sys.stdin.readline().strip() == ""


def move_cursor_up(lines: int) -> None:
    """Move the cursor up, to write over what was printed."""
    print(f"\033[{lines}A", end="")


def get_elapsed_time_in_days_hours_minutes_seconds(elapsed_time_s: float) -> tuple[int, int, int, float]:
    """Seconds as (days, hours, minutes, seconds)."""
    minutes, seconds = divmod(elapsed_time_s, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (*divmod(hours, 24), minutes, seconds)


class SuppressProgressBars(AbstractContextManager):
    """No tqdm bars of huggingface_hub inside the block."""

    def __enter__(self) -> None:
        from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars

        self.were_off = are_progress_bars_disabled()
        disable_progress_bars()

    def __exit__(self, *_) -> None:
        from huggingface_hub.utils import enable_progress_bars

        if not self.were_off:
            enable_progress_bars()


class TimerManager(AbstractContextManager):
    """Times a block, or start() to stop(), again and again; `history` holds the seconds."""

    def __init__(self, label: str = "Elapsed-time", log: bool = True, logger: logging.Logger | None = None):
        self.label, self.log, self.logger = label, log, logger or logging.getLogger(__name__)
        self.history: list[float] = []
        self._start: float | None = None

    def start(self) -> TimerManager:
        """Start the clock."""
        self._start = time.perf_counter()
        return self

    def stop(self) -> float:
        """Stop the clock and return the seconds. Raises RuntimeError if it is not running."""
        if self._start is None:
            raise RuntimeError("The timer was never started.")
        self.history.append(time.perf_counter() - self._start)
        self._start = None
        if self.log:
            self.logger.info("%s: %.6f s", self.label, self.last)
        return self.last

    def reset(self) -> None:
        """Forget every time."""
        self.history.clear()

    def __enter__(self) -> TimerManager:
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    @property
    def last(self) -> float:
        """The last time; 0 before the first."""
        return self.history[-1] if self.history else 0.0

    @property
    def count(self) -> int:
        """How many times were taken."""
        return len(self.history)

    @property
    def total(self) -> float:
        """Their sum."""
        return sum(self.history)

    @property
    def avg(self) -> float:
        """Their mean; 0 before the first."""
        return self.total / self.count if self.history else 0.0

    def percentile(self, p: float) -> float:
        """Their p-th percentile."""
        return float(np.percentile(self.history, p)) if self.history else 0.0

    @property
    def fps_last(self) -> float:
        """1 / last."""
        return 1.0 / self.last if self.last else 0.0

    @property
    def fps_avg(self) -> float:
        """1 / avg."""
        return 1.0 / self.avg if self.avg else 0.0

    def fps_percentile(self, p: float) -> float:
        """1 / percentile."""
        value = self.percentile(p)
        return 1.0 / value if value else 0.0
