"""Tiny Diffusion configurations and batches."""

from __future__ import annotations

import torch

from lerobot.common.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.common.policies.diffusion.modeling_diffusion import DiffusionPolicy

from ..tiny import features

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
    """A tiny configuration; see `features`."""
    cameras = CAMERAS if cameras is None else cameras
    return DiffusionConfig(**features(cameras, state, env, action), **{**TINY, **changes})


def policy_of(config: DiffusionConfig) -> DiffusionPolicy:
    torch.manual_seed(0)
    return DiffusionPolicy(config)
