"""Actions relative to the state at which they were planned, and back (LeRobot 0.6's steps for pi0)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lerobot.common.constants import OBS_STATE
from lerobot.common.processor.core import EnvTransition, TransitionKey
from lerobot.common.processor.registry import ProcessorStepRegistry
from lerobot.common.processor.steps import KeepsFeatures, ProcessorStep


def to_relative_actions(actions: Tensor, state: Tensor, mask: Sequence[bool]) -> Tensor:
    """Actions `(..., A)` minus the state, in the dimensions that `mask` marks.

    state: `(B, S)` (or `(B, T, S)`, of which the last counts, or `(S,)`), in the units of the actions; mask: for the
    first dimensions of both, later ones stay. Raises ValueError where the mask is longer than either.
    """
    return actions - _offset(actions, state, mask)


def to_absolute_actions(actions: Tensor, state: Tensor, mask: Sequence[bool]) -> Tensor:
    """The inverse of `to_relative_actions`."""
    return actions + _offset(actions, state, mask)


def _offset(actions: Tensor, state: Tensor, mask: Sequence[bool]) -> Tensor:
    count = len(mask)
    if count > actions.shape[-1] or count > state.shape[-1]:
        raise ValueError(
            f"Relative actions: a mask of {count} joints for actions of {actions.shape[-1]} and a state of "
            f"{state.shape[-1]} dimensions; action_names must name the joints of both."
        )
    state = state[:, -1] if state.ndim == 3 else state
    marked = torch.as_tensor(list(mask), dtype=torch.bool, device=actions.device)
    moved = torch.where(marked, state[..., :count].to(actions), 0)
    if actions.ndim == 3 and moved.ndim == 2:
        moved = moved[:, None]
    return torch.nn.functional.pad(moved, (0, actions.shape[-1] - count))


@ProcessorStepRegistry.register("relative_actions_processor")
@dataclass
class RelativeActionsProcessorStep(KeepsFeatures, ProcessorStep):
    """Subtracts the state from the actions of all joints but `exclude_joints`, and keeps it for the way back.

    exclude_joints: parts of names, upper or lower case, that keep absolute actions ("gripper" stands for
    `gripper.pos` and `left_gripper`); they need `action_names`. Does nothing unless `enabled`. Actions that are None
    (a robot that asks for them) only leave the state behind.
    """

    enabled: bool = False
    exclude_joints: list[str] = field(default_factory=list)
    action_names: list[str] | None = None
    state: Tensor | None = field(default=None, init=False, repr=False)  # seen last, before it is normalized

    def mask(self, dims: int) -> list[bool]:
        """Which of `dims` action dimensions are relative. Raises ValueError for names that do not fit."""
        names = self.action_names
        if names is None:
            if self.exclude_joints:
                raise ValueError(
                    f"relative_actions_processor: exclude_joints={self.exclude_joints} needs action_names, the names "
                    "of the action's dimensions in order (meta/info.json has them)."
                )
            return [True] * dims
        if len(names) != dims:
            raise ValueError(f"relative_actions_processor: {len(names)} action_names for {dims} dimensions: {names}.")
        return [not any(part.lower() in name.lower() for part in self.exclude_joints) for name in names]

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        self._current_transition = dict(transition)
        if not self.enabled:
            return transition
        state = (transition.get(TransitionKey.OBSERVATION) or {}).get(OBS_STATE)
        action = transition.get(TransitionKey.ACTION)
        if state is None:
            if action is None:
                return transition
            raise ValueError(f"Relative actions need '{OBS_STATE}', which the observation lacks.")
        self.state = state
        if action is None:
            return transition
        return {**transition, TransitionKey.ACTION: to_relative_actions(action, state, self.mask(action.shape[-1]))}

    def get_config(self) -> dict[str, Any]:
        return {
            "enabled": self.enabled,
            "exclude_joints": list(self.exclude_joints),
            "action_names": self.action_names and list(self.action_names),
        }

    def reset(self) -> None:
        self.state = None


@ProcessorStepRegistry.register("absolute_actions_processor")
@dataclass
class AbsoluteActionsProcessorStep(KeepsFeatures, ProcessorStep):
    """Adds the state back that `relative_step`, a step of the preprocessor, saw last.

    The two are connected by `connect_relative_actions`, since each is saved in a file of its own.
    """

    enabled: bool = False
    relative_step: RelativeActionsProcessorStep | None = field(default=None, repr=False)

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        self._current_transition = dict(transition)
        action = transition.get(TransitionKey.ACTION)
        if not self.enabled or action is None:
            return transition
        if self.relative_step is None or self.relative_step.state is None:
            raise ValueError(
                "absolute_actions_processor knows no state to add: "
                + (
                    "it is not connected to a relative_actions_processor (connect_relative_actions does that)."
                    if self.relative_step is None
                    else "call the preprocessor first."
                )
            )
        mask = self.relative_step.mask(action.shape[-1])
        return {**transition, TransitionKey.ACTION: to_absolute_actions(action, self.relative_step.state, mask)}

    def get_config(self) -> dict[str, Any]:
        return {"enabled": self.enabled}


def connect_relative_actions(preprocessor: Sequence[ProcessorStep], postprocessor: Sequence[ProcessorStep]) -> None:
    """Let the absolute steps of a postprocessor read the state that its preprocessor kept.

    Raises ValueError if only one side is enabled: then actions would be off by the state.
    """
    relative = [s for s in preprocessor if isinstance(s, RelativeActionsProcessorStep)]
    absolute = [s for s in postprocessor if isinstance(s, AbsoluteActionsProcessorStep)]
    for step in absolute:
        step.relative_step = relative[-1] if relative else None
    before, after = any(s.enabled for s in relative), any(s.enabled for s in absolute)
    if before != after:
        raise ValueError(
            f"relative_actions_processor is {'enabled' if before else 'off'} and absolute_actions_processor is "
            f"{'enabled' if after else 'off'}: set `enabled` of both (preprocessor_overrides, postprocessor_overrides)."
        )
