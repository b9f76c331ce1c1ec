"""Plays a policy's chunks one action per tick, and asks for the next chunk at the right time.

The same player runs in simulation, on the arm and in front of a policy server; only its planner differs. It never reads
a clock itself: every tick says what time it is. Rules:

- a new chunk begins at the action that belongs to the present tick: `min(real delay, actions really consumed)` of its
  first actions are dropped, so nothing is skipped while the arm held and nothing is repeated;
- a chunk that is late is waited for at the last action; a chunk is never filled up with anything;
- a chunk that does not know the one before (async) fades in over its first actions, so that the arm does not jump, and
  is drawn from the noise of its ticks, so that two chunks differ by what was seen and not by chance;
- the first chunk of a run (warm-up) does not count when the delay of the next ones is estimated;
- a chunk names its joints, or has the player's order.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from lerobot.common.player.blending import Blend, blended, fade
from lerobot.common.player.motion import MotionReport
from lerobot.common.player.noise import TickNoise

MODES = ("sync", "async", "rtc")
JUMP_S = 1.0  # two ticks this far apart are not a period but a clock that was set, or a program that was stopped
WARMUP = 1  # first chunks whose time says nothing about the next ones
WINDOW = 50  # latest chunks that the delay is estimated from


@dataclass
class Chunk:
    """What a planner returns: `actions` (T, A) or (T, B, A) as sent, `planned` (B, T, A) as the policy gave them.

    names: joints in the order of the last axis; None where it is the player's order.
    """

    actions: Tensor
    planned: Tensor | None = None
    names: Sequence[str] | None = None


@dataclass(frozen=True)
class Request:
    """What a planner is asked for: a chunk whose first action belongs to the tick of `observation`.

    With `prev_chunk_left_over` (B, T, A), the planned actions that are still unplayed, the chunk should continue them;
    the first `inference_delay` will have been played when it arrives. A policy that draws its chunks starts from
    `noise`.
    """

    observation: Any
    inference_delay: int = 0
    prev_chunk_left_over: Tensor | None = None
    execution_horizon: int | None = None
    noise: TickNoise | None = None

    def options(self) -> dict[str, Any]:
        """Arguments for `predict_action_chunk`."""
        if self.prev_chunk_left_over is None:
            return {}
        names = ("inference_delay", "prev_chunk_left_over", "execution_horizon")
        return {name: getattr(self, name) for name in names}


class Planner(Protocol):
    """Makes one chunk at a time, wherever it likes."""

    def start(self, request: Request) -> None:
        """Begin with a chunk; called only when none is in the making."""

    def result(self) -> Chunk | None:
        """The chunk, once, when it is there; raises LostChunkError or what went wrong with it. Never waits."""

    def reset(self) -> None:
        """A new episode: what is in the making is never returned."""


class LostChunkError(Exception):
    """The chunk that was asked for will not come; the player asks again, with the observation of that tick."""


class DelayEstimate:
    """Ticks that a chunk takes: the most that one of the latest took, without the warm-up."""

    def __init__(self, warmup: int = WARMUP, window: int = WINDOW):
        self._to_ignore, self._ticks = warmup, deque(maxlen=window)

    def add(self, ticks: int) -> None:
        """A chunk took that many ticks."""
        if self._to_ignore:
            self._to_ignore -= 1
        else:
            self._ticks.append(ticks)

    def ticks(self) -> int | None:
        """The estimate; None before there is one."""
        return max(self._ticks, default=None)


class ChunkPlayer:
    """One action per tick out of the chunks of a planner.

    mode: "sync" asks when `n_action_steps` actions of a chunk are played, and holds until the next one is there;
    "async" asks so early that it is there then; "rtc" does so and has it continue the one that is playing.
    n_action_steps: actions played of each chunk. execution_horizon: actions of the old chunk that an rtc chunk
    continues (at least twice the delay). give_up_s: a chunk after the warm-up that takes longer is an error. blend: how
    an async chunk takes over (`player.blending`); by default it fades in over 5 actions. ask_at: share of
    `n_action_steps` that is still to be played when the next chunk is asked for; by default as few as the delay allows.
    """

    def __init__(
        self,
        planner: Planner,
        mode: str,
        fps: float,
        n_action_steps: int,
        names: Sequence[str] | None = None,
        execution_horizon: int = 10,
        give_up_s: float | None = None,
        blend: Blend | None = None,
        ask_at: float = 0.0,
    ):
        if mode not in MODES:
            raise ValueError(f"player={mode}: expected one of {', '.join(MODES)}.")
        if n_action_steps < 1 or fps <= 0:
            raise ValueError(f"n_action_steps={n_action_steps}, fps={fps}: expected positive numbers.")
        self.planner, self.mode, self.fps, self.n_action_steps = planner, mode, fps, n_action_steps
        self.names = None if names is None else tuple(names)
        self.execution_horizon, self.give_up_s = execution_horizon, give_up_s
        self.blend = fade() if blend is None else blend
        self._early = ask_at * n_action_steps
        self.delay = DelayEstimate()
        self.reset()

    def reset(self) -> None:
        """A new episode: no chunk of the last one is left, and its measures are forgotten; the delay is kept."""
        self.planner.reset()
        self._chunk: Chunk | None = None
        self._index = self._begin = self._end = 0  # of the chunk: next action, first one played, where to stop
        self._last: Tensor | None = None
        self._seed: int | None = None  # of this episode's noise
        self._pending: tuple[float, int, int] | None = None  # time, actions consumed and ticks at the request
        self._time, self._now, self._steady, self._consumed, self._ticks = 0.0, None, True, 0, 0
        self.held = self.stale = self.clock_jumps = 0
        self.motion = MotionReport(self.fps)

    @property
    def remaining(self) -> int:
        """Actions of the present chunk that may still be played."""
        return self._end - self._index

    def needs_observation(self) -> bool:
        """Whether the next `step` may look at its observation."""
        if self.mode == "sync":
            return self._pending is None and self.remaining == 0
        return self._pending is not None or self._due()

    def step(self, observation: Any, now: float) -> Tensor | None:
        """The action of this tick, at `now` seconds; None as long as the first chunk is awaited: hold the arm.

        Raises what the planner raises, ValueError for a chunk that does not fit, and TimeoutError.
        """
        self._advance(now)
        self._ticks += 1
        self._collect()
        if self._pending is None and self._due():
            self._ask(observation)
            self._collect()
        return self._next()

    def report(self) -> dict[str, Any]:
        """Of this episode: chunks, seams, jerk, ticks held, the estimated delay."""
        return {
            "mode": self.mode,
            **self.motion.summary(),
            "held": self.held,
            "stale_chunks": self.stale,
            "clock_jumps": self.clock_jumps,
            "delay_ticks": self.delay.ticks(),
        }

    def _advance(self, now: float) -> None:
        passed = 0.0 if self._now is None else now - self._now
        self._now = now
        if not 0 <= passed <= JUMP_S:
            self.clock_jumps += 1
            self._steady = False
            level = logging.WARNING if self.clock_jumps == 1 else logging.DEBUG
            logging.log(level, "The clock jumped by %.2f s between two ticks; it counts as one.", passed)
            passed = 1 / self.fps
        self._time += passed

    def _due(self) -> bool:
        if self.remaining == 0:
            return True
        if self.mode == "sync":
            return False
        delay = self.delay.ticks()
        played = self._index - self._begin
        return delay is None or played + max(delay, self._early) >= self.n_action_steps or self.remaining <= delay

    def _ask(self, observation: Any) -> None:
        left_over = None
        if self.mode == "rtc" and self.remaining and self._chunk.planned is not None:
            left_over = self._chunk.planned[:, self._index :]
        delay = self.delay.ticks() or 0
        self._pending, self._steady = (self._time, self._consumed, self._ticks), True
        horizon = max(self.execution_horizon, 2 * delay)
        self.planner.start(Request(observation, delay, left_over, horizon, self._noise()))

    def _noise(self) -> TickNoise | None:
        if self.mode != "async":
            return None
        if self._seed is None:
            self._seed = int(torch.randint(0, 2**31, ()))
        return TickNoise(self._seed, self._consumed)

    def _collect(self) -> None:
        if self._pending is None:
            return
        try:
            chunk = self.planner.result()
        except LostChunkError:
            self._pending = None
            return
        if chunk is None:
            self._give_up()
            return
        chunk = self._in_order(chunk)
        (asked, consumed, tick), self._pending = self._pending, None
        delay = round((self._time - asked) * self.fps)
        if self._steady or self.delay.ticks() is None:  # where every tick looks like a jump, a count of ticks is known
            self.delay.add(min(delay, self._ticks - tick))  # a loop that is too slow plays fewer actions meanwhile
        drop = min(delay, self._consumed - consumed)
        if drop >= len(chunk.actions):
            self.stale += 1  # nothing of it belongs to the present or later
            return
        if self._last is not None:
            chunk = self._taking_over(chunk, drop)
        self._chunk, self._index, self._begin = chunk, drop, drop
        self._end = len(chunk.actions)
        if self.mode == "sync":
            self._end = min(self._end, drop + self.n_action_steps)

    def _taking_over(self, chunk: Chunk, drop: int) -> Chunk:
        """The chunk as it is played after another one, from its action `drop` on."""
        old = self._chunk.actions[self._index : self._end]
        if self.mode == "async":
            new = blended(chunk.actions[drop:], old, self._last, self.blend(len(old)))
            chunk = replace(chunk, actions=torch.cat([chunk.actions[:drop], new]))
        self.motion.seam(chunk.actions[drop] - (old[0] if len(old) else self._last))
        return chunk

    def _give_up(self) -> None:
        waited = self._time - self._pending[0]
        if self.give_up_s is not None and waited > self.give_up_s and self.delay.ticks() is not None:
            raise TimeoutError(
                f"No chunk for {waited:.1f} s, where the last ones took {self.delay.ticks() / self.fps:.1f} s: the "
                "policy hangs. One that needs that long: raise --envelope.release_after_s."
            )

    def _in_order(self, chunk: Chunk) -> Chunk:
        if len(chunk.actions) == 0:
            raise ValueError("The planner returned a chunk without actions.")
        width = chunk.actions.shape[-1]
        if self.names is None:
            return chunk
        names = self.names if chunk.names is None else tuple(chunk.names)
        if sorted(names) != sorted(self.names) or width != len(self.names):
            raise ValueError(
                f"The policy moves {width} joints ({', '.join(names)}), the robot has {', '.join(self.names)}: use a "
                "checkpoint that was trained on this robot's data."
            )
        if names == self.names:
            return chunk
        order = [names.index(name) for name in self.names]
        return Chunk(chunk.actions[..., order], chunk.planned, self.names)

    def _next(self) -> Tensor | None:
        if self.remaining:
            self._last = self._chunk.actions[self._index]
            self._index += 1
            self._consumed += 1
        else:
            self.held += 1
        if self._last is not None:
            self.motion.sent(self._last)
        return self._last
