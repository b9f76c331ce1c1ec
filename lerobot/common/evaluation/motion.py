"""How the predicted motion would look on the arm: jumps between chunks, smoothness, when the gripper moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lerobot.common.evaluation.open_loop import OpenLoopReport

EVENT_MARGIN = 0.1  # of the gripper's range: it has to pass the middle by this much


@dataclass
class Motion:
    """What would be executed in an episode: each chunk up to where the next one starts. (F, A) at `frames` (F,)."""

    frames: np.ndarray
    predicted: np.ndarray
    recorded: np.ndarray


def executed(report: OpenLoopReport, episode: int) -> Motion:
    """The executed part of the chunks of an episode, in order."""
    chunks = np.flatnonzero(report.episode_index == episode)
    starts = report.frame_index[chunks]
    pieces = []
    for i, chunk in enumerate(chunks):
        steps = np.flatnonzero(report.valid[chunk])
        if i + 1 < len(chunks):
            steps = steps[steps < starts[i + 1] - starts[i]]
        pieces.append((starts[i] + steps, report.predicted[chunk, steps], report.recorded[chunk, steps]))
    return Motion(*(np.concatenate(parts) for parts in zip(*pieces, strict=True)))


def seam_jumps(report: OpenLoopReport) -> tuple[np.ndarray, np.ndarray]:
    """|first action of a chunk - last executed action of the one before| (K, A), predicted and recorded.

    What the recording does between the same two frames is what a jump has to be held against.
    """
    gap = np.diff(report.frame_index)
    met = (np.diff(report.episode_index) == 0) & (gap > 0) & (gap <= report.predicted.shape[1])
    first = np.flatnonzero(met)
    last_step = gap[first] - 1
    predicted, recorded = (np.abs(a[first + 1, 0] - a[first, last_step]) for a in (report.predicted, report.recorded))
    return predicted, recorded


def roughness(report: OpenLoopReport) -> tuple[float, float]:
    """Mean |second difference| of the actions inside chunks (per frame squared), predicted and recorded.

    Of chunks with fewer than three steps, that of the executed motion; NaN where that has fewer than three frames.
    """
    if report.predicted.shape[1] >= 3:
        whole = report.valid[:, 2:]
        if whole.any():
            parts = (np.abs(np.diff(a, 2, axis=1))[whole].mean() for a in (report.predicted, report.recorded))
            return tuple(float(part) for part in parts)
    motions = [executed(report, episode) for episode in sorted(set(report.episode_index.tolist()))]
    motions = [motion for motion in motions if len(motion.frames) > 2]
    if not motions:
        return np.nan, np.nan
    return tuple(
        float(np.mean([np.abs(np.diff(getattr(m, name), 2, axis=0)).mean() for m in motions]))
        for name in ("predicted", "recorded")
    )


@dataclass
class GripperEvent:
    """The gripper passes the middle of its range; `lag` is how many frames later the policy does it (None: never)."""

    episode: int
    frame: int
    opens: bool
    lag: int | None


def gripper_joint(joints: list[str]) -> int | None:
    """Which joint is the gripper, by its name."""
    return next((i for i, name in enumerate(joints) if "gripper" in name.lower()), None)


def gripper_events(report: OpenLoopReport, within: int) -> list[GripperEvent]:
    """Every closing and opening of the recorded gripper, with the nearest predicted one at most `within` frames away.

    Larger values mean open. Empty without a gripper, or if it does not move.
    """
    joint = gripper_joint(report.joints)
    if joint is None:
        return []
    values = report.recorded[..., joint][report.valid]
    middle, margin = (values.max() + values.min()) / 2, EVENT_MARGIN * (values.max() - values.min())
    if margin < 1e-6:
        return []
    found = []
    for episode in sorted(set(report.episode_index.tolist())):
        motion = executed(report, episode)
        predicted = crossings(motion.predicted[:, joint], middle, margin)
        for at, opens in crossings(motion.recorded[:, joint], middle, margin):
            frame = motion.frames[at]
            lags = [int(motion.frames[other] - frame) for other, same in predicted if same == opens]
            lags = [lag for lag in lags if abs(lag) <= within]
            found.append(GripperEvent(episode, int(frame), opens, min(lags, key=abs, default=None)))
    return found


def crossings(values: np.ndarray, middle: float, margin: float) -> list[tuple[int, bool]]:
    """(index, upwards) wherever a series passes `middle` and goes on beyond `margin` on the other side."""
    events, side, last_middle = [], None, 0
    for i, value in enumerate(values):
        if i and (values[i - 1] - middle) * (value - middle) <= 0:
            last_middle = i
        now = True if value > middle + margin else False if value < middle - margin else side
        if side is not None and now != side:
            events.append((last_middle, now))
        side = now
    return events


def error_at_events(report: OpenLoopReport, events: list[GripperEvent], radius: int) -> tuple[float, float]:
    """Mean error of the executed actions within `radius` frames of a gripper event, and elsewhere."""
    near, far = [], []
    for episode in sorted(set(report.episode_index.tolist())):
        motion = executed(report, episode)
        error = np.abs(motion.predicted - motion.recorded).mean(axis=1)
        at = np.array([event.frame for event in events if event.episode == episode])
        close = (np.abs(motion.frames[:, None] - at) <= radius).any(axis=1)
        near.append(error[close])
        far.append(error[~close])
    near, far = np.concatenate(near), np.concatenate(far)
    return (float(near.mean()) if len(near) else np.nan, float(far.mean()) if len(far) else np.nan)
