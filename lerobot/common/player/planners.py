"""Planners: where and when a policy computes the chunks that a player plays."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any

import torch

from lerobot.common.player.background import Background
from lerobot.common.player.chunk_player import MODES, Chunk, ChunkPlayer, Request
from lerobot.common.player.latency import LatencyBudget
from lerobot.common.player.noise import noise_options
from lerobot.common.policies.rtc.configuration_rtc import RTCConfig
from lerobot.common.utils.device import mixed_precision

RESET_S = 120.0  # that a chunk in the making may take at the end of an episode
TINY_S = 1e-6  # sums of periods are not exact


class PolicyPlan:
    """A policy with its processors as a function: request -> chunk.

    prepare: makes the unprocessed batch of an observation.
    """

    def __init__(self, policy, preprocessor, postprocessor, prepare: Callable[[Any], dict], names=None):
        self.policy, self.preprocessor, self.postprocessor = policy, preprocessor, postprocessor
        self.prepare, self.names = prepare, names
        self.budget = LatencyBudget()

    def __call__(self, request: Request) -> Chunk:
        config = self.policy.config
        with torch.inference_mode(), mixed_precision(config.device, config.use_amp):
            with self.budget.measure("preprocess"):
                batch = self.preprocessor(self.prepare(request.observation))
                count = next(len(value) for value in batch.values() if isinstance(value, torch.Tensor))
                options = {**request.options(), **noise_options(self.policy, request.noise, count)}
            with self.budget.measure("model"):
                planned = self.policy.predict_action_chunk(batch, **options)
                if planned.is_cuda:
                    torch.cuda.synchronize(planned.device)  # the time belongs here
            with self.budget.measure("postprocess"):
                actions = torch.stack([self.postprocessor(step).float().cpu() for step in planned.unbind(1)])
        return Chunk(actions, planned, self.names)

    def reset(self) -> None:
        """A new episode."""
        for part in (self.policy, self.preprocessor, self.postprocessor):
            if hasattr(part, "reset"):
                part.reset()


class DelayedPlanner:
    """Computes at once and hands over later, on a clock of its own: simulated latency.

    clock: gives seconds. latency_s: how long a chunk takes by that clock; None: as long as it really took.
    """

    def __init__(self, plan: Callable[[Request], Chunk], clock: Callable[[], float], latency_s: float | None = 0.0):
        self.plan, self.clock, self.latency_s = plan, clock, latency_s
        self._chunk: Chunk | None = None
        self._due = 0.0

    def start(self, request: Request) -> None:
        asked, start = self.clock(), time.perf_counter()
        self._chunk = self.plan(request)
        took = time.perf_counter() - start
        self._due = asked + (took if self.latency_s is None else self.latency_s)

    def result(self) -> Chunk | None:
        if self._chunk is None or self.clock() < self._due - TINY_S:
            return None
        chunk, self._chunk = self._chunk, None
        return chunk

    def reset(self) -> None:
        self._chunk = None
        _reset(self.plan)


class ThreadPlanner:
    """Computes in a thread beside the control loop.

    patience_s: how long `start` waits for a quick chunk, so that it is played in the same tick.
    """

    def __init__(self, plan: Callable[[Request], Chunk], patience_s: float = 0.0):
        self.plan, self.patience_s = plan, patience_s
        self._thread = Background("planner")
        self._job: Future[Chunk] | None = None

    def start(self, request: Request) -> None:
        self._job = self._thread.submit(self.plan, request)
        if self.patience_s:
            wait([self._job], timeout=self.patience_s)

    def result(self) -> Chunk | None:
        if self._job is None or not self._job.done():
            return None
        job, self._job = self._job, None
        return job.result()

    def reset(self) -> None:
        if self._job is not None:  # the policy is about to be reset
            if not wait([self._job], timeout=RESET_S).done:
                raise TimeoutError(
                    f"The policy still computes the last episode's chunk after {RESET_S:.0f} s: it hangs."
                )
            self._job = None
        _reset(self.plan)

    def close(self) -> None:
        """End the thread after what it is computing; nobody waits for that, an arm has to be landed."""
        self._thread.close()


def _reset(plan) -> None:
    if hasattr(plan, "reset"):
        plan.reset()


def prepare_player(mode: str, policy, flag: str, otherwise: str) -> None:
    """Make a policy ready for a mode; ValueError where its chunks cannot be played.

    flag: what chose the mode; otherwise: what to choose for a policy that reads more than the present observation, or
    averages the chunks of many.
    """
    config = policy.config
    if mode not in MODES:
        raise ValueError(f"{flag}={mode}: expected one of {', '.join(MODES)}.")
    if not plays_chunks(policy):
        raise ValueError(
            f"{flag}={mode}: policy '{policy.name}' reads the observation of every tick, and no single one gives a "
            f"chunk (n_obs_steps={config.n_obs_steps}, temporal_ensemble_coeff="
            f"{getattr(config, 'temporal_ensemble_coeff', None)}): use {otherwise}."
        )
    if mode == "rtc" and not policy.supports_rtc():
        raise ValueError(
            f"{flag}=rtc: policy '{policy.name}' cannot continue a chunk. SmolVLA and pi0 can; ACT can if it was "
            f"trained with --policy.rtc_training_max_delay; else use {flag}=async."
        )
    if mode == "rtc" and hasattr(config, "rtc_config"):
        config.rtc_config = replace(config.rtc_config or RTCConfig(), enabled=True)


def plays_chunks(policy) -> bool:
    """Whether one observation is all that a policy needs for a chunk."""
    config = policy.config
    ensembles = getattr(config, "temporal_ensemble_coeff", None) is not None
    plans_anew = policy.name == "tdmpc" or ensembles  # at every tick
    return config.n_obs_steps == 1 and hasattr(config, "n_action_steps") and not plans_anew


def make_player(planner, mode: str, fps: float, config, **kwargs) -> ChunkPlayer:
    """A player with the steps and the horizon of a policy's configuration."""
    rtc = getattr(config, "rtc_config", None) or RTCConfig()
    return ChunkPlayer(planner, mode, fps, config.n_action_steps, execution_horizon=rtc.execution_horizon, **kwargs)
