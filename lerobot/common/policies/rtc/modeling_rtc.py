"""Real-time chunking for policies that denoise a chunk (Black et al. 2025, arXiv 2506.07339 and arXiv 2512.05964).

Time runs from 1 (noise) to 0 (actions). Guidance, at inference only: each denoising step is pulled to the unplayed
actions of the chunk before. Prefix, for policies trained so: the first actions are given, and the rest follows them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lerobot.common.policies.rtc.configuration_rtc import RTCConfig
from lerobot.common.policies.rtc.debug_tracker import DebugStep, Tracker
from lerobot.configs.types import RTCAttentionSchedule

Velocity = Callable[[Tensor, Tensor], Tensor]  # x (B, T, D), time (B,) or (B, T) -> (B, T, D)


class RTCProcessor:
    """Guides denoising steps by an `RTCConfig`."""

    def __init__(self, rtc_config: RTCConfig):
        self.rtc_config = rtc_config
        self.tracker = Tracker(rtc_config.debug, rtc_config.debug_maxlen)

    def is_debug_enabled(self) -> bool:
        """Whether steps are kept."""
        return self.tracker.enabled

    def track(self, time: float | Tensor, **tracked) -> None:
        """Keep fields of the step at `time`, as `Tracker.track`."""
        self.tracker.track(time, **tracked)

    def get_all_debug_steps(self) -> list[DebugStep]:
        """The steps that were kept, the oldest first."""
        return self.tracker.get_all_steps()

    def reset_tracker(self) -> None:
        """Forget them."""
        self.tracker.reset()

    def get_prefix_weights(self, start: int, end: int, total: int) -> Tensor:
        """How strongly each of `total` actions is held to the old chunk, float32 (total,).

        The first `start` will have been played and are held fully; from `end` on the chunk is free.
        """
        start, end = min(start, end), min(end, total)
        schedule = self.rtc_config.prefix_attention_schedule
        if schedule is RTCAttentionSchedule.ZEROS:
            end = start
        if schedule in (RTCAttentionSchedule.ONES, RTCAttentionSchedule.ZEROS):
            return (torch.arange(total) < end).float()
        between = torch.linspace(1, 0, max(end - start, 0) + 2)[1:-1]
        if schedule is RTCAttentionSchedule.EXP:
            between = between * torch.expm1(between) / (math.e - 1)
        held = min(start, total)
        return F.pad(torch.cat([torch.ones(held), between]), (0, total - held - len(between)))

    def guidance_weight(self, time: Tensor) -> Tensor:
        """Strength of the pull at denoising time (B,): t/(1-t) * (t^2 + (1-t)^2) / t^2, never above the maximum."""
        most = self.rtc_config.max_guidance_weight
        ratio = torch.nan_to_num(time / (1 - time), nan=most, posinf=most)
        weight = ratio * (time.square() + (1 - time).square()) / time.square()
        return torch.nan_to_num(weight, nan=most, posinf=most).clamp(max=most)

    def denoise_step(
        self,
        x_t: Tensor,
        prev_chunk_left_over: Tensor | None,
        inference_delay: int | None,
        time: Tensor | float,
        original_denoise_step_partial: Callable[[Tensor], Tensor],
        execution_horizon: int | None = None,
    ) -> Tensor:
        """The guided velocity (B, T, D) at x_t and `time`.

        prev_chunk_left_over: unplayed actions (B, N, A) or (N, A) in the policy's units, None for the plain velocity.
        The correction is the error of the predicted actions itself: its Jacobian with respect to x_t is taken as the
        identity, so nothing is sent back through the network. Raises ValueError without a whole `inference_delay`.
        """
        velocity = original_denoise_step_partial(x_t)
        if prev_chunk_left_over is None:
            return velocity
        if not isinstance(inference_delay, int) or isinstance(inference_delay, bool):
            raise ValueError(f"inference_delay={inference_delay!r}: expected a whole number of actions.")
        old, weights = self._target(prev_chunk_left_over, inference_delay, execution_horizon, x_t)
        time = torch.as_tensor(time, dtype=torch.float32, device=x_t.device).expand(len(x_t))
        planned = x_t - time[:, None, None] * velocity
        error, strength = (old - planned) * weights, self.guidance_weight(time)
        guided = velocity - strength[:, None, None] * error
        if self.tracker.enabled:
            horizon = self._horizon(prev_chunk_left_over.shape[-2], execution_horizon)
            kept = {"x_t": x_t, "v_t": guided, "x1_t": planned, "correction": error, "err": error}
            kept |= {"weights": weights[None], "guidance_weight": strength[0]}
            self.track(time, **kept, inference_delay=inference_delay, execution_horizon=horizon)
        return guided

    def _horizon(self, length: int, horizon: int | None) -> int:
        return min(self.rtc_config.execution_horizon if horizon is None else horizon, length)

    def _target(self, left_over: Tensor, delay: int, horizon: int | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Old actions (B, T, D) and weights (T, 1); where there is no old action the weight is 0."""
        old = left_over[None] if left_over.ndim == 2 else left_over
        horizon = self._horizon(old.shape[1], horizon)
        old = F.pad(old[:, : like.shape[1]], (0, like.shape[2] - old.shape[2]))
        old = F.pad(old, (0, 0, 0, like.shape[1] - old.shape[1])).to(like)
        weights = self.get_prefix_weights(min(delay, horizon), horizon, like.shape[1])
        return old, weights.to(like)[:, None]

    def guide(
        self, velocity: Velocity, left_over: Tensor | None, inference_delay: int | None, horizon: int | None = None
    ) -> Velocity:
        """`velocity`, guided at every step."""

        def guided(x: Tensor, time: Tensor) -> Tensor:
            return self.denoise_step(x, left_over, inference_delay, time, lambda x_t: velocity(x_t, time), horizon)

        return guided


