"""What observations of the LIBERO and IsaacLab Arena benchmarks become before a policy reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lerobot.common.constants import OBS_IMAGES, OBS_STATE
from lerobot.common.processor.registry import ProcessorStepRegistry
from lerobot.common.processor.steps import Features, KeepsFeatures, ObservationProcessorStep
from lerobot.configs.types import FeatureType, PipelineFeatureType, PolicyFeature

ROBOT_STATE = "observation.robot_state"


@ProcessorStepRegistry.register("libero_processor")
@dataclass
class LiberoProcessorStep(ObservationProcessorStep):
    """Turns LIBERO's upside-down pictures by 180 degrees and flattens its robot state to eight numbers.

    `observation.robot_state` {eef {pos (B, 3), quat (B, 4) as x, y, z, w}, gripper {qpos (B, 2)}} becomes
    `observation.state` (B, 8): position, rotation vector, both fingers.
    """

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        for name, value in observation.items():
            if name.startswith(f"{OBS_IMAGES}."):
                observation[name] = torch.flip(value, dims=(-2, -1))
        robot = observation.pop(ROBOT_STATE, None)
        if robot is not None:
            arm, fingers = robot["eef"], robot["gripper"]["qpos"]
            observation[OBS_STATE] = torch.cat([arm["pos"], rotation_vector(arm["quat"]), fingers], -1).float()
        return observation

    def transform_features(self, features: Features) -> Features:
        seen = dict(features.get(PipelineFeatureType.OBSERVATION, {}))
        flat = {name: f for name, f in seen.items() if not name.startswith((ROBOT_STATE, f"{OBS_STATE}."))}
        if len(flat) < len(seen):
            flat[OBS_STATE] = PolicyFeature(FeatureType.STATE, (8,))
        return {**features, PipelineFeatureType.OBSERVATION: flat}


def rotation_vector(quaternion: Tensor) -> Tensor:
    """Axis times angle (in [0, 2 pi]) `(B, 3)` of unit quaternions `(B, 4)`, x, y, z, w. Raises ValueError."""
    if quaternion.ndim != 2 or quaternion.shape[-1] != 4:
        raise ValueError(f"A quaternion has shape (B, 4), got {tuple(quaternion.shape)}.")
    cosine = quaternion[:, 3:].clamp(-1.0, 1.0)
    sine = (1.0 - cosine**2).sqrt()
    axis = torch.where(sine > 1e-10, quaternion[:, :3] / sine.clamp_min(1e-10), 0)
    return axis * 2.0 * torch.acos(cosine)


@ProcessorStepRegistry.register("isaaclab_arena_processor")
@dataclass
class IsaaclabArenaProcessorStep(KeepsFeatures, ObservationProcessorStep):
    """Picks states and cameras out of IsaacLab's nested observation; nothing else of it is kept.

    `observation.policy` {name: (B, ...)}: those of `state_keys`, in that order, flattened and joined, become
    `observation.state`. `observation.camera_obs` {name: (B, H, W, 3)}: those of `camera_keys` become pictures
    `(B, 3, H, W)`, bytes scaled to [0, 1].
    """

    state_keys: tuple[str, ...]
    camera_keys: tuple[str, ...]

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        cameras, states = observation.get("observation.camera_obs", {}), observation.get("observation.policy", {})
        found = {f"{OBS_IMAGES}.{n}": _picture(cameras[n]) for n in self.camera_keys if n in cameras}
        parts = [torch.as_tensor(states[name]).float().flatten(1) for name in self.state_keys if name in states]
        return {**found, OBS_STATE: torch.cat(parts, -1)} if parts else found

    def get_config(self) -> dict[str, Any]:
        return {"state_keys": list(self.state_keys), "camera_keys": list(self.camera_keys)}


def _picture(pixels: Any) -> Tensor:
    pixels = torch.as_tensor(pixels).movedim(-1, -3)
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
