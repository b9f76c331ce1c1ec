"""PaliGemma and the action expert beside it: SigLIP tower, projector, two Gemma streams; key names as published."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot.common.policies.common.attention import checkpointed, in_dtype_of
from lerobot.common.policies.common.llama import (
    TextAttention,
    TextConfig,
    TextLayer,
    init_normal,
    joint_layer,
    prefix_layer,
    rope_table,
)
from lerobot.common.policies.common.positions import position_waves
from lerobot.common.policies.common.siglip import VisionConfig, VisionModel
from lerobot.common.policies.common.trained_linear import TrainedLinear
from lerobot.common.policies.pi0.configuration_pi0 import PI0Config

VOCABULARY = 257152
PAD = 0  # id of the padding token, whose embedding is not trained
GEMMA = {
    "gemma_2b": TextConfig(2048, 16384, 18, 8, 1, VOCABULARY, head_dim=256, rms_norm_eps=1e-6),
    "gemma_300m": TextConfig(1024, 4096, 18, 8, 1, VOCABULARY, head_dim=256, rms_norm_eps=1e-6),
}
SIGLIP = VisionConfig(1152, 16, image_size=224, patch_size=14, intermediate_size=4304, num_hidden_layers=27)

KeysValues = list[tuple[Tensor, Tensor]]  # per layer, each (B, N, kv_heads, head_dim)


@dataclass(frozen=True)
class Sizes:
    """Geometry of the three parts. Raises ValueError if the two Gemma streams cannot attend each other."""

    vision: VisionConfig
    text: TextConfig
    expert: TextConfig

    def __post_init__(self):
        for name in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"):
            text, expert = getattr(self.text, name), getattr(self.expert, name)
            if text != expert:
                raise ValueError(
                    f"The language model has {name}={text}, the expert {expert}: they attend each other, "
                    "so --policy.vlm_config must give both the same."
                )

    @classmethod
    def of(cls, config: PI0Config) -> Sizes:
        """The sizes of the variants, with those of `config.vlm_config` in their place."""
        base = {
            "vision_config": SIGLIP,
            "text_config": GEMMA[config.paligemma_variant],
            "expert_config": GEMMA[config.action_expert_variant],
        }
        unknown = set(config.vlm_config) - set(base)
        if unknown:
            raise ValueError(f"vlm_config has {', '.join(sorted(unknown))}; expected {', '.join(base)}.")
        return cls(*(_replaced(part, config.vlm_config.get(name, {}), name) for name, part in base.items()))


def _replaced(part, changes: dict, name: str):
    unknown = set(changes) - {f.name for f in fields(part)}
    if unknown:
        known = ", ".join(f.name for f in fields(part))
        raise ValueError(f"vlm_config.{name} has {', '.join(sorted(unknown))}; expected some of {known}.")
    return dataclasses.replace(part, **changes)


class GemmaRMSNorm(nn.Module):
    """Root-mean-square norm times (1 + weight), in float32; the result has the input's dtype."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return (y * (1.0 + self.weight.float())).to(x.dtype)


class GemmaMLP(nn.Module):
    """Gated MLP with a tanh-approximated GELU."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.gate_proj = TrainedLinear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = TrainedLinear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = TrainedLinear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = in_dtype_of(self.gate_proj, x)
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class GemmaLayer(TextLayer):
    """A Gemma block, cut open at its attention so that two streams can meet there."""

    def __init__(self, config: TextConfig):
        nn.Module.__init__(self)
        self.self_attn = TextAttention(config)
        self.mlp = GemmaMLP(config)
        self.input_layernorm = GemmaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = GemmaRMSNorm(config.hidden_size, config.rms_norm_eps)


class Gemma(nn.Module):
    """Blocks and final norm; the token embedding only where tokens are read."""

    def __init__(self, config: TextConfig, embeds_tokens: bool):
        super().__init__()
        if embeds_tokens:
            self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=PAD)
        self.layers = nn.ModuleList(GemmaLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = GemmaRMSNorm(config.hidden_size, config.rms_norm_eps)


class SiglipModel(VisionModel):
    """The vision tower; its parameters are registered in the published order, which optimizer states follow."""

    def __init__(self, config: VisionConfig):
        super().__init__(config)
        for layer in self.encoder.layers:
            for name in ("layer_norm1", "self_attn", "layer_norm2", "mlp"):
                layer._modules[name] = layer._modules.pop(name)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures `(B, 3, H, W)` in [-1, 1] -> `(B, N, D)`."""
        x, _ = self.embeddings(images)
        x = x.to(self.post_layernorm.weight.dtype)
        for layer in self.encoder.layers:
            x = layer(x)
        return self.post_layernorm(x)


class VisionTower(nn.Module):
    """Holds the tower under its published name."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.vision_model = SiglipModel(config)


class Projector(nn.Module):
    """Patch features -> tokens of the language model."""

    def __init__(self, vision_width: int, text_width: int):
        super().__init__()
        self.linear = nn.Linear(vision_width, text_width)


class PaliGemmaModel(nn.Module):
    """Vision tower, projector, language model."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.vision_tower = VisionTower(sizes.vision)
        self.multi_modal_projector = Projector(sizes.vision.hidden_size, sizes.text.hidden_size)
        self.language_model = Gemma(sizes.text, embeds_tokens=True)


