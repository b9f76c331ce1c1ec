"""A policy that moves an arm through a chunk player."""

from __future__ import annotations

from typing import Any

import torch

from lerobot.common.player import blending
from lerobot.common.player.blending import FADE
from lerobot.common.player.motion import motion_line
from lerobot.common.player.planners import DelayedPlanner, PolicyPlan, ThreadPlanner, make_player
from lerobot.common.robot_devices.control_utils import PolicyRunner, as_batch

PATIENCE = 0.5  # periods that the loop waits for a chunk of a quick policy, before the arm is held


class PlayedRunner(PolicyRunner):
    """`act` never waits for the policy: it plays a chunk while, in a thread, the next one is computed.

    On a clock that only passes while the program waits (a twin in lockstep), chunks are computed in between and, unless
    the mode is sync, count as late as they really are. Raises, by `act`, what planning raises, and TimeoutError for a
    chunk that takes longer than `give_up_s`.
    """

    def __init__(self, runner: PolicyRunner, mode: str, fps: float, robot, fade: int = FADE):
        super().__init__(runner.policy, runner.preprocessor, runner.postprocessor, runner.robot_type)
        names = robot.motor_features["action"]["names"]
        plan = PolicyPlan(self.policy, self.preprocessor, self.postprocessor, self._batch, names)
        self.budget = plan.budget
        self._clock, self._names = robot.clock, names
        if robot.clock.lockstep:
            planner = DelayedPlanner(plan, robot.clock.now, 0.0 if mode == "sync" else None)
        else:
            planner = ThreadPlanner(plan, PATIENCE / fps if mode == "sync" else 0.0)
        self._planner = planner
        give_up_s = robot.envelope_config.release_after_s
        words = {"names": names, "give_up_s": give_up_s, "blend": blending.fade(fade)}
        self.player = make_player(planner, mode, fps, self.policy.config, **words)

    def _batch(self, seen: tuple[dict[str, torch.Tensor], str]) -> dict[str, Any]:
        observation, task = seen
        return as_batch(observation, self.policy.config.device, task, self.robot_type)

    def reset(self) -> None:
        """A new episode begins: no action of the last one is left, and its measures are forgotten."""
        self.player.reset()
        self.budget.clear()

    def act(self, observation: dict[str, torch.Tensor], task: str) -> torch.Tensor | None:
        """The next action (A,); None until there is one."""
        action = self.player.step((observation, task), self._clock.now())
        return None if action is None else action[0]

    def report(self) -> dict[str, Any]:
        """What the player and the stages of an episode say, for the report file."""
        return {"player": self.player.report(), **super().report()}

    def lines(self) -> list[str]:
        """The same for the terminal."""
        return [motion_line(self.player.report()), *super().lines()]

    def close(self) -> None:
        """The thread ends after what it is computing."""
        if isinstance(self._planner, ThreadPlanner):
            self._planner.close()
