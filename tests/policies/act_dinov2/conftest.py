"""A tiny DINOv2 and tiny ACT-DINOv2 configurations; batches are those of ACT."""

from __future__ import annotations

import torch

from lerobot.common.policies.act_dinov2.configuration_act_dinov2 import ACTDINOv2Config
from lerobot.common.policies.act_dinov2.modeling_act_dinov2 import ACTDINOv2Policy
from lerobot.common.policies.common.dinov2 import DINOv2Config

from ..tiny import features

NET = DINOv2Config(hidden_size=64, num_hidden_layers=2, num_attention_heads=1, mlp_ratio=2, image_size=56)
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
    "backbone_config": NET,
    "backbone_image_size": (28, 42),
}
CAMERAS = {"laptop": (3, 32, 48), "phone": (3, 32, 48)}


def config_of(cameras=None, **changes) -> ACTDINOv2Config:
    """A tiny configuration; see `features`."""
    cameras = CAMERAS if cameras is None else cameras
    return ACTDINOv2Config(**features(cameras), **{**TINY, **changes})


def policy_of(config: ACTDINOv2Config) -> ACTDINOv2Policy:
    """With a backbone whose weights are large enough to tell pictures apart."""
    torch.manual_seed(0)
    policy = ACTDINOv2Policy(config)
    with torch.no_grad():
        for p in policy.model.backbone.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return policy
