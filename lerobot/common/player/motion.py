"""How smooth a motion is: the jump at the seam of two chunks, and jerk."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor


class MotionReport:
    """Collects what was sent and how far each new chunk lay from the one that it replaced.

    seam jump: largest difference over the joints (joint units) between a chunk's first played action and what would
    have been sent without it, which is the old chunk's next action, or its last one when none was left. jerk: root mean
    square of the third differences of what was sent (joint units per second cubed).
    """

    def __init__(self, fps: float):
        self.fps = fps
        self._seams: list[float] = []
        self._sent: list[np.ndarray] = []

    def seam(self, difference: Tensor) -> None:
        """A chunk was replaced; `difference` (..., A) between the two at this tick."""
        self._seams.append(float(difference.abs().max()))

    def sent(self, action: Tensor) -> None:
        """An action (..., A) was sent."""
        self._sent.append(action.detach().float().cpu().numpy())

    def summary(self) -> dict[str, Any]:
        """Seams, mean and largest seam jump, and jerk; None where there was too little motion."""
        seams = self._seams
        return {
            "seams": len(seams),
            "seam_jump": round(float(np.mean(seams)), 4) if seams else None,
            "seam_jump_max": round(max(seams), 4) if seams else None,
            "jerk": round(jerk(np.stack(self._sent), self.fps), 1) if len(self._sent) > 3 else None,
        }


def jerk(actions: np.ndarray, fps: float) -> float:
    """Root mean square third derivative of `actions` (T, ..., A), T of at least 4, in units per second cubed."""
    return float(np.sqrt(np.mean(np.square(np.diff(actions, n=3, axis=0)))) * fps**3)


def motion_line(report: dict[str, Any]) -> str:
    """A player's report in one line for the terminal."""
    jump = "none" if report["seam_jump"] is None else f"{report['seam_jump']:.2f} (max {report['seam_jump_max']:.2f})"
    smooth = "-" if report["jerk"] is None else f"{report['jerk']:.0f}"
    return (
        f"player {report['mode']}: {report['seams']} seams, jump {jump}, jerk {smooth}/s3, "
        f"{report['held']} ticks held, delay {report['delay_ticks']} ticks"
    )
