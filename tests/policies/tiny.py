"""Features, observations and batches for tiny policies; each policy's conftest adds its sizes."""

from __future__ import annotations

import torch
from torch import Tensor

from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, PolicyFeature


def features(cameras: dict[str, tuple], state: int | None = 6, env: int | None = None, action: int = 6) -> dict:
    """`input_features` and `output_features`; `cameras` maps names to shapes, sizes of None leave the feature out."""
    inputs = {f"observation.images.{k}": PolicyFeature(FeatureType.VISUAL, s) for k, s in cameras.items()}
    if state:
        inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (state,))
    if env:
        inputs["observation.environment_state"] = PolicyFeature(FeatureType.ENV, (env,))
    return {"input_features": inputs, "output_features": {"action": PolicyFeature(FeatureType.ACTION, (action,))}}


def observation_of(config: PreTrainedConfig, size: int = 2, seed: int = 0, lead: tuple = ()) -> dict[str, Tensor]:
    """Inputs (size, *lead, ...), drawn from a seed."""
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(size, *lead, *f.shape, generator=generator) for k, f in config.input_features.items()}


def batch_of(config: PreTrainedConfig, size: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """The observations and actions that the policy asks for; the last sample has two padded steps."""
    frames, steps = config.observation_delta_indices, len(config.action_delta_indices)
    is_pad = torch.zeros(size, steps, dtype=torch.bool)
    is_pad[-1, -2:] = True
    generator = torch.Generator().manual_seed(seed + 100)
    action = torch.randn(size, steps, *config.action_feature.shape, generator=generator)
    lead = () if frames is None else (len(frames),)
    return {**observation_of(config, size, seed, lead), "action": action, "action_is_pad": is_pad}
