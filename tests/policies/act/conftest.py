"""Tiny ACT configurations and batches."""

from __future__ import annotations

import pytest
import torch

from lerobot.common.policies.act.configuration_act import ACTConfig
from lerobot.common.policies.act.modeling_act import ACTPolicy

from ..tiny import features

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
    """A tiny configuration; see `features`."""
    cameras = CAMERAS if cameras is None else cameras
    return ACTConfig(**features(cameras, state, env, action), **{**TINY, **changes})


def policy_of(config: ACTConfig) -> ACTPolicy:
    torch.manual_seed(0)
    return ACTPolicy(config)


@pytest.fixture
def config() -> ACTConfig:
    return config_of()


@pytest.fixture
def policy(config) -> ACTPolicy:
    return policy_of(config)
