"""What a processor step is, and bases for steps that change one part of a transition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch

from lerobot.common.processor.converters import ACTION_DICT, ACTION_TENSOR
from lerobot.common.processor.core import EnvTransition, TransitionKey
from lerobot.configs.types import PipelineFeatureType, PolicyFeature

Features = dict[PipelineFeatureType, dict[str, PolicyFeature]]


class ProcessorStep(ABC):
    """One transformation, transition in, transition out; the input dict itself is not changed."""

    _registry_name: ClassVar[str]
    _current_transition: EnvTransition | None = None

    @property
    def transition(self) -> EnvTransition:
        """The transition seen last. Raises ValueError before the first call."""
        if self._current_transition is None:
            raise ValueError(f"Transition is not set: call the {type(self).__name__} with one first.")
        return self._current_transition

    @abstractmethod
    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """Return the transformed transition."""

    @abstractmethod
    def transform_features(self, features: Features) -> Features:
        """Return the features that come out when `features` go in."""

    # Further files of a checkpoint that `from_saved` looks for; a hub repository is asked for them.
    files_beside: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_saved(cls, config: dict[str, Any], overrides: dict[str, Any], folder: Path | None) -> ProcessorStep:
        """Build the step from its saved configuration; `folder` is where the files of its pipeline lie."""
        return cls(**{**config, **overrides})

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, as JSON can hold them."""
        return {}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Tensors to save beside the configuration, by flat name."""
        return {}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what `state_dict` gave."""
        return None

    def reset(self) -> None:
        """Forget what belongs to the current episode."""
        return None


class KeepsFeatures:
    """Mix-in (named first) for steps whose features come out as they go in."""

    def transform_features(self, features: Features) -> Features:
        """The features, unchanged."""
        return features


class _PartStep(ProcessorStep):
    """Hands one part of the transition to `_change`, and a copy if the part is a dict."""

    _part: ClassVar[TransitionKey]
    _kind: ClassVar[type | tuple[type, ...]] = object
    _demand: ClassVar[str]  # what the error says is missing

    @abstractmethod
    def _change(self, part: Any) -> Any: ...

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        part = transition.get(self._part)
        if part is None or not isinstance(part, self._kind):
            raise ValueError(f"{self._demand}, but got {type(part)} (in {type(self).__name__}).")
        self._current_transition = dict(transition)
        changed = self._change(dict(part) if isinstance(part, dict) else part)
        return {**transition, self._part: changed}


class ObservationProcessorStep(_PartStep):
    """Changes the observation, a dict."""

    _part, _kind = TransitionKey.OBSERVATION, dict
    _demand = "ObservationProcessorStep requires an observation in the transition"

    @abstractmethod
    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Return the new observation; the argument is a copy."""

    def _change(self, part):
        return self.observation(part)


class ActionProcessorStep(_PartStep):
    """Changes the action, of whatever type."""

    _part = TransitionKey.ACTION
    _demand = "ActionProcessorStep requires an action in the transition"

    @abstractmethod
    def action(self, action: Any) -> Any:
        """Return the new action."""

    def _change(self, part):
        return self.action(part)


class RobotActionProcessorStep(ActionProcessorStep):
    """Changes a robot's action, a dict; the argument of `action` is a copy."""

    _kind = dict
    _demand = ACTION_DICT


class PolicyActionProcessorStep(ActionProcessorStep):
    """Changes a policy's action, a tensor."""

    _kind = torch.Tensor
    _demand = ACTION_TENSOR


class RewardProcessorStep(_PartStep):
    """Changes the reward."""

    _part = TransitionKey.REWARD
    _demand = "RewardProcessorStep requires a reward in the transition"

    @abstractmethod
    def reward(self, reward: Any) -> Any:
        """Return the new reward."""

    def _change(self, part):
        return self.reward(part)


class DoneProcessorStep(_PartStep):
    """Changes the done flag."""

    _part = TransitionKey.DONE
    _demand = "DoneProcessorStep requires a done flag in the transition"

    @abstractmethod
    def done(self, done: Any) -> Any:
        """Return the new flag."""

    def _change(self, part):
        return self.done(part)


class TruncatedProcessorStep(_PartStep):
    """Changes the truncated flag."""

    _part = TransitionKey.TRUNCATED
    _demand = "TruncatedProcessorStep requires a truncated flag in the transition"

    @abstractmethod
    def truncated(self, truncated: Any) -> Any:
        """Return the new flag."""

    def _change(self, part):
        return self.truncated(part)


class InfoProcessorStep(_PartStep):
    """Changes the info dict."""

    _part, _kind = TransitionKey.INFO, dict
    _demand = "InfoProcessorStep requires an info dictionary in the transition"

    @abstractmethod
    def info(self, info: dict[str, Any]) -> dict[str, Any]:
        """Return the new info; the argument is a copy."""

    def _change(self, part):
        return self.info(part)


class ComplementaryDataProcessorStep(_PartStep):
    """Changes the complementary data (task, indices, pad masks)."""

    _part, _kind = TransitionKey.COMPLEMENTARY_DATA, dict
    _demand = "ComplementaryDataProcessorStep requires complementary data in the transition"

    @abstractmethod
    def complementary_data(self, complementary_data: dict[str, Any]) -> dict[str, Any]:
        """Return the new complementary data; the argument is a copy."""

    def _change(self, part):
        return self.complementary_data(part)