class Continuation:
    """How one chunk continues the unplayed actions (B, N, D) of the one before, for a policy that denoises.

    longest: of `rtc_training_max_delay`; if it is not 0, the chunk begins with the actions that will have been played
    when it is there. Otherwise it is guided by `processor`, if there is one and it is enabled.
    """

    def __init__(self, processor: RTCProcessor | None, left_over, inference_delay, horizon, longest: int = 0):
        self.prefix = known_prefix(left_over, inference_delay, longest)
        guides = left_over is not None and processor is not None and processor.rtc_config.enabled and not longest
        self.processor = processor if guides else None
        self.left_over, self.inference_delay, self.horizon = left_over, inference_delay, horizon

    @property
    def steer(self) -> Callable[[Velocity], Velocity] | None:
        """Makes the velocity of the chunk that continues; None where nothing is continued."""
        return None if self.prefix is None and self.processor is None else self._steered

    def _steered(self, velocity: Velocity) -> Velocity:
        if self.prefix is not None:
            return given_prefix(velocity, self.prefix)
        return self.processor.guide(velocity, self.left_over, self.inference_delay, self.horizon)

    def finish(self, actions: Tensor) -> Tensor:
        """The denoised chunk (B, T, D), beginning with what was given."""
        if self.prefix is None:
            return actions
        given = self.prefix.to(actions).expand(len(actions), -1, -1)
        return torch.cat([given, actions[:, given.shape[1] :]], 1)


def given_prefix(velocity: Velocity, prefix: Tensor) -> Velocity:
    """`velocity` where the first actions (B, N, D) are known: at time 0, whatever the others' time is."""
    count = prefix.shape[1]

    def conditioned(x: Tensor, time: Tensor) -> Tensor:
        times = time[:, None].expand(x.shape[:2]).clone()
        times[:, :count] = 0
        return velocity(torch.cat([prefix.to(x).expand(len(x), -1, -1), x[:, count:]], 1), times)

    return conditioned


def sample_delays(count: int, longest: int, steps: int, device: torch.device | str) -> Tensor:
    """Which of `steps` actions are given, bool (count, steps): the first d of a sample, d from 0 to `longest`."""
    delays = torch.randint(0, longest + 1, (count, 1), device=device)
    return torch.arange(steps, device=device) < delays


def known_prefix(left_over: Tensor | None, delay: int | None, longest: int) -> Tensor | None:
    """The actions (B, N, A) that a chunk has to begin with, or None; never more than were given in training."""
    if left_over is None or not delay or not longest:
        return None
    old = left_over[None] if left_over.ndim == 2 else left_over
    return old[:, : min(delay, longest)]


def is_enabled(rtc_config: RTCConfig | None) -> bool:
    """Whether chunks are guided."""
    return rtc_config is not None and rtc_config.enabled


def assert_no_rtc(rtc_config: RTCConfig | None) -> None:
    """AssertionError if chunks are guided: one action at a time has no chunk to continue."""
    assert not is_enabled(rtc_config), (
        "select_action cannot continue a chunk: call predict_action_chunk (--control.player=rtc does), or set "
        "--policy.rtc_config.enabled=false."
    )
