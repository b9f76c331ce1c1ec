"""Checks of the numbers of a dataset: time, indices, tasks, joints.

An `Episode` has the columns of one episode as arrays; thresholds are fractions of a joint's range in the whole
dataset, so that they hold for any unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lerobot.common.checks.finding import Finding, Where

STILL_STEP = 0.002  # of the range: a joint that moves less per frame stands still
STILL_S = 0.5  # seconds of standing still that count
IDLE_S = 1.5  # idle beginnings and ends that are worth cutting
OFFSET = 0.03  # of the range: leader and follower differ while both stand still
JUMP = 0.25  # of the range within one frame, and
JUMP_OVER_USUAL = 10.0  # times the step that 90 % of the frames stay below
SATURATED = 0.2  # of all frames exactly at the largest or smallest value
ROBOT_KEYS = ("observation.state", "action")


@dataclass(frozen=True)
class Episode:
    """Columns of one episode, (T,) or (T, D); `first` is its number of frames before it."""

    index: int
    first: int
    columns: dict[str, np.ndarray]
    tasks: list[str]

    def __len__(self) -> int:
        return len(self.columns["timestamp"])


def check_time(episode: Episode, fps: float, tolerance_s: float) -> Iterator[Finding]:
    """Successive timestamps are 1/fps apart and start at 0; the counters count."""
    times = episode.columns["timestamp"].astype(np.float64)
    errors = np.abs(times - np.arange(len(times)) / fps)
    slack = tolerance_s + np.spacing(np.float32(times.max(initial=0)))
    if (errors > slack).any():
        frame = int(np.argmax(errors > slack))
        evidence = {"expected": frame / fps, "found": float(times[frame]), "frames": int((errors > slack).sum())}
        text = f"The timestamp is {times[frame]:.4f} s; frame_index/fps is {frame / fps:.4f} s."
        yield Finding("time.timestamp", "error", text, Where(episode.index, frame), evidence)
    expected = {"frame_index": np.arange(len(times)), "index": episode.first + np.arange(len(times))}
    for key, numbers in expected.items():
        if (wrong := episode.columns[key] != numbers).any():
            frame = int(np.argmax(wrong))
            text = f"The column '{key}' has {int(episode.columns[key][frame])}, expected {int(numbers[frame])}."
            yield Finding(f"time.{key}", "error", text, Where(episode.index, frame))


def check_tasks(episode: int, tasks: Sequence[str]) -> Iterator[Finding]:
    """Every episode says what is done in it."""
    if not any(task.strip() for task in tasks):
        text = "The episode has no task text; policies that read language learn nothing from it."
        yield Finding("task.missing", "warning", text, Where(episode))


def check_length(episode: Episode, chunk: int) -> Iterator[Finding]:
    """Episodes hold at least one whole chunk."""
    if len(episode) < chunk:
        text = f"{len(episode)} frames, fewer than a chunk of {chunk}: every chunk of it is padded."
        yield Finding("episode.short", "warning", text, Where(episode.index), {"frames": len(episode), "chunk": chunk})


def joint_range(episodes: Sequence[Episode], key: str) -> np.ndarray:
    """Largest minus smallest value per joint over all episodes, at least a tiny number."""
    low = np.min([e.columns[key].min(axis=0) for e in episodes], axis=0)
    high = np.max([e.columns[key].max(axis=0) for e in episodes], axis=0)
    return np.maximum(high - low, 1e-9).astype(np.float64)


def check_joints(episodes: Sequence[Episode], key: str, names: list[str]) -> Iterator[Finding]:
    """Constant and saturated joints, over the whole dataset."""
    values = np.concatenate([e.columns[key] for e in episodes])
    reached = _reached(episodes, key)
    for joint, name in enumerate(names):
        column = values[:, joint]
        where = Where(feature=f"{key}[{name}]")
        low, high = column.min(), column.max()
        if low == high:
            text = f"Joint '{name}' has the value {low:.6g} in every frame."
            yield Finding("joint.constant", "warning", text, where, {"value": float(low)})
            continue
        slack = OFFSET * (high - low)
        for bound, passed in ((low, reached[0][joint] < low - slack), (high, reached[1][joint] > high + slack)):
            share = (column == bound).mean()
            if share > SATURATED and not passed:
                text = f"Joint '{name}' is exactly {bound:.6g} in {share:.0%} of the frames: at a limit, or clipped."
                yield Finding("joint.saturated", "warning", text, where, {"value": float(bound), "share": float(share)})


def _reached(episodes: Sequence[Episode], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value that each joint is known to reach.

    Where the follower was measured beyond the outermost goal, that goal is no limit but a pose that a script holds.
    An action beyond the outermost state says nothing of the kind: the follower may have been stopped there.
    """
    state, action = ROBOT_KEYS
    shapes = {episodes[0].columns[k].shape[1:] for k in ROBOT_KEYS if k in episodes[0].columns}
    measured = state if key == action and state in episodes[0].columns and len(shapes) == 1 else key
    low = np.min([e.columns[measured].min(axis=0) for e in episodes], axis=0)
    return low, np.max([e.columns[measured].max(axis=0) for e in episodes], axis=0)


