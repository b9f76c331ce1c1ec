"""One row per policy: a configuration that trains in seconds, and what the regression suite has to know about it.

A policy that is registered without a row here fails the suite.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lerobot.common.policies.common.dinov2 import DINOv2Config
from lerobot.common.policies.factory import make_policy_config
from lerobot.configs.policies import PreTrainedConfig

from .pi0.conftest import SIZES as PI0_SIZES

DINOV2 = DINOv2Config(hidden_size=64, num_hidden_layers=2, num_attention_heads=1, mlp_ratio=2, image_size=28)
RESNET = {"pretrained_backbone_weights": None, "backbone_width": 8, "backbone_layers": 2}
SMOLVLA_SIZES = {
    "scale_factor": 2,
    "vision_config": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "image_size": 32,
        "patch_size": 8,
        "stem_layers": 0,
    },
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_hidden_layers": 2,
    },
}


@dataclass(frozen=True)
class Row:
    """What the suite does with one policy.

    config: fields of the tiny configuration. golden: folders of tests/artifacts. dataset: fields of DatasetConfig.
    overfit: fields changed for learning one batch by heart, with at most `steps` of Adam at rate `lr`. warm: training
    steps before a policy is looked at. frozen: fields that freeze a part. moving: beginnings of the names of frozen
    parameters that `update()` moves.
    """

    config: dict[str, Any]
    golden: tuple[str, ...]
    dataset: dict[str, Any] = field(default_factory=dict)
    overfit: dict[str, Any] = field(default_factory=dict)
    lr: float = 3e-3
    steps: int = 200
    warm: int = 0
    frozen: dict[str, Any] = field(default_factory=dict)
    moving: tuple[str, ...] = ()


ACT = {
    "chunk_size": 5,
    "n_action_steps": 3,
    "dim_model": 32,
    "n_heads": 2,
    "dim_feedforward": 32,
    "n_encoder_layers": 1,
    "n_vae_encoder_layers": 1,
    "latent_dim": 4,
    "dropout": 0.0,
}

ROWS = {
    "act": Row(
        config={**ACT, **RESNET, "backbone_norm": "group"},
        golden=("act_state", "act_ensemble", "act_image"),
        overfit={"kl_weight": 0.0},
    ),
    "act_dinov2": Row(
        config={**ACT, "backbone_config": DINOV2, "backbone_image_size": 28, "pretrained_backbone_weights": None},
        golden=("recorded_act_dinov2",),
        overfit={"kl_weight": 0.0},
        frozen={"freeze_backbone": True},
    ),
    "diffusion": Row(
        config={
            "horizon": 8,
            "n_action_steps": 4,
            "down_dims": (16, 32),
            "n_groups": 4,
            "kernel_size": 3,
            "diffusion_step_embed_dim": 8,
            "num_train_timesteps": 10,
            "spatial_softmax_num_keypoints": 4,
            "backbone_width": 16,
            "backbone_layers": 2,
        },
        golden=("diffusion_state", "diffusion_image"),
    ),
    "pi0": Row(
        config={
            "vlm_config": PI0_SIZES,
            "tokenizer_name": "pi0_mini",
            "tokenizer_max_length": 12,
            "image_resolution": (28, 28),
            "chunk_size": 5,
            "n_action_steps": 3,
            "num_inference_steps": 2,
        },
        golden=("pi0_core",),
        frozen={"train_expert_only": True},
    ),
    "smolvla": Row(
        config={
            "vlm_model_name": "smolvla_mini",
            "vlm_config": SMOLVLA_SIZES,
            "resize_imgs_with_padding": (32, 32),
            "chunk_size": 5,
            "n_action_steps": 3,
            "num_steps": 2,
            "num_vlm_layers": 2,
            "freeze_vision_encoder": False,
            "train_expert_only": False,
        },
        golden=("smolvla_default", "smolvla_special"),
        frozen={"freeze_vision_encoder": True, "train_expert_only": True},
    ),
    "tdmpc": Row(
        config={
            "cameras": ["front"],
            "horizon": 3,
            "image_encoder_hidden_dim": 4,
            "state_encoder_hidden_dim": 16,
            "latent_dim": 8,
            "mlp_dim": 16,
            "cem_iterations": 2,
            "n_gaussian_samples": 12,
            "n_pi_samples": 4,
            "n_elites": 5,
        },
        golden=("tdmpc_state", "tdmpc_pi"),
        dataset={"reward_at_end": 3},
        moving=("model_target",),
    ),
    "vqbet": Row(
        config={
            "cameras": ["front"],
            "n_obs_steps": 2,
            "n_action_pred_token": 2,
            "action_chunk_size": 3,
            "crop_shape": None,
            "spatial_softmax_num_keypoints": 4,
            "n_vqvae_training_steps": 2,
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
        },
        golden=("vqbet",),
        warm=3,
    ),
}


def tiny_config(name: str, device: str = "cpu", **changes) -> PreTrainedConfig:
    """The configuration of a policy's row, without features."""
    return make_policy_config(name, **{**ROWS[name].config, "device": device, **changes})


def overfit_config(name: str, device: str = "cpu", **changes) -> PreTrainedConfig:
    """The configuration in which a policy is made to learn one batch by heart."""
    return tiny_config(name, device, **{**ROWS[name].overfit, **changes})
