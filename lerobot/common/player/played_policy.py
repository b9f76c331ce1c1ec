"""A policy and its player in the place of a policy, for rollouts in simulation."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lerobot.common.constants import OBS_STATE
from lerobot.common.player.blending import Blend
from lerobot.common.player.planners import DelayedPlanner, PolicyPlan, make_player


class PlayedPolicy:
    """`select_action` takes the environment's unprocessed batch and returns the action (B, A) that is sent.

    Time is simulated: one call is one frame of 1/fps s, and a chunk takes `latency_s` whatever it really took. Until
    the first one is there, the arm is held at `observation.state`.
    """

    def __init__(
        self, policy, preprocessor, postprocessor, mode: str, latency_s: float, fps: float, blend: Blend | None = None
    ):
        self.policy, self.config, self.name = policy, policy.config, policy.name
        self._plan = PolicyPlan(policy, preprocessor, postprocessor, lambda batch: batch)
        self._tick, self._fps = 0, fps
        planner = DelayedPlanner(self._plan, self._now, latency_s)
        self.player = make_player(planner, mode, fps, policy.config, blend=blend)

    def _now(self) -> float:
        return self._tick / self._fps

    def eval(self) -> PlayedPolicy:
        """The policy in evaluation mode."""
        self.policy.eval()
        return self

    def reset(self) -> None:
        """A new episode, at time 0."""
        self._tick, self._state = 0, None
        self.player.reset()

    def needs_observation(self) -> bool:
        """Whether the next `select_action` looks at its batch."""
        return self._state is None or self.player.needs_observation()

    def select_action(self, batch: dict[str, Tensor]) -> Tensor:
        """The action (B, A) of this frame; ValueError where the arm cannot be held at its state."""
        if self._state is None:
            self._state = batch.get(OBS_STATE)
        action = self.player.step(batch, self._now())
        self._tick += 1
        if action is not None:
            return action
        width = self.config.action_feature.shape[0]
        if self._state is None or self._state.shape[-1] != width:
            raise ValueError(
                f"--eval.latency_ms: until the first chunk is there the arm is held at '{OBS_STATE}', and this "
                f"environment has none of {width} joints."
            )
        return self._state

    def report(self) -> dict[str, Any]:
        """The player's report on the episode."""
        return self.player.report()
