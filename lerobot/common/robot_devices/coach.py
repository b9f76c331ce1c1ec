"""What the operator hears after each episode: is it worth keeping? Computed from the frames in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lerobot.common.checks.finding import Finding, Where, by_severity
from lerobot.common.robot_devices.pace import Pace

STILL = 2.0  # joint units per second below which an arm does not move
IDLE_S = 1.0  # of standing still at an end that is worth trimming
SLOW = 0.9  # share of the wanted rate
LATE_SHARE = 0.02  # of frames
SATURATED_SHARE = 0.1  # of frames with the target at the end of the range
EDGE = 0.01  # of the range
FROZEN = (0.3, 5.0)  # a joint that moved less than the first while its target moved more than the second
OFFSET = 15.0  # joint units between target and state, on average
SPREAD = 15.0  # joint units from the usual start pose


@dataclass(frozen=True)
class EpisodeReport:
    """Numbers of one episode and what is wrong with it."""

    numbers: dict[str, float | int]
    findings: list[Finding]

    @property
    def advice(self) -> str:
        """keep or redo."""
        return "redo" if any(finding.severity == "error" for finding in self.findings) else "keep"

    def __str__(self) -> str:
        numbers = ", ".join(f"{name} {value}" for name, value in self.numbers.items())
        lines = [f"Episode: {numbers}."] + [f"  {f.severity}: {f.message}" for f in by_severity(self.findings)]
        return "\n".join([*lines, f"  Advice: {self.advice}"])


def review_episode(
    buffer: dict,
    fps: float,
    pace: Pace,
    names: list[str],
    low,
    high,
    starts: list[np.ndarray],
    camera_drops: dict[str, int],
) -> EpisodeReport:
    """The report on a recorded episode that is still in the dataset's buffer.

    `low`, `high` (A,) the arm's range, `starts` the start poses of the episodes kept so far.
    """
    actions, states = np.stack(buffer["action"]), np.stack(buffer["observation.state"])
    findings: list[Finding] = []
    rate = pace.summary()
    numbers = {"frames": len(actions), "fps": rate.get("mean_hz", 0.0), "worst_fps": rate.get("worst_hz", 0.0)}
    numbers["late"] = rate.get("late", 0)
    numbers["camera_drops"] = sum(camera_drops.values())
    findings += _pace_findings(rate, fps, camera_drops, len(actions))
    if pace.held:
        text = f"the arm held {pace.held} times because a picture was too old: the motion stutters there."
        findings.append(Finding("episode.held", "warning", text, evidence={"times": pace.held}))
    still = _still(actions, fps)
    for end, run in (("start", still), ("end", still[::-1])):
        idle = (int(np.argmin(run)) if not run.all() else len(run)) / fps
        numbers[f"idle_{end}_s"] = round(idle, 2)
        if idle > IDLE_S:
            text = f"nothing moves for {idle:.1f} s at the {end}: the policy will learn to wait."
            findings.append(Finding(f"episode.idle_{end}", "warning", text, evidence={"seconds": idle}))
    findings += _joint_findings(actions, states, names, np.asarray(low), np.asarray(high))
    numbers["offset"] = round(float(np.abs(actions - states).mean()), 2)
    if starts:
        away = np.abs(states[0] - np.mean(starts, axis=0))
        numbers["start_spread"] = round(float(away.max()), 1)
        if away.max() > SPREAD:
            text = f"{names[int(away.argmax())]} starts {away.max():.0f} from where the other episodes start."
            findings.append(Finding("episode.start_pose", "warning", text, evidence={"distance": float(away.max())}))
    return EpisodeReport(numbers, findings)


def _pace_findings(rate: dict, fps: float, drops: dict[str, int], frames: int) -> list[Finding]:
    found = []
    if rate.get("mean_hz", fps) < SLOW * fps:
        text = f"the loop ran at {rate['mean_hz']:.1f} Hz instead of {fps:.0f}: motions look faster than they were."
        found.append(Finding("episode.slow", "error", text, evidence=rate))
    elif rate.get("late", 0) > LATE_SHARE * frames:
        text = f"{rate['late']} of {frames} frames were late (worst {rate['worst_hz']:.1f} Hz)."
        found.append(Finding("episode.late_frames", "warning", text, evidence=rate))
    for camera, count in drops.items():
        if count > LATE_SHARE * frames:
            text = f"camera '{camera}' skipped {count} pictures."
            found.append(Finding("episode.camera_drops", "warning", text, Where(feature=camera), {"drops": count}))
    return found


def _still(actions: np.ndarray, fps: float) -> np.ndarray:
    """Per frame whether no joint's target moves, (T,)."""
    speed = np.abs(np.diff(actions, axis=0, prepend=actions[:1])) * fps
    return (speed < STILL).all(axis=1)


def _joint_findings(actions, states, names: list[str], low: np.ndarray, high: np.ndarray) -> list[Finding]:
    found = []
    edge = EDGE * (high - low)
    at_end = ((actions <= low + edge) | (actions >= high - edge)).mean(axis=0)
    moved, asked = np.ptp(states, axis=0), np.ptp(actions, axis=0)
    offset = np.abs(actions - states).mean(axis=0)
    for index, name in enumerate(names):
        if at_end[index] > SATURATED_SHARE and asked[index] > FROZEN[1]:
            text = f"{name} is at the end of its range for {at_end[index]:.0%} of the episode."
            found.append(Finding("episode.saturated_joint", "warning", text, evidence={"share": float(at_end[index])}))
        if moved[index] < FROZEN[0] and asked[index] > FROZEN[1]:
            text = f"{name} did not move while its target moved by {asked[index]:.0f}: is it blocked or switched off?"
            found.append(Finding("episode.frozen_joint", "error", text, evidence={"moved": float(moved[index])}))
        elif offset[index] > OFFSET:
            text = f"{name} is {offset[index]:.0f} from its target on average: leader and follower do not agree."
            found.append(Finding("episode.offset", "error", text, evidence={"offset": float(offset[index])}))
    return found
