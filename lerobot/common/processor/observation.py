"""Observations of gymnasium environments in the names and layout that policies read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lerobot.common.constants import OBS_ENV_STATE, OBS_IMAGE, OBS_IMAGES, OBS_STATE
from lerobot.common.processor.registry import ProcessorStepRegistry
from lerobot.common.processor.steps import Features, ObservationProcessorStep
from lerobot.configs.types import PipelineFeatureType

_STATES = {"environment_state": OBS_ENV_STATE, "agent_pos": OBS_STATE}


@ProcessorStepRegistry.register("observation_processor")
@dataclass
class VanillaObservationProcessorStep(ObservationProcessorStep):
    """`pixels` (array, or dict by camera) -> pictures float32 (B, C, H, W) in [0, 1]; `agent_pos` and
    `environment_state` -> states float32 (B, S). Other keys are kept. Raises ValueError for other layouts of
    pictures.
    """

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        pixels = observation.pop("pixels", None)
        if pixels is not None:
            observation.update({name: picture(array, name) for name, array in _named(pixels).items()})
        for old, new in _STATES.items():
            if old in observation:
                state = torch.as_tensor(np.asarray(observation.pop(old))).to(torch.float32)
                observation[new] = state.unsqueeze(0) if state.ndim == 1 else state
        return observation

    def transform_features(self, features: Features) -> Features:
        side = PipelineFeatureType.OBSERVATION
        renamed = {_new_name(name): feature for name, feature in features.get(side, {}).items()}
        return {**features, side: renamed}


def _named(pixels: Any) -> dict[str, Any]:
    if isinstance(pixels, dict):
        return {f"{OBS_IMAGES}.{camera}": array for camera, array in pixels.items()}
    return {OBS_IMAGE: pixels}


def _new_name(name: str) -> str:
    if name == "pixels":
        return OBS_IMAGE
    if name.startswith("pixels."):
        return f"{OBS_IMAGES}.{name.removeprefix('pixels.')}"
    return _STATES.get(name, name)


def picture(array: Any, name: str) -> torch.Tensor:
    """uint8 (H, W, C) or (B, H, W, C) -> float32 (B, C, H, W) in [0, 1]."""
    image = torch.as_tensor(np.ascontiguousarray(array))
    if image.ndim == 3:
        image = image.unsqueeze(0)
    if image.ndim != 4 or image.dtype is not torch.uint8:
        raise ValueError(
            f"'{name}' must be uint8 of shape (H, W, C) or (B, H, W, C), got {image.dtype} {tuple(image.shape)}."
        )
    _, height, width, channels = image.shape
    if channels >= height or channels >= width:
        raise ValueError(f"'{name}' must have its channels last, got shape {tuple(image.shape)}.")
    return image.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
