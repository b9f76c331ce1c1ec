"""Tiny pi0 policies of any configuration."""

from __future__ import annotations

from pathlib import Path

import torch

from lerobot.common.policies.pi0.configuration_pi0 import PI0Config
from lerobot.common.policies.pi0.modeling_pi0 import PI0Policy
from lerobot.configs.types import FeatureType, PolicyFeature

ARTIFACTS = Path(__file__).parents[2] / "artifacts"

SIZES = {
    "vision_config": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "image_size": 28,
        "patch_size": 14,
    },
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "head_dim": 8,
        "vocab_size": 600,
    },
    "expert_config": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "head_dim": 8,
        "vocab_size": 600,
    },
}


def tiny_config(cameras=("top", "wrist_left"), size=(28, 28), state=6, action=6, **changes) -> PI0Config:
    """A configuration of a few thousand parameters; `changes` are configuration fields."""
    images = {f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, (3, *size)) for c in cameras}
    fields = {
        "vlm_config": SIZES,
        "tokenizer_name": "pi0_mini",
        "device": "cpu",
        "chunk_size": 5,
        "n_action_steps": 3,
        "num_inference_steps": 2,
        "image_resolution": (28, 28),
        "input_features": {"observation.state": PolicyFeature(FeatureType.STATE, (state,)), **images},
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (action,))},
    }
    return PI0Config(**{**fields, **changes})


def tiny_policy(seed=0, **changes) -> PI0Policy:
    torch.manual_seed(seed)
    policy = PI0Policy(tiny_config(**changes))
    with torch.no_grad():  # fresh norms and biases are zero, which would hide mistakes
        for parameter in policy.parameters():
            if parameter.ndim == 1:
                parameter.normal_(std=0.1)
    return policy


def tiny_batch(config: PI0Config, batch_size=2, seed=1, leave_out=()) -> dict:
    """A preprocessed training batch without the cameras `leave_out`; the last step of each chunk is padding."""
    draw = torch.Generator().manual_seed(seed)
    batch = {
        key: torch.rand(batch_size, *f.shape, generator=draw)
        for key, f in config.input_features.items()
        if key.rpartition(".")[2] not in leave_out
    }
    width = config.action_feature.shape[0]
    return {
        **batch,
        "observation.language.tokens": torch.randint(4, 570, (batch_size, 6), generator=draw),
        "observation.language.attention_mask": torch.arange(6).expand(batch_size, -1) < 5,
        "action": torch.randn(batch_size, config.chunk_size, width, generator=draw),
        "action_is_pad": torch.arange(config.chunk_size).expand(batch_size, -1) >= config.chunk_size - 1,
    }
