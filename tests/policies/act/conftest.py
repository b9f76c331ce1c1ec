"""Tiny ACT configurations and batches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lerobot.common.policies.act.configuration_act import ACTConfig
from lerobot.common.policies.act.modeling_act import ACTPolicy
from lerobot.configs.types import FeatureType, PolicyFeature

TINY = {
    "device": "cpu",
    "chunk_size": 5,
    "n_action_steps": 3,
    "dim_model": 16,
    "n_heads": 2,
    "dim_feedforward": 24,
    "n_encoder_layers": 2,
    "n_vae_encoder_layers": 1,
    "latent_dim": 4,
    "dropout": 0.0,
    "pretrained_backbone_weights": None,
    "backbone_width": 8,
    "backbone_layers": 2,
    "backbone_norm": "group",
}
CAMERAS = {"laptop": (3, 32, 48), "phone": (3, 32, 48)}


def config_of(cameras=None, state=6, env=None, action=6, **changes) -> ACTConfig:
    """A tiny configuration; `cameras` maps names to shapes, sizes of None leave the feature out."""
    cameras = CAMERAS if cameras is None else cameras
    inputs = {f"observation.images.{k}": PolicyFeature(FeatureType.VISUAL, s) for k, s in cameras.items()}
    if state:
        inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (state,))
    if env:
        inputs["observation.environment_state"] = PolicyFeature(FeatureType.ENV, (env,))
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (action,))}
    return ACTConfig(input_features=inputs, output_features=outputs, **{**TINY, **changes})


def policy_of(config: ACTConfig) -> ACTPolicy:
    torch.manual_seed(0)
    return ACTPolicy(config)


def observation_of(config: ACTConfig, size: int = 2, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(size, *f.shape, generator=generator) for k, f in config.input_features.items()}


def batch_of(config: ACTConfig, size: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """An observation with a chunk of which the last sample has two padded steps."""
    is_pad = torch.zeros(size, config.chunk_size, dtype=torch.bool)
    is_pad[-1, -2:] = True
    generator = torch.Generator().manual_seed(seed + 100)
    action = torch.randn(size, config.chunk_size, *config.action_feature.shape, generator=generator)
    return {**observation_of(config, size, seed), "action": action, "action_is_pad": is_pad}


@pytest.fixture
def config() -> ACTConfig:
    return config_of()


@pytest.fixture
def policy(config) -> ACTPolicy:
    return policy_of(config)
