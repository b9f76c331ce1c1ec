"""How smooth a motion is: the jump at the seam of two chunks, and jerk."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from torch import Tensor


class MotionReport:
    """Adds up how rough what was sent is, and how far each new chunk lay from the one that it replaced.

    seam jump: largest difference over the joints (joint units) between a chunk's first played action and what would
    have been sent without it, which is the old chunk's next action, or its last one when none was left. jerk: root mean
    square of the third differences of what was sent (joint units per second cubed).
    """

    def __init__(self, fps: float):
        self.fps = fps
        self._seams, self._jumps, self._largest = 0, 0.0, 0.0
        self._sent: deque[np.ndarray] = deque(maxlen=4)
        self._jerks, self._squares = 0, 0.0

    def seam(self, difference: Tensor) -> None:
        """A chunk was replaced; `difference` (..., A) between the two at this tick."""
        jump = float(difference.abs().max())
        self._seams, self._jumps, self._largest = self._seams + 1, self._jumps + jump, max(self._largest, jump)

    def sent(self, action: Tensor) -> None:
        """An action (..., A) was sent."""
        self._sent.append(action.detach().cpu().double().numpy())
        if len(self._sent) == self._sent.maxlen:
            third = np.diff(np.stack(self._sent), n=3, axis=0)
            self._jerks, self._squares = self._jerks + third.size, self._squares + float(np.square(third).sum())

    def summary(self) -> dict[str, Any]:
        """Seams, mean and largest seam jump, and jerk; None where there was too little motion."""
        seams = self._seams
        return {
            "seams": seams,
            "seam_jump": round(self._jumps / seams, 4) if seams else None,
            "seam_jump_max": round(self._largest, 4) if seams else None,
            "jerk": round((self._squares / self._jerks) ** 0.5 * self.fps**3, 1) if self._jerks else None,
        }


def motion_line(report: dict[str, Any]) -> str:
    """A player's report in one line for the terminal."""
    jump = "none" if report["seam_jump"] is None else f"{report['seam_jump']:.2f} (max {report['seam_jump_max']:.2f})"
    smooth = "-" if report["jerk"] is None else f"{report['jerk']:.0f}"
    return (
        f"player {report['mode']}: {report['seams']} seams, jump {jump}, jerk {smooth}/s3, "
        f"{report['held']} ticks held, delay {report['delay_ticks']} ticks"
    )
