"""Where the time between looking and moving goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

KEPT = 20_000  # latest durations of a stage: of 11 minutes at 30 Hz; a longer run needs no more memory
STAGES = ("capture", "transport", "preprocess", "model", "postprocess", "send")


class LatencyBudget:
    """Durations of each stage; threads may add at the same time."""

    def __init__(self):
        self.clear()

    def add(self, stage: str, seconds: float) -> None:
        """One more duration of one of `STAGES`."""
        self._seconds[stage][self._counts[stage] % KEPT] = seconds  # the oldest makes room
        self._counts[stage] += 1

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the duration of this block."""
        start = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - start)

    def clear(self) -> None:
        """Begin anew."""
        self._seconds = {stage: np.empty(KEPT) for stage in STAGES}
        self._counts = dict.fromkeys(STAGES, 0)

    def summary(self) -> dict[str, dict[str, float]]:
        """Per stage that was measured: `p50_ms` and `p99_ms` of the latest `KEPT`, and how often in all, `n`."""
        found = {}
        for stage, count in self._counts.items():
            if count:
                p50, p99 = np.percentile(self._seconds[stage][:count], (50, 99)) * 1000
                found[stage] = {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2), "n": count}
        return found

    def line(self) -> str:
        """`capture 4/6 model 181/207 send 1/2 ms (p50/p99)`; empty before anything was measured."""
        parts = [f"{stage} {s['p50_ms']:.0f}/{s['p99_ms']:.0f}" for stage, s in self.summary().items()]
        return f"{' '.join(parts)} ms (p50/p99)" if parts else ""
