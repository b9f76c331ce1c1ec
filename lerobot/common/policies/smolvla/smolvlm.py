"""The SmolVLM2 backbone: vision tower, connector, llama text layers; key names as in its published weights.

Written here, not taken from transformers, so that the text layers hand out their keys and values.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from lerobot.common.policies.common.llama import RMSNorm, TextConfig, TextLayer
from lerobot.common.policies.common.siglip import VisionConfig, VisionModel


@dataclass(frozen=True)
class SmolVLMConfig:
    """What is read of a SmolVLM `config.json`. Raises ValueError for a missing size or another activation."""

    vision: VisionConfig
    text: TextConfig
    scale_factor: int

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> SmolVLMConfig:
        """Read the JSON that transformers writes (`torch_dtype` in older releases, `dtype` in newer)."""
        vision, text = raw["vision_config"], dict(raw["text_config"])
        _require_activation(vision, "gelu_pytorch_tanh")
        _require_activation(text, "silu")
        text.setdefault("num_key_value_heads", text["num_attention_heads"])
        if text.get("head_dim") is None:
            text["head_dim"] = text["hidden_size"] // text["num_attention_heads"]
        return cls(_read(VisionConfig, vision), _read(TextConfig, text), raw["scale_factor"])


def _read(cls, raw: dict[str, Any]):
    known = {f.name for f in fields(cls)} - {"dtype"}
    dtype = raw.get("dtype") or raw.get("torch_dtype") or "float32"
    values = {k: v for k, v in raw.items() if k in known}
    try:
        return cls(**values, dtype=getattr(torch, dtype))
    except TypeError as e:
        raise ValueError(f"The configuration of the vision-language model is incomplete: {e}.") from e


def _require_activation(raw: dict[str, Any], expected: str) -> None:
    found = raw.get("hidden_act", expected)
    if found != expected:
        raise ValueError(f"The vision-language model uses activation '{found}'; SmolVLM has '{expected}'.")


class ModalityProjection(nn.Module):
    """Linear map from a square of patch features to one text token."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.proj = nn.Linear(in_features, out_features, bias=False)


class Connector(nn.Module):
    """Joins each `r` x `r` square of patches to one text token (pixel shuffle, then linear)."""

    def __init__(self, config: SmolVLMConfig):
        super().__init__()
        self.factor = config.scale_factor
        self.modality_projection = ModalityProjection(
            config.vision.hidden_size * self.factor**2, config.text.hidden_size
        )

    def forward(self, features: Tensor, grid: tuple[int, int]) -> Tensor:
        """features `(B, rows * cols, D)`, row by row -> `(B, rows * cols / r**2, text width)`, row by row."""
        r, (rows, cols) = self.factor, grid
        if rows % r or cols % r:
            raise ValueError(
                f"Pictures give {rows} x {cols} patches, which {r} x {r} squares do not cover: choose "
                f"--policy.resize_imgs_with_padding as a multiple of {r} patches on both sides."
            )
        batch, _, width = features.shape
        squares = features.view(batch, rows // r, r, cols // r, r, width).transpose(2, 3)
        return self.modality_projection.proj(squares.reshape(batch, -1, r * r * width))


class TextModel(nn.Module):
    """Token embedding, blocks and final norm of the language model."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(TextLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class SmolVLMBackbone(nn.Module):
    """Vision tower, connector and text model."""

    def __init__(self, config: SmolVLMConfig):
        super().__init__()
        self.vision_model = VisionModel(config.vision)
        self.connector = Connector(config)
        self.text_model = TextModel(config.text)


class SmolVLM(nn.Module):
    """The vision-language model as published; SmolVLA never calls its language head."""

    def __init__(self, config: SmolVLMConfig):
        super().__init__()
        self.model = SmolVLMBackbone(config)
        self.lm_head = nn.Linear(config.text.hidden_size, config.text.vocab_size, bias=False)

    def embed_images(self, images: Tensor) -> Tensor:
        """Pictures `(B, C, H, W)` in [-1, 1] -> tokens `(B, N, D)` in the precision of the vision tower."""
        return self.model.connector(*self.model.vision_model(images))
