"""Observations of gymnasium environments in the names and layout that policies read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lerobot.common.constants import OBS_ENV_STATE, OBS_IMAGE, OBS_IMAGES, OBS_PREFIX, OBS_STATE
from lerobot.common.processor.registry import ProcessorStepRegistry
from lerobot.common.processor.steps import Features, ObservationProcessorStep

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
        return {side: {_new_name(name): feature for name, feature in named.items()} for side, named in features.items()}


def _named(pixels: Any) -> dict[str, Any]:
    if isinstance(pixels, dict):
        return {f"{OBS_IMAGES}.{camera}": array for camera, array in pixels.items()}
    return {OBS_IMAGE: pixels}


def _new_name(name: str) -> str:
    bare = name.removeprefix(OBS_PREFIX)
    if bare == "pixels":
        return OBS_IMAGE
    if bare.startswith("pixels."):
        return f"{OBS_IMAGES}.{bare.removeprefix('pixels.')}"
    return _STATES.get(bare, name)


def picture(array: Any, name: str) -> torch.Tensor:
    """uint8 (H, W, C) or (B, H, W, C) -> float32 (B, C, H, W) in [0, 1]."""
    image = torch.as_tensor(np.ascontiguousarray(array))
    if image.ndim == 3:
        image = image.unsqueeze(0)
    if image.ndim != 4:
        raise ValueError(f"'{name}' must have shape (H, W, C) or (B, H, W, C), got {tuple(image.shape)}.")
    if image.dtype is not torch.uint8:
        raise ValueError(f"Expected torch.uint8 images, but got {image.dtype} for '{name}'.")
    _, height, width, channels = image.shape
    if channels >= height or channels >= width:
        raise ValueError(f"Expected channel-last images, but got shape {tuple(image.shape)} for '{name}'.")
    return image.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
