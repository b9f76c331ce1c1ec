"""Tiny Diffusion configurations and batches."""

from __future__ import annotations

import torch
from torch import Tensor

from lerobot.common.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.common.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.configs.types import FeatureType, PolicyFeature

TINY = {
    "device": "cpu",
    "horizon": 8,
    "n_action_steps": 4,
    "crop_shape": (32, 36),
    "down_dims": (16, 32),
    "n_groups": 4,
    "kernel_size": 3,
    "diffusion_step_embed_dim": 8,
    "num_train_timesteps": 10,
    "spatial_softmax_num_keypoints": 4,
    "backbone_width": 16,
    "backbone_layers": 2,
}
CAMERAS = {"laptop": (3, 40, 48), "phone": (3, 40, 48)}


def config_of(cameras=None, state=6, env=None, action=6, **changes) -> DiffusionConfig:
    """A tiny configuration; `cameras` maps names to shapes, sizes of None leave the feature out."""
    cameras = CAMERAS if cameras is None else cameras
    inputs = {f"observation.images.{k}": PolicyFeature(FeatureType.VISUAL, s) for k, s in cameras.items()}
    if state:
        inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (state,))
    if env:
        inputs["observation.environment_state"] = PolicyFeature(FeatureType.ENV, (env,))
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (action,))}
    return DiffusionConfig(input_features=inputs, output_features=outputs, **{**TINY, **changes})


def policy_of(config: DiffusionConfig) -> DiffusionPolicy:
    torch.manual_seed(0)
    return DiffusionPolicy(config)


def observation_of(config, size: int = 2, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(size, *f.shape, generator=generator) for k, f in config.input_features.items()}


def batch_of(config, size: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """Windows of observations and actions; the last sample has two padded steps."""
    generator = torch.Generator().manual_seed(seed)
    steps, horizon = len(config.observation_delta_indices), len(config.action_delta_indices)
    inputs = {k: torch.randn(size, steps, *f.shape, generator=generator) for k, f in config.input_features.items()}
    is_pad = torch.zeros(size, horizon, dtype=torch.bool)
    is_pad[-1, -2:] = True
    action = torch.randn(size, horizon, *config.action_feature.shape, generator=generator)
    return {**inputs, "action": action, "action_is_pad": is_pad}