def check_jumps(episodes: Sequence[Episode], key: str, names: list[str]) -> Iterator[Finding]:
    """A joint does not move a large part of its range within one frame, far above what it usually does."""
    span = joint_range(episodes, key)
    steps = [np.abs(np.diff(e.columns[key].astype(np.float64), axis=0)) for e in episodes]
    usual = np.quantile(np.concatenate(steps), 0.9, axis=0) if sum(map(len, steps)) else span
    for episode, moved in zip(episodes, steps, strict=True):
        jumped = (moved > JUMP * span) & (moved > JUMP_OVER_USUAL * np.maximum(usual, 1e-9))
        for first, last in _runs(jumped.any(axis=1))[:3]:
            joints = np.flatnonzero(jumped[first : last + 1].any(axis=0))
            largest = moved[first : last + 1].max(axis=0)
            worst = joints[np.argmax(largest[joints] / span[joints])]
            others = ", ".join(names[joint] for joint in joints if joint != worst)
            text = f"Joint '{names[worst]}' moves {largest[worst]:.4g} in one frame{others and f' (also {others})'}; "
            text += f"90 % of its steps are below {usual[worst]:.4g}."
            jumping = [names[joint] for joint in joints]
            evidence = {"step": float(largest[worst]), "usual": float(usual[worst]), "joints": jumping}
            where = Where(episode.index, first + 1, last + 1, feature=f"{key}[{names[worst]}]")
            yield Finding("joint.jump", "warning", text, where, evidence)


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """First and last position of each run of True; a spike is one run, there and back."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return [(int(first), int(end) - 1) for first, end in edges.reshape(-1, 2)]


def still_frames(values: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Frames (T,) in which no joint has moved since the frame before."""
    moved = np.abs(np.diff(values.astype(np.float64), axis=0, prepend=values[:1])) > STILL_STEP * span
    return ~moved.any(axis=1)


def check_idle_ends(episode: Episode, key: str, span: np.ndarray, fps: float) -> Iterator[Finding]:
    """An episode does not begin or end with seconds in which nothing moves."""
    still = still_frames(episode.columns[key], span)
    moving = np.flatnonzero(~still)
    first, last = (int(moving[0]), int(moving[-1])) if len(moving) else (len(still), -1)
    if first > IDLE_S * fps:
        text = f"Nothing moves in the first {first / fps:.1f} s."
        where = Where(episode.index, 0, first - 1)
        yield Finding("episode.idle_begin", "info", text, where, {"seconds": first / fps})
    if len(moving) and len(still) - 1 - last > IDLE_S * fps:
        seconds = (len(still) - 1 - last) / fps
        where = Where(episode.index, last + 1, len(still) - 1)
        yield Finding(
            "episode.idle_end", "info", f"Nothing moves in the last {seconds:.1f} s.", where, {"seconds": seconds}
        )


def check_offset(episodes: Sequence[Episode], names: list[str], fps: float) -> Iterator[Finding]:
    """Leader (action) and follower (state) agree while both stand still, else one of them is calibrated wrongly."""
    state, action = ROBOT_KEYS
    spans = {key: joint_range(episodes, key) for key in ROBOT_KEYS}
    span = np.maximum(spans[state], spans[action])
    window = max(1, int(STILL_S * fps))
    differences = []
    for episode in episodes:
        still = still_frames(episode.columns[state], span) & still_frames(episode.columns[action], span)
        run = np.convolve(still, np.ones(window), "full")[: len(still)] >= window  # still for the whole window before
        differences.append((episode.columns[action] - episode.columns[state])[run])
    difference = np.concatenate(differences)
    if len(difference) < window:
        return
    offset = np.median(difference, axis=0)
    for joint, name in enumerate(names):
        if abs(offset[joint]) > OFFSET * span[joint]:
            text = f"Standing still, action minus state of '{name}' is {offset[joint]:.4g} "
            text += f"({abs(offset[joint]) / span[joint]:.0%} of its range): recalibrate leader or follower."
            evidence = {"offset": float(offset[joint]), "frames": len(difference)}
            yield Finding("joint.offset", "warning", text, Where(feature=f"action[{name}]"), evidence)


def guess_unit(values: np.ndarray) -> tuple[str, str]:
    """(unit, why) of joint positions (N, D), from their magnitudes alone."""
    low, high = np.quantile(values, 0.001), np.quantile(values, 0.999)
    reach = f"values from {low:.4g} to {high:.4g}"
    largest = max(abs(low), abs(high))
    if largest > 400:
        return "motor steps", reach
    if largest <= 1.001:
        return "normalized to [-1, 1], or radians of small movements", reach
    if largest <= 2 * np.pi + 0.1:
        return "radians", reach
    if largest <= 100.01 and (values >= -100.01).all():
        return "degrees, or normalized to [-100, 100]", reach
    return "degrees", reach


def check_units(episodes: Sequence[Episode], keys: Sequence[str]) -> Iterator[Finding]:
    """State and action have one unit; which one is said."""
    units = {key: guess_unit(np.concatenate([e.columns[key] for e in episodes])) for key in keys}
    for key, (unit, why) in units.items():
        yield Finding("joint.unit", "info", f"Probably {unit} ({why}).", Where(feature=key), {"unit": unit})
    if {"motor steps", "radians"} & {unit for unit, _ in units.values()} and len({u for u, _ in units.values()}) > 1:
        text = f"State and action seem to have different units: { ({k: u for k, (u, _) in units.items()}) }."
        yield Finding("joint.units_differ", "warning", text)
