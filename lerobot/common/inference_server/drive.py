"""An arm that is moved by a policy on another machine: while no chunk comes it holds, then it is landed."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, wait
from dataclasses import asdict
from threading import Event
from typing import Any

import numpy as np
import torch

from lerobot.common.inference_server.client import RefusedError, RemotePolicy, ServerError
from lerobot.common.player.background import Background
from lerobot.common.player.chunk_player import Chunk, ChunkPlayer, LostChunkError, Request
from lerobot.common.player.latency import LatencyBudget
from lerobot.common.player.motion import motion_line

CLOSE_S = 30.0  # that leaving the server waits for a request that is under way
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0  # between two attempts to reach a server that is lost


class RemotePlanner:
    """A player's planner on another machine: asks in a thread, pauses after a failure, and then has it asked again.

    `patience_s`: how long `start` waits for a quick chunk, so that it is played in the same tick.
    """

    def __init__(self, remote: RemotePolicy, patience_s: float = 0.0):
        self.remote, self.patience_s, self.budget = remote, patience_s, LatencyBudget()
        self.failures = 0  # in all
        self._thread = Background("remote_planner")
        self._job: Future[Chunk] | None = None
        self._pause, self._closed = FIRST_PAUSE_S, Event()

    def start(self, request: Request) -> None:
        """Ask."""
        frames = self.remote.observe(request.observation)
        continues = request.options()
        if continues:
            continues["prev_chunk_left_over"] = request.prev_chunk_left_over.numpy()
        noise = None if request.noise is None else asdict(request.noise)
        self._job = self._thread.submit(self._ask, frames, continues or None, noise)
        if self.patience_s:
            wait([self._job], timeout=self.patience_s)

    def result(self) -> Chunk | None:
        """The chunk; LostChunkError when the server did not give one, RefusedError when it never will."""
        if self._job is None or not self._job.done():
            return None
        job, self._job = self._job, None
        return job.result()

    def reset(self) -> None:
        """A new episode: what is under way is not used."""
        self._job = None
        self.remote.reset()

    def close(self) -> None:
        """End the thread and the connection."""
        self._closed.set()
        if self._thread.close(CLOSE_S):
            self.remote.close()
        else:  # it uses the connection, and ends with the program
            logging.warning("The server was not left: a request still waits after %.0f s.", CLOSE_S)

    def _ask(self, frames: list, continues: dict | None, noise: dict | None) -> Chunk:
        try:
            answer = self.remote.request(frames, continues, noise)
        except RefusedError:
            raise
        except ServerError as e:
            self.failures += 1
            logging.log(logging.WARNING if self._pause == FIRST_PAUSE_S else logging.DEBUG, "%s The arm holds.", e)
            self._closed.wait(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
            raise LostChunkError(str(e)) from e
        self._pause = FIRST_PAUSE_S
        self._count(answer["milliseconds"])
        planned = None if answer["planned"] is None else torch.from_numpy(answer["planned"].copy())
        return Chunk(torch.from_numpy(answer["actions"].copy()), planned)

    def _count(self, milliseconds: dict[str, float]) -> None:
        model = {stage: milliseconds.get(stage, 0.0) for stage in ("preprocess", "model", "postprocess")}
        for stage, spent in model.items():
            self.budget.add(stage, spent / 1e3)
        self.budget.add("transport", (sum(milliseconds.values()) - sum(model.values())) / 1e3)


class RemoteRunner:
    """What `control_loop` asks for actions; ServerError when the arm held for longer than `land_after_s`.

    After a hold the arm goes on with the envelope's slow first approach, as after any gap.
    """

    def __init__(self, robot, player: ChunkPlayer, land_after_s: float):
        self.robot, self.player, self.land_after_s = robot, player, land_after_s
        self.budget = player.planner.budget
        self._now: float | None = None
        self._gap = 0.0  # seconds since the last action of a chunk was sent

    def act(self, observation: dict[str, torch.Tensor], _task: str) -> torch.Tensor | None:
        """The next action (A,); None while there is none: the arm is held."""
        self.player.planner.remote.observe(observation)
        now, held = self.robot.clock.now(), self.player.held
        action = self.player.step(observation, now)
        self._gap += self._passed(now)
        if self.player.held == held and action is not None:
            if self._gap > self.robot.envelope_config.hold_after_s:
                for envelope in self.robot.envelopes.values():
                    envelope.start_slowly()
            self._gap = 0.0
            return action
        if self._gap > self.land_after_s:
            raise ServerError(
                f"No chunk came for {self._gap:.1f} s (--land_after_s={self.land_after_s}): the arm is landed."
            )
        return None

    def _passed(self, now: float) -> float:
        """Seconds since the last tick; a clock that was set back must not put off the landing."""
        last, self._now = self._now, now
        return 0.0 if last is None else now - last if now > last else 1 / self.player.fps

    def report(self) -> dict[str, Any]:
        """What the player, the connection and the stages say."""
        lost = self.player.planner.failures
        return {"player": self.player.report(), "lost_requests": lost, "latency": self.budget.summary()}

    def lines(self) -> list[str]:
        """The same for the terminal."""
        lost = self.player.planner.failures
        return [motion_line(self.player.report()), f"latency: {self.budget.line()}", f"requests lost: {lost}"]


def try_out(robot, remote: RemotePolicy) -> float:
    """Ask for one chunk for what the open robot sees now, torque untouched; milliseconds, ServerError if it fails.

    A first inference is slow (kernels are chosen, caches filled), so its time says nothing and it has time.
    """
    observation = {"observation.state": torch.from_numpy(robot.follower_positions())}
    for name, camera in robot.cameras.items():
        observation[f"observation.images.{name}"] = torch.from_numpy(np.array(camera.async_read()))
    patience, remote.deadline_s = remote.deadline_s, max(remote.deadline_s, 60.0)
    try:
        remote.request_chunk(observation)
        start = time.monotonic()
        remote.request_chunk(observation)
    finally:
        remote.deadline_s = patience
        remote.reset()
    return (time.monotonic() - start) * 1e3
