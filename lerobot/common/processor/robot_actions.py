"""Between a policy's action tensor and the action dicts and arrays of robots and environments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lerobot.common.constants import ACTION
from lerobot.common.processor.converters import ACTION_TENSOR
from lerobot.common.processor.core import EnvAction, PolicyAction, RobotAction
from lerobot.common.processor.registry import ProcessorStepRegistry
from lerobot.common.processor.steps import (
    ActionProcessorStep,
    Features,
    KeepsFeatures,
    RobotActionProcessorStep,
)
from lerobot.configs.types import FeatureType, PipelineFeatureType, PolicyFeature

_DELTAS = ("delta_x", "delta_y", "delta_z")
_TARGETS = ("target_x", "target_y", "target_z")
_TURNS = ("target_wx", "target_wy", "target_wz")


def _scalars(names) -> dict[str, PolicyFeature]:
    return {name: PolicyFeature(FeatureType.ACTION, (1,)) for name in names}


def _with_actions(features: Features, added: dict[str, PolicyFeature]) -> Features:
    side = PipelineFeatureType.ACTION
    return {**features, side: {**features.get(side, {}), **added}}


@ProcessorStepRegistry.register("map_tensor_to_delta_action_dict")
@dataclass
class MapTensorToDeltaActionDictStep(ActionProcessorStep):
    """(3,) or (4,) tensor, perhaps with a leading axis of one -> {delta_x, delta_y, delta_z[, gripper]}."""

    use_gripper: bool = True

    def _names(self) -> tuple[str, ...]:
        return (*_DELTAS, "gripper") if self.use_gripper else _DELTAS

    def action(self, action: PolicyAction) -> RobotAction:
        if not isinstance(action, torch.Tensor):
            raise ValueError(f"Only PolicyAction (a tensor) is supported as delta action, got {type(action).__name__}.")
        flat = action.squeeze(0) if action.ndim == 2 else action
        return {name: flat[i].item() for i, name in enumerate(self._names())}

    def transform_features(self, features: Features) -> Features:
        return _with_actions(features, _scalars(self._names()))


@ProcessorStepRegistry.register("map_delta_action_to_robot_action")
@dataclass
class MapDeltaActionToRobotActionStep(RobotActionProcessorStep):
    """Position deltas -> a target offset of the end effector, enabled where it exceeds the noise."""

    position_scale: float = 1.0
    noise_threshold: float = 1e-3

    def action(self, action: RobotAction) -> RobotAction:
        deltas = [float(action[name]) for name in _DELTAS]
        gripper = float(action["gripper"])
        return {
            "enabled": math.hypot(*deltas) > self.noise_threshold,
            **{name: delta * self.position_scale for name, delta in zip(_TARGETS, deltas, strict=True)},
            **dict.fromkeys(_TURNS, 0.0),
            "gripper_vel": gripper,
        }

    def transform_features(self, features: Features) -> Features:
        kept = features.get(PipelineFeatureType.ACTION, {})
        kept = {name: f for name, f in kept.items() if name not in (*_DELTAS, "gripper")}
        added = _scalars(("enabled", *_TARGETS, *_TURNS, "gripper_vel"))
        return {**features, PipelineFeatureType.ACTION: {**kept, **added}}


@ProcessorStepRegistry.register("torch2numpy_action_processor")
@dataclass
class Torch2NumpyActionProcessorStep(KeepsFeatures, ActionProcessorStep):
    """Tensor -> array, without a leading axis of size one if there are more axes."""

    squeeze_batch_dim: bool = True

    def action(self, action: PolicyAction) -> EnvAction:
        if not isinstance(action, torch.Tensor):
            raise TypeError(f"Expected PolicyAction (a tensor) or None, got {type(action).__name__}.")
        array = action.detach().cpu().numpy()
        return array[0] if self.squeeze_batch_dim and array.ndim > 1 and array.shape[0] == 1 else array


@ProcessorStepRegistry.register("numpy2torch_action_processor")
@dataclass
class Numpy2TorchActionProcessorStep(KeepsFeatures, ActionProcessorStep):
    """Array -> tensor of the same dtype; no action stays no action."""

    def __call__(self, transition):
        if transition.get(self._part) is not None:
            return super().__call__(transition)
        self._current_transition = dict(transition)
        return transition

    def action(self, action: EnvAction) -> PolicyAction:
        if not isinstance(action, np.ndarray):
            raise TypeError(f"Expected np.ndarray or None, got {type(action).__name__}.")
        return torch.from_numpy(action)


def _wrong_number(motor_names: list[str], action: Any) -> str:
    return f"Action must have {len(motor_names)} elements, got {len(action)}; the motors are {motor_names}."


@dataclass
class _MotorStep(ActionProcessorStep):
    """`motor_names` gives the order of the motors in the tensor."""

    motor_names: list[str]

    def get_config(self) -> dict[str, Any]:
        return {"motor_names": self.motor_names}


@ProcessorStepRegistry.register("robot_action_to_policy_action_processor")
@dataclass
class RobotActionToPolicyActionProcessorStep(_MotorStep):
    """{"<motor>.pos": value} -> tensor (A,)."""

    def action(self, action: RobotAction) -> PolicyAction:
        if len(action) != len(self.motor_names):
            raise ValueError(_wrong_number(self.motor_names, action))
        return torch.tensor([action[f"{motor}.pos"] for motor in self.motor_names])

    def transform_features(self, features: Features) -> Features:
        whole = PolicyFeature(FeatureType.ACTION, (len(self.motor_names),))
        return _with_actions(features, {ACTION: whole})


@ProcessorStepRegistry.register("policy_action_to_robot_action_processor")
@dataclass
class PolicyActionToRobotActionProcessorStep(_MotorStep):
    """Tensor (or array) (A,) -> {"<motor>.pos": value}."""

    _kind, _demand = (torch.Tensor, np.ndarray), ACTION_TENSOR

    def action(self, action: PolicyAction) -> RobotAction:
        if len(action) != len(self.motor_names):
            raise ValueError(_wrong_number(self.motor_names, action))
        return {f"{motor}.pos": value for motor, value in zip(self.motor_names, action, strict=True)}

    def transform_features(self, features: Features) -> Features:
        names = [f"{motor}.pos" for motor in self.motor_names]
        return _with_actions(features, _scalars(names))
