"""Tiny VQ-BeT configurations and batches."""

from __future__ import annotations

import torch

from lerobot.common.policies.vqbet.configuration_vqbet import VQBeTConfig
from lerobot.common.policies.vqbet.modeling_vqbet import VQBeTPolicy

from ..tiny import features

TINY = {
    "device": "cpu",
    "n_obs_steps": 3,
    "n_action_pred_token": 2,
    "action_chunk_size": 4,
    "crop_shape": (32, 36),
    "spatial_softmax_num_keypoints": 4,
    "n_vqvae_training_steps": 3,
    "vqvae_n_embed": 6,
    "vqvae_embedding_dim": 8,
    "vqvae_enc_hidden_dim": 16,
    "gpt_block_size": 12,
    "gpt_input_dim": 16,
    "gpt_output_dim": 20,
    "gpt_n_layer": 2,
    "gpt_n_head": 2,
    "gpt_hidden_dim": 24,
    "dropout": 0.0,
    "backbone_width": 16,
    "backbone_layers": 2,
}


def config_of(cameras=None, state=6, env=None, action=6, **changes) -> VQBeTConfig:
    """A tiny configuration; see `features`."""
    cameras = {"laptop": (3, 40, 48)} if cameras is None else cameras
    return VQBeTConfig(**features(cameras, state, env, action), **{**TINY, **changes})


def policy_of(config: VQBeTConfig, phase: int = 2) -> VQBeTPolicy:
    torch.manual_seed(0)
    policy = VQBeTPolicy(config)
    if phase == 2:
        policy.vqbet.action_head._finish_first_phase()
    return policy
