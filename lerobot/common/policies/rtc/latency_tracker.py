"""How long chunks took, as programs written for newer releases of LeRobot ask it.

`lerobot.common.player` estimates its delay by itself.
"""

from __future__ import annotations

from collections import deque

import numpy as np


class LatencyTracker:
    """The latest `maxlen` latencies in seconds, and the largest since the last reset; 0 before there is one."""

    def __init__(self, maxlen: int = 100):
        self._latest: deque[float] = deque(maxlen=maxlen)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._latest.clear()
        self._max = 0.0

    def add(self, latency: float) -> None:
        """One more; negative ones, of a clock that was set back, are left out. ValueError for what is no number."""
        seconds = float(latency)
        if seconds >= 0:
            self._latest.append(seconds)
            self._max = max(self._max, seconds)

    def __len__(self) -> int:
        return len(self._latest)

    def max(self) -> float:
        """The largest since the last reset, also when the latest ones are shorter."""
        return self._max

    def percentile(self, q: float) -> float:
        """The share `q` (0 to 1) of the latest ones took at most this long; from 1 on the largest since the reset."""
        if not self._latest:
            return 0.0
        return self._max if q >= 1 else float(np.quantile(self._latest, max(q, 0.0)))

    def p95(self) -> float:
        """95 % of the latest ones took at most this long."""
        return self.percentile(0.95)