class PaliGemma(nn.Module):
    """The vision-language model; its language head is the token embedding."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.model = PaliGemmaModel(sizes)
        self.lm_head = nn.Linear(sizes.text.hidden_size, sizes.text.vocab_size, bias=False)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Make head and embedding one parameter (again, after `to_empty`)."""
        self.lm_head.weight = self.model.language_model.embed_tokens.weight


class GemmaExpert(nn.Module):
    """The expert; checkpoints hold a language head that nothing uses."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.model = Gemma(config, embeds_tokens=False)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)


class PaliGemmaWithExpert(nn.Module):
    """Two streams through the same depth: pictures and task; state and noisy actions.

    The first never attends the second, so it runs once, alone, and leaves the keys and values of every layer.
    """

    def __init__(self, config: PI0Config):
        super().__init__()
        self.config, self.sizes = config, Sizes.of(config)
        self.paligemma = PaliGemma(self.sizes)
        self.gemma_expert = GemmaExpert(self.sizes.expert)
        self._set_precision()
        if config.train_expert_only:
            self.paligemma.requires_grad_(False)
        elif config.freeze_vision_encoder:
            self.paligemma.model.vision_tower.requires_grad_(False)

    def _set_precision(self) -> None:
        """bfloat16 but for the parts that stay float32: embeddings of patches and all norms, or, with
        `legacy_rounding`, the expert's final norm and head."""
        if self.config.dtype == "float32":
            return
        self.to(torch.bfloat16)
        if self.config.legacy_rounding:
            self.gemma_expert.model.norm.float()
            self.gemma_expert.lm_head.float()
            return
        self.paligemma.model.vision_tower.vision_model.embeddings.float()
        for module in self.modules():
            if isinstance(module, GemmaRMSNorm):
                module.float()

    def train(self, mode: bool = True):
        super().train(mode)
        if self.config.freeze_vision_encoder:
            self.paligemma.model.vision_tower.eval()
        if self.config.train_expert_only:
            self.paligemma.eval()
        return self

    def init_weights(self) -> None:
        """Random weights; positions start as waves."""
        tower = self.paligemma.model.vision_tower.vision_model
        init_normal(self, 0.02)
        if tower.embeddings.stem is not None:
            tower.embeddings.stem.init_weights()
        table = tower.embeddings.position_embedding.weight
        with torch.no_grad():
            table.copy_(0.1 * position_waves(tower.embeddings.side, table.shape[1]))
        for module in self.modules():
            if isinstance(module, GemmaRMSNorm):
                nn.init.zeros_(module.weight)
        nn.init.zeros_(self.gemma_expert.lm_head.weight)

    def embed_images(self, images: Tensor) -> Tensor:
        """Pictures `(B, 3, H, W)` in [-1, 1] -> features of the vision tower `(B, N, vision width)`."""
        return self.paligemma.model.vision_tower.vision_model(images)

    def project(self, features: Tensor) -> Tensor:
        """Features of the vision tower -> tokens `(B, N, D)` of the language model."""
        linear = self.paligemma.model.multi_modal_projector.linear
        tokens = linear(in_dtype_of(linear, features))
        if not self.config.legacy_rounding:
            return tokens
        root = tokens.shape[-1] ** 0.5  # the model divided by it, its caller multiplied, each rounding
        return (tokens / root * torch.tensor(root, dtype=tokens.dtype)).bfloat16()

    def embed_language(self, tokens: Tensor) -> Tensor:
        """Token ids `(B, L)` -> embeddings times sqrt(D), `(B, L, D)`."""
        embedded = self.paligemma.model.language_model.embed_tokens(tokens)
        return embedded * embedded.shape[-1] ** 0.5

    @property
    def recomputes(self) -> bool:
        """Whether layers are computed again in the backward pass."""
        return self.config.gradient_checkpointing and self.training

    def prefix_keys_values(self, hidden: Tensor, positions: Tensor, bias: Tensor) -> KeysValues:
        """Run the prefix through the language model; returns rotated keys, and values, of every layer.

        hidden `(B, P, D)`; positions `(B, P)`; bias `(B, 1, P, P)`, additive.
        """
        table = rope_table(positions, self.sizes.text.head_dim)
        layers = self.paligemma.model.language_model.layers
        hidden = hidden.to(layers[0].self_attn.q_proj.weight.dtype)
        keys_values = []
        for i, layer in enumerate(layers):
            last = i == len(layers) - 1  # nothing reads its output
            k, v, hidden = checkpointed(self.recomputes, prefix_layer, layer, hidden, table, bias, last)
            keys_values.append((k, v))
        return keys_values

    def expert_hidden(self, hidden: Tensor, prefix: KeysValues, positions: Tensor, bias: Tensor) -> Tensor:
        """Run state and action tokens `(B, S, W)` through the expert; returns the final norm's output.

        positions `(B, S)` in the whole sequence; bias `(B, 1, S, P + S)`, additive, over prefix and these tokens.
        """
        table = rope_table(positions, self.sizes.expert.head_dim)
        layers = self.gemma_expert.model.layers
        if not self.config.legacy_rounding:
            hidden = hidden.to(layers[0].self_attn.q_proj.weight.dtype)
        for layer, (k, v) in zip(layers, prefix, strict=True):
            hidden = checkpointed(self.recomputes, joint_layer, layer, hidden, k, v, table, bias)
        return self.gemma_expert.model.norm(hidden)
