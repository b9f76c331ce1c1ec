"""The safety envelope: the one place that every target passes on its way to the arm.

A target that is not finite is refused. What remains is held inside each joint's range, speed and acceleration, always
measured from the last *commanded* position. A sequence that keeps to the limits passes unchanged. Every intervention
(from the first held-back tick until the arm has caught up) is counted by kind and joint; the first of each is logged
as a warning, the others as debug messages.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lerobot.common.utils.user_errors import UserError

RANGE, SPEED, ACCELERATION, RAMP, REFUSED, MISSED = "range", "speed", "acceleration", "ramp", "refused", "missed_tick"
SHORTEST_TICK = 1e-3  # seconds
MOST_CURRENT = 1750  # milliampere, Current_Limit of an XL330
SLACK = 1e-3  # of a limit: float32 recordings of a motion at the limit pass


class SafetyStopError(UserError):
    """The envelope gave up: what comes is not a motion. The arm is landed and its torque switched off."""


@dataclass
class EnvelopeConfig:
    """How far the arm may be moved, and what happens when targets stop coming."""

    dataset_root: str | None = None  # learn range, speed and acceleration from this dataset; empty: from the arm
    margin: float = 0.1  # room beyond what the dataset holds, as a share
    max_speed: float = 360.0  # units (degrees) per second without a dataset
    max_acceleration: float = 6000.0  # units per second squared without a dataset
    ramp_speed: float = 45.0  # units per second on the way to a first target that is further than `ramp_from`
    ramp_from: float = 15.0  # units
    max_refused: int = 15  # consecutive targets that are not finite before the run is stopped
    hold_after_s: float = 0.3  # without a tick for this long, the arm holds and starts again with the ramp
    release_after_s: float = 5.0  # without a tick for this long, the arm is landed and its torque switched off
    landing_s: float = 3.0  # a landing takes at most this long
    gripper_current: int = 500  # milliampere

    def __post_init__(self):
        for name in ("max_speed", "max_acceleration", "ramp_speed", "hold_after_s", "release_after_s", "landing_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"--envelope.{name}={getattr(self, name)}: expected a positive number.")
        for name in ("margin", "ramp_from"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"--envelope.{name}={getattr(self, name)}: expected 0 or more.")
        if self.max_refused < 1:
            raise ValueError(f"--envelope.max_refused={self.max_refused}: expected at least 1.")
        if not 1 <= self.gripper_current <= MOST_CURRENT:
            raise ValueError(f"--envelope.gripper_current={self.gripper_current}: expected 1 to {MOST_CURRENT} mA.")


@dataclass(frozen=True)
class JointLimits:
    """Per joint: lowest and highest value, units per second, units per second squared; and where they come from."""

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    speed: tuple[float, ...]
    acceleration: tuple[float, ...]
    source: str

    def __post_init__(self):
        rows = zip(self.names, self.low, self.high, self.speed, self.acceleration, strict=True)
        for name, low, high, speed, acceleration in rows:
            if not all(map(math.isfinite, (low, high, speed, acceleration))):
                raise ValueError(f"The limits of joint '{name}' ({self.source}) are not finite: {low} to {high}.")
            if low > high:
                raise ValueError(
                    f"The limits of joint '{name}' ({self.source}) are reversed: {low:.1f} to {high:.1f}. What was "
                    "recorded lies outside of what the arm can reach: other units, or another arm's calibration."
                )
            if speed <= 0 or acceleration <= 0:
                raise ValueError(
                    f"Joint '{name}' ({self.source}) has the speed {speed}, the acceleration {acceleration}."
                )

    @classmethod
    def of_arm(cls, names: Sequence[str], low, high, config: EnvelopeConfig) -> JointLimits:
        """The mechanical range and the configured speed and acceleration."""
        count = len(names)
        speed, acceleration = (config.max_speed,) * count, (config.max_acceleration,) * count
        return cls(tuple(names), tuple(map(float, low)), tuple(map(float, high)), speed, acceleration, "calibration")

    @classmethod
    def of_dataset(
        cls,
        root: str | Path,
        names: Sequence[str],
        low,
        high,
        margin: float,
        joints: Sequence[str] | None = None,
        first: int = 0,
        units: str | None = None,
    ) -> JointLimits:
        """What the recorded actions did, with a margin, inside the mechanical range; ValueError if it does not fit.

        For one of several arms, `joints` are the names of the robot's whole action vector, as `left_gripper`, and
        `first` is where this arm's begin in it. `units` are the robot's; a dataset in others is refused.
        """
        from lerobot.common.checks.robot import check_units, recorded_units
        from lerobot.common.datasets.lerobot_dataset import LeRobotDataset

        dataset = LeRobotDataset(None, root=root, download_videos=False)
        meta = dataset.meta
        recorded = recorded_units(meta.info.get("units"), meta.features["action"], meta.stats)
        if units and recorded and (mismatch := check_units(units, recorded, "dataset")):
            raise ValueError(f"--envelope.dataset_root={root}: {mismatch[0].message} {mismatch[0].fix}")
        actions = dataset.table["action"].numpy().astype(np.float64)
        if not np.isfinite(actions).all():
            raise ValueError(f"--envelope.dataset_root={root}: it holds actions that are not finite.")
        joints = list(names) if joints is None else list(joints)
        if actions.shape[1] != len(joints):
            raise ValueError(
                f"--envelope.dataset_root={root}: its actions have {actions.shape[1]} joints, the robot {len(joints)}."
            )
        actions = actions[:, _columns(dataset.features["action"], joints, first, len(names))]
        episodes = dataset.table["episode_index"].numpy()
        same = np.diff(episodes) == 0
        velocity = np.diff(actions, axis=0)[same] * dataset.fps
        steady = same[1:] & same[:-1]
        change = np.diff(np.diff(actions, axis=0), axis=0)[steady] * dataset.fps**2
        room = margin * np.maximum(np.ptp(actions, axis=0), 1.0)
        return cls(
            tuple(names),
            tuple(np.maximum(actions.min(axis=0) - room, low)),
            tuple(np.minimum(actions.max(axis=0) + room, high)),
            tuple(_largest(velocity) * (1 + margin)),
            tuple(_largest(change) * (1 + margin)),
            f"dataset {root}",
        )


def _columns(action: dict, joints: list[str], first: int, count: int) -> list[int]:
    """Where the joints `first` to `first + count` of the robot stand in recorded actions: by name, else by place."""
    from lerobot.common.checks.robot import plain_joint
    from lerobot.common.evaluation.open_loop import joint_names

    recorded, places = [plain_joint(name) for name in joint_names(action)], list(range(first, first + count))
    joints = [plain_joint(name) for name in joints]
    if set(recorded) != set(joints):
        return places
    return [recorded.index(joints[place]) for place in places]


def _largest(values: np.ndarray) -> np.ndarray:
    # At least one unit: a joint that never moved in the recording may still be held against its drift.
    return np.maximum(np.abs(values).max(axis=0, initial=0.0), 1.0)


class SafetyEnvelope:
    """Turns targets into commands, (J,) in joint units, one call of `limit` per tick of `period` seconds.

    With `measured`, a tick lasts as long as the clock says, at most `period`.
    """

    def __init__(self, limits: JointLimits, period: float, config: EnvelopeConfig | None = None):
        self.limits, self.period, self.config = limits, period, config or EnvelopeConfig()
        self.measured = False
        self.counts: Counter[tuple[str, str]] = Counter()  # (kind, joint) -> interventions
        self.ticks = 0
        self._rows = list(zip(limits.names, limits.low, limits.high, limits.speed, limits.acceleration, strict=True))
        self._last: list[float] | None = None
        self._velocity: list[float] = []
        self._catching_up: list[bool] = []
        self._starting, self._ramping, self._slowed = True, False, False
        self._refused = 0
        self._tick = period
        self._time: float | None = None

    @property
    def commanded(self) -> np.ndarray | None:
        """The last command, float32 (J,)."""
        return None if self._last is None else np.array(self._last, dtype=np.float32)

    def engage(self, present) -> None:
        """Start from where the arm is, at rest; a next target that is far is approached slowly."""
        values = [float(value) for value in present]
        if not all(map(math.isfinite, values)):
            raise SafetyStopError(f"The arm's position {values} is not finite; the arm is not moved.")
        self._last, self._velocity = values, [0.0] * len(values)
        self._catching_up = [False] * len(values)  # after an intervention, until the target is reached
        self._starting, self._time = True, None

    def start_slowly(self) -> None:
        """After a hold: a next target that is far is approached slowly, from the last command."""
        self._starting = True

    def limit(self, target, now: float | None = None) -> np.ndarray:
        """The command for a target, float32 (J,).

        `now` (seconds) lets a missed tick be seen. Raises SafetyStopError before `engage`, for a wrong number of
        joints, and after `max_refused` targets in a row that are not finite.
        """
        if self._last is None:
            raise SafetyStopError("The safety envelope was not engaged at the arm's position.")
        self.ticks += 1
        self._tick = self._length_of_tick(now)
        self._notice_gap(now)
        values = [float(value) for value in target]
        if len(values) != len(self._rows):
            raise SafetyStopError(f"A target of {len(values)} joints for an arm of {len(self._rows)}.")
        if all(map(math.isfinite, values)):
            self._refused = 0
        else:
            self._refuse(values)
            values = self._last
        if self._starting:  # a first target nearby is no jump: the motion begins at once
            far = max(abs(a - b) for a, b in zip(self._last, values, strict=True))
            # Holding, until a policy's first action is there, is no start.
            self._starting, self._ramping, self._slowed = far <= SLACK, far > self.config.ramp_from, False
        values = [self._inside(index, value) for index, value in enumerate(values)]
        share = self._share_of_way(values) if self._ramping else 1.0
        self._last = [self._joint(index, value, share) for index, value in enumerate(values)]
        if self._ramping:
            near = self.config.ramp_speed * self.period
            self._ramping = not all(abs(a - b) < near for a, b in zip(self._last, values, strict=True))
        return np.array(self._last, dtype=np.float32)

    def _length_of_tick(self, now: float | None) -> float:
        if not self.measured or now is None or self._time is None:
            return self.period
        return min(max(now - self._time, SHORTEST_TICK), self.period)

    def _notice_gap(self, now: float | None) -> None:
        if now is not None and self._time is not None and now - self._time > self.config.hold_after_s:
            self._note(MISSED, "all", f"{now - self._time:.2f} s without a tick: the arm held, then moves on slowly")
            self._velocity = [0.0] * len(self._velocity)
            self._starting = True
        self._time = now

    def _refuse(self, values: list[float]) -> None:
        self._refused += 1
        bad = next(name for (name, *_), value in zip(self._rows, values, strict=True) if not math.isfinite(value))
        self._note(REFUSED, bad, f"the target {values} is not finite: the arm holds")
        if self._refused >= self.config.max_refused:
            raise SafetyStopError(
                f"{self._refused} targets in a row were not finite (joint {bad}): the policy or its statistics are "
                "damaged. Use an earlier checkpoint."
            )

    def _inside(self, index: int, target: float) -> float:
        name, low, high, *_ = self._rows[index]
        inside = min(max(target, low), high)
        if abs(inside - target) > SLACK:
            self._note(RANGE, name, f"target {target:.1f}, range {low:.1f} to {high:.1f}")
        return inside

    def _share_of_way(self, targets: list[float]) -> float:
        """Of the way to a far first target, what is gone in this tick: the same for all joints, which arrive together.

        Each at its own pace would leave the straight line, and could press the arm against the table.
        """
        ways = [abs(target - last) for target, last in zip(targets, self._last, strict=True)]
        furthest, most = max(ways), self.config.ramp_speed * self._tick
        if furthest <= most:
            return 1.0
        if not self._slowed:
            text = f"{furthest / self._tick:.0f} per second asked, {self.config.ramp_speed:.0f} allowed"
            self._note(RAMP, self._rows[ways.index(furthest)][0], text)
            self._slowed = True
        return most / furthest

    def _joint(self, index: int, wanted: float, share: float) -> float:
        """The command of one joint for a target inside its range, of the way to which it shall go a share."""
        name, low, high, speed, acceleration = self._rows[index]
        last, before, dt = self._last[index], self._velocity[index], self._tick
        way = wanted - last
        asked, top = share * way / dt, speed
        # A motion inside range and acceleration can always stop before the end of the range.
        top = min(top, self._stoppable(high - last if asked > 0 else last - low, acceleration))
        if self._catching_up[index]:
            top = min(top, self._stoppable(abs(way), acceleration))
        step = acceleration * dt
        if abs(asked) <= top * (1 + SLACK) and abs(asked - before) <= step * (1 + SLACK):
            velocity, self._catching_up[index] = asked, False
        else:
            if not self._catching_up[index]:
                self._note_rate(name, asked, top, (asked - before) / dt, acceleration)
            self._catching_up[index] = True
            top = min(top, self._stoppable(abs(way), acceleration))
            velocity = min(max(asked, -top), top)
            velocity = min(max(velocity, before - step), before + step)
        # Outside of the range (where the arm was found) it may only come back.
        command = min(max(last + velocity * dt, min(low, last)), max(high, last))
        self._velocity[index] = (command - last) / dt
        return command

    def _stoppable(self, way: float, acceleration: float) -> float:
        """The speed from which the arm still stops within `way`, in ticks of `period`."""
        # Slowing down by one step of velocity per tick covers 1, 3, 6, ... of these units of way.
        step = acceleration * self._tick
        units = max(way, 0.0) / (step * self._tick)
        whole = math.floor((math.sqrt(8 * units + 1) - 1) / 2)
        return step * (whole + (units - whole * (whole + 1) / 2) / (whole + 1))

    def _note_rate(self, name: str, speed: float, top: float, change: float, most: float) -> None:
        if abs(speed) > top * (1 + SLACK):
            self._note(SPEED, name, f"{abs(speed):.0f} per second asked, {top:.0f} allowed")
        else:
            self._note(ACCELERATION, name, f"{abs(change):.0f} per second squared asked, {most:.0f} allowed")

    def _note(self, kind: str, joint: str, text: str) -> None:
        self.counts[kind, joint] += 1
        level = logging.WARNING if self.counts[kind, joint] == 1 else logging.DEBUG
        logging.log(level, "Safety (%s, %s): %s.", kind, joint, text)

    def interventions(self) -> dict[str, int]:
        """Interventions by kind, over all joints."""
        total: Counter[str] = Counter()
        for (kind, _), count in self.counts.items():
            total[kind] += count
        return dict(total)

    def summary(self) -> str:
        """One line: what was done how often."""
        if not self.counts:
            return f"safety: {self.ticks} ticks, no intervention (limits from {self.limits.source})"
        parts = []
        for kind, total in sorted(self.interventions().items()):
            joints = [f"{joint} {count}" for (k, joint), count in self.counts.most_common() if k == kind]
            parts.append(f"{kind} {total}x ({', '.join(joints)})")
        return f"safety: {self.ticks} ticks, {', '.join(parts)} (limits from {self.limits.source})"


class Unlimited(SafetyEnvelope):
    """`--safety=off`: only targets that are not finite are refused."""

    def _inside(self, index: int, target: float) -> float:
        return target

    def _share_of_way(self, targets: list[float]) -> float:
        return 1.0

    def _joint(self, index: int, wanted: float, share: float) -> float:
        self._velocity[index] = (wanted - self._last[index]) / self._tick
        return wanted
