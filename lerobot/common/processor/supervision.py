"""Steps of learning under supervision: success told from pictures, and gym-hil's signals in their usual place."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from lerobot.common.processor.core import EnvTransition, TransitionKey
from lerobot.common.processor.interaction import TELEOP_ACTION_KEY, TeleopEvents
from lerobot.common.processor.registry import ProcessorStepRegistry
from lerobot.common.processor.steps import KeepsFeatures, ProcessorStep


@runtime_checkable
class HasTeleopEvents(Protocol):
    """A teleoperator that signals success, failure and intervention."""

    def get_teleop_events(self) -> dict[str, Any]:
        """What is signalled now, by `TeleopEvents`."""


@ProcessorStepRegistry.register("reward_classifier_processor")
@dataclass
class RewardClassifierProcessorStep(KeepsFeatures, ProcessorStep):
    """Where a classifier sees success in the pictures, sets the reward and (`terminate_on_success`) done.

    `reward_classifier` is an object with `predict_reward(pictures by key, threshold=...)` that gives 1 for success;
    it is not saved, so loading needs overrides={"reward_classifier_processor": {"reward_classifier": ...}}. Without
    one, or without pictures, nothing changes. Raises ValueError for a `pretrained_path`: that network of LeRobot is
    not built here.
    """

    pretrained_path: str | None = None
    device: str = "cpu"
    success_threshold: float = 0.5
    success_reward: float = 1.0
    terminate_on_success: bool = True
    reward_classifier: Any = None

    def __post_init__(self):
        if self.pretrained_path is not None:
            raise ValueError(
                f"pretrained_path={self.pretrained_path}: LeRobot's reward classifier is not built here; give "
                "an object with predict_reward(pictures, threshold) as reward_classifier."
            )

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        self._current_transition = dict(transition)
        observation = transition.get(TransitionKey.OBSERVATION) or {}
        pictures = {key: value for key, value in observation.items() if "image" in key}
        if self.reward_classifier is None or not pictures:
            return transition
        start = time.perf_counter()
        success = float(self.reward_classifier.predict_reward(pictures, threshold=self.success_threshold)) == 1.0
        frequency = 1 / max(time.perf_counter() - start, 1e-9)
        info = {**(transition.get(TransitionKey.INFO) or {}), "reward_classifier_frequency": frequency}
        changed = {**transition, TransitionKey.INFO: info}
        if success:
            changed[TransitionKey.REWARD] = self.success_reward
            changed[TransitionKey.DONE] = transition.get(TransitionKey.DONE, False) or self.terminate_on_success
        return changed

    def get_config(self) -> dict[str, Any]:
        names = ("device", "success_threshold", "success_reward", "terminate_on_success")
        return {name: getattr(self, name) for name in names}


@ProcessorStepRegistry.register("gym_hil_adapter_processor")
@dataclass
class GymHILAdapterProcessorStep(KeepsFeatures, ProcessorStep):
    """Copies `teleop_action`, which gym-hil puts into info, to the complementary data, where other steps look."""

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        self._current_transition = dict(transition)
        info = dict(transition.get(TransitionKey.INFO) or {})
        data = dict(transition.get(TransitionKey.COMPLEMENTARY_DATA) or {})
        if TELEOP_ACTION_KEY in info:
            data[TELEOP_ACTION_KEY] = info[TELEOP_ACTION_KEY]
        if "is_intervention" in info:
            info[TeleopEvents.IS_INTERVENTION] = info["is_intervention"]
        return {**transition, TransitionKey.INFO: info, TransitionKey.COMPLEMENTARY_DATA: data}
