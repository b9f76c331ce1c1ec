"""Steps of learning on a robot or in a simulation: time limit, velocities, currents, gripper penalty, human
intervention.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch

from lerobot.common.constants import OBS_STATE
from lerobot.common.processor.converters import ACTION_TENSOR
from lerobot.common.processor.core import EnvTransition, TransitionKey
from lerobot.common.processor.registry import ProcessorStepRegistry
from lerobot.common.processor.steps import (
    ComplementaryDataProcessorStep,
    Features,
    InfoProcessorStep,
    KeepsFeatures,
    ObservationProcessorStep,
    ProcessorStep,
    TruncatedProcessorStep,
)
from lerobot.configs.types import PipelineFeatureType, PolicyFeature

TELEOP_ACTION = TELEOP_ACTION_KEY = "teleop_action"
PENALTY = DISCRETE_PENALTY_KEY = "discrete_penalty"
GRIPPER_KEY = "gripper"


class TeleopEvents(str, Enum):
    """What a teleoperator can signal; keys of info. Members are strings, so either form finds the value."""

    SUCCESS = "success"
    FAILURE = "failure"
    RERECORD_EPISODE = "rerecord_episode"
    IS_INTERVENTION = "is_intervention"
    TERMINATE_EPISODE = "terminate_episode"


@ProcessorStepRegistry.register("add_teleop_action_as_complementary_data")
@dataclass
class AddTeleopActionAsComplimentaryDataStep(KeepsFeatures, ComplementaryDataProcessorStep):
    """Writes what the teleoperator commands, `teleop_device.get_action()`, as `teleop_action`.

    The device is not saved: loading needs overrides={"add_teleop_action_as_complementary_data":
    {"teleop_device": ...}}.
    """

    teleop_device: Any

    def complementary_data(self, complementary_data: dict[str, Any]) -> dict[str, Any]:
        return {**complementary_data, TELEOP_ACTION: self.teleop_device.get_action()}


@ProcessorStepRegistry.register("add_teleop_action_as_info")
@dataclass
class AddTeleopEventsAsInfoStep(KeepsFeatures, InfoProcessorStep):
    """Adds what the teleoperator signals, the dict `teleop_device.get_teleop_events()`, to info."""

    teleop_device: Any

    def info(self, info: dict[str, Any]) -> dict[str, Any]:
        return {**info, **self.teleop_device.get_teleop_events()}


@ProcessorStepRegistry.register("current_processor")
@dataclass
class MotorCurrentProcessorStep(ObservationProcessorStep):
    """State (..., S) -> (..., S + M): the present current of each motor of `robot.bus`, in its order, behind
    the state. The robot is not saved.
    """

    robot: Any = None

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        if self.robot is None:
            raise ValueError("MotorCurrentProcessorStep has no robot: give one as override at loading.")
        state = observation[OBS_STATE]
        currents = self.robot.bus.sync_read("Present_Current")
        values = torch.tensor([currents[motor] for motor in self.robot.bus.motors], dtype=state.dtype)
        values = values.to(state.device).expand(*state.shape[:-1], -1)
        return {**observation, OBS_STATE: torch.cat([state, values], dim=-1)}

    def transform_features(self, features: Features) -> Features:
        if self.robot is None:
            return features
        return _with_wider_state(features, added=len(self.robot.bus.motors))


def _with_wider_state(features: Features, added: int) -> Features:
    observed = dict(features.get(PipelineFeatureType.OBSERVATION, {}))
    if OBS_STATE in observed:
        state = observed[OBS_STATE]
        observed[OBS_STATE] = PolicyFeature(state.type, (state.shape[0] + added, *state.shape[1:]))
    return {**features, PipelineFeatureType.OBSERVATION: observed}


@ProcessorStepRegistry.register("time_limit_processor")
@dataclass
class TimeLimitProcessorStep(KeepsFeatures, TruncatedProcessorStep):
    """Counts calls and sets truncated once there were `max_episode_steps` in this episode."""

    max_episode_steps: int
    current_step: int = 0

    def truncated(self, truncated: Any) -> Any:
        self.current_step += 1
        return True if self.current_step >= self.max_episode_steps else truncated

    def get_config(self) -> dict[str, Any]:
        return {"max_episode_steps": self.max_episode_steps}

    def reset(self) -> None:
        self.current_step = 0


@ProcessorStepRegistry.register("joint_velocity_processor")
@dataclass
class JointVelocityProcessorStep(ObservationProcessorStep):
    """State (..., S) -> (..., 2S): positions, then their difference to the step before over `dt` seconds
    (zero first).
    """

    dt: float = 0.1
    _last: torch.Tensor | None = None

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        state = observation.get(OBS_STATE)
        if state is None:
            raise ValueError(f"JointVelocityProcessorStep needs '{OBS_STATE}' in the observation.")
        velocity = (state - (state if self._last is None else self._last)) / self.dt
        self._last = state.clone()
        observation[OBS_STATE] = torch.cat([state, velocity], dim=-1)
        return observation

    def get_config(self) -> dict[str, Any]:
        return {"dt": self.dt}

    def reset(self) -> None:
        self._last = None

    def transform_features(self, features: Features) -> Features:
        state = features.get(PipelineFeatureType.OBSERVATION, {}).get(OBS_STATE)
        return features if state is None else _with_wider_state(features, added=state.shape[0])


@ProcessorStepRegistry.register("gripper_penalty_processor")
@dataclass
class GripperPenaltyProcessorStep(KeepsFeatures, ComplementaryDataProcessorStep):
    """Writes `discrete_penalty` when the last component of the action drives the gripper over its middle.

    The gripper's position is `raw_joint_positions["gripper"]` of the complementary data; both count as
    fractions of `max_gripper_pos`.
    """

    penalty: float = -0.01
    max_gripper_pos: float = 30.0

    def complementary_data(self, complementary_data: dict[str, Any]) -> dict[str, Any]:
        position = (complementary_data.get("raw_joint_positions") or {}).get(GRIPPER_KEY)
        action = self.transition.get(TransitionKey.ACTION)
        if position is None or action is None:
            return complementary_data
        position, wanted = (
            float(position) / self.max_gripper_pos,
            float(action[..., -1]) / self.max_gripper_pos,
        )
        reverses = (position < 0.5 < wanted) or (position > 0.75 and wanted < 0.5)
        return {**complementary_data, PENALTY: self.penalty * reverses}

    def get_config(self) -> dict[str, Any]:
        return {"penalty": self.penalty, "max_gripper_pos": self.max_gripper_pos}


@ProcessorStepRegistry.register("intervention_action_processor")
@dataclass
class InterventionActionProcessorStep(KeepsFeatures, ProcessorStep):
    """Where info says `is_intervention`, the teleoperator's action replaces the policy's; sets done and
    reward.

    The teleoperator's action (`teleop_action` of the complementary data) is {delta_x, delta_y, delta_z[,
    gripper]}, an array or a list. done = terminate_episode or (success and `terminate_on_success`); reward =
    1 on success.
    """

    use_gripper: bool = False
    terminate_on_success: bool = True

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        action = transition.get(TransitionKey.ACTION)
        if not isinstance(action, torch.Tensor):
            raise ValueError(f"{ACTION_TENSOR}, got {type(action)} (in InterventionActionProcessorStep).")
        self._current_transition = dict(transition)
        info = dict(transition.get(TransitionKey.INFO) or {})
        data = dict(transition.get(TransitionKey.COMPLEMENTARY_DATA) or {})
        intervened, success = bool(info.get("is_intervention", False)), bool(info.get("success", False))
        if intervened and data.get(TELEOP_ACTION) is not None:
            action = self._as_tensor(data[TELEOP_ACTION], like=action)
        done = bool(info.get("terminate_episode", False)) or (self.terminate_on_success and success)
        info.update(is_intervention=intervened, success=success)
        info.setdefault("rerecord_episode", False)
        data[TELEOP_ACTION] = action
        return {
            **transition,
            TransitionKey.ACTION: action,
            TransitionKey.REWARD: float(success),
            TransitionKey.DONE: done,
            TransitionKey.INFO: info,
            TransitionKey.COMPLEMENTARY_DATA: data,
        }

    def _as_tensor(self, teleop: Any, like: torch.Tensor) -> torch.Tensor:
        if isinstance(teleop, dict):
            names = ("delta_x", "delta_y", "delta_z")
            values = [teleop.get(name, 0.0) for name in names]
            teleop = [*values, teleop.get("gripper", 1.0)] if self.use_gripper else values
        return torch.as_tensor(teleop, dtype=like.dtype, device=like.device)

    def get_config(self) -> dict[str, Any]:
        return {"use_gripper": self.use_gripper, "terminate_on_success": self.terminate_on_success}
