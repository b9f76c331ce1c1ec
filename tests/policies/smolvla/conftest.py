"""Golden cases, and tiny policies of any configuration."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lerobot.common.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.common.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, PolicyFeature

ARTIFACTS = Path(__file__).parents[2] / "artifacts"


@dataclass
class Case:
    """One golden case: its tensors, its metadata and the policy of LeRobot 0.4.4 loaded here."""

    tensors: dict
    meta: dict
    policy: SmolVLAPolicy

    def batch(self) -> dict:
        """The preprocessed training batch."""
        same = {k: self.tensors[f"raw.{k}"] for k in self.meta["batch_keys_same_as_raw"]}
        return {**same, **self.prefixed("batch."), "task": self.meta["task_after_preprocessor"]}

    def prefixed(self, prefix: str) -> dict:
        return {k[len(prefix) :]: v for k, v in self.tensors.items() if k.startswith(prefix)}

    def draws(self) -> dict:
        return {"noise": self.tensors["noise"], "time": self.tensors["time"]}

    def kept_columns(self) -> list[int]:
        """Prefix columns that are built here: not pictures of absent cameras, not padding up to
        prefix_length."""
        config = self.policy.config
        per_camera = self.tensors["stage.vision_embedding.0"].shape[1]
        markers = (2, 1) if config.add_image_special_tokens else (0, 0)
        present = len(config.image_features) - len(self.meta["missing_cams"]) - config.empty_cameras
        text = self.tensors["batch.observation.language.tokens"].shape[1]
        columns, at = [], 0
        for camera in range(present + config.empty_cameras):
            built = per_camera if camera < present else 0
            columns += range(at, at + markers[0] + built)
            at += markers[0] + per_camera
            columns += range(at, at + markers[1])
            at += markers[1]
        return [*columns, *range(at, at + text + 1)]


@pytest.fixture(params=["smolvla_default", "smolvla_special"])
def case(request, monkeypatch) -> Case:
    folder = ARTIFACTS / request.param
    monkeypatch.chdir(folder)  # vlm_model_name is the relative path "vlm"
    config = PreTrainedConfig.from_pretrained("checkpoint")
    config.loss_over_padding = True
    policy = SmolVLAPolicy.from_pretrained("checkpoint", config=config, strict=True)
    return Case(load_file("tensors.safetensors"), json.loads(Path("meta.json").read_text()), policy)


def tiny_config(cameras=("top", "wrist"), size=(32, 32), state=6, action=6, **changes) -> SmolVLAConfig:
    """A configuration of a few thousand parameters, everything trained; `changes` are configuration
    fields."""
    vlm = {
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
            "num_hidden_layers": 4,
        },
    }
    images = {f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, (3, *size)) for c in cameras}
    fields = {
        "vlm_model_name": "smolvla_mini",
        "vlm_config": vlm,
        "device": "cpu",
        "chunk_size": 5,
        "n_action_steps": 3,
        "num_steps": 2,
        "num_vlm_layers": 4,
        "resize_imgs_with_padding": (32, 32),
        "freeze_vision_encoder": False,
        "train_expert_only": False,
        "input_features": {"observation.state": PolicyFeature(FeatureType.STATE, (state,)), **images},
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (action,))},
    }
    return SmolVLAConfig(**{**fields, **changes})


def tiny_policy(seed=0, **changes) -> SmolVLAPolicy:
    torch.manual_seed(seed)
    return SmolVLAPolicy(tiny_config(**changes))


def tiny_batch(config: SmolVLAConfig, batch_size=2, seed=1, leave_out=()) -> dict:
    """A preprocessed training batch with a time axis of 1 on the observation, without the cameras
    `leave_out`."""
    draw = torch.Generator().manual_seed(seed)
    batch = {
        key: torch.rand(batch_size, 1, *f.shape, generator=draw)
        for key, f in config.input_features.items()
        if key.rpartition(".")[2] not in leave_out
    }
    width = config.action_feature.shape[0]
    return {
        **batch,
        "observation.language.tokens": torch.randint(3, 500, (batch_size, 6), generator=draw),
        "observation.language.attention_mask": torch.arange(6).expand(batch_size, -1) < 5,
        "action": torch.randn(batch_size, config.chunk_size, width, generator=draw),
        "action_is_pad": torch.arange(config.chunk_size).expand(batch_size, -1) >= config.chunk_size - 1,
    }
