"""The vision-language model and the action expert beside it, layer by layer."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from lerobot.common.policies.common.attention import checkpointed, in_dtype_of
from lerobot.common.policies.common.llama import (
    RMSNorm,
    TextConfig,
    TextLayer,
    grouped_attention,
    init_normal,
    joint_layer,
    prefix_layer,
    rope_table,
    rotate,
)
from lerobot.common.policies.common.positions import position_waves
from lerobot.common.policies.common.trained_linear import TrainedLinear
from lerobot.common.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.common.policies.smolvla.smolvlm import SmolVLM, SmolVLMConfig

KeysValues = list[tuple[Tensor, Tensor]]  # per layer, each (B, N, kv_heads, head_dim)


def apply_rope(x: Tensor, positions: Tensor, max_wavelength: float = 10_000.0) -> Tensor:
    """Rotate `x` `(B, T, heads, head_dim)` by integer `positions` `(B, T)`."""
    return rotate(x, rope_table(positions, x.shape[-1], max_wavelength))


def get_intermediate_size(hidden_dim: int, ffn_dim_multiplier: int = 4, multiple_of: int = 256) -> int:
    """Width of the expert's MLP: two thirds of `ffn_dim_multiplier` widths, rounded up to a multiple."""
    width = int(ffn_dim_multiplier * int(2 * hidden_dim / 3))
    return multiple_of * -(-width // multiple_of)


class Expert(nn.Module):
    """Llama blocks over the action tokens; in cross layers keys and values come from the prefix's."""

    def __init__(self, config: TextConfig, cross_layers: list[int]):
        super().__init__()
        self.layers = nn.ModuleList(TextLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.to(config.dtype)
        width = config.num_key_value_heads * config.head_dim
        for i in cross_layers:
            attention = self.layers[i].self_attn
            attention.k_proj = TrainedLinear(width, width, bias=config.attention_bias)
            attention.v_proj = TrainedLinear(width, width, bias=config.attention_bias)


class LayersError(ValueError, AssertionError):
    """Layers of expert and language model that do not fit; an AssertionError as in LeRobot."""


class SmolVLMWithExpertModel(nn.Module):
    """Two streams through the same depth: the prefix (pictures, task, state) and the action tokens.

    The prefix never attends action tokens, so it runs once, alone, and leaves keys and values of every layer.
    The expert reads them in joint layers (beside its own, by self-attention) or in cross layers (through
    projections of its own).

    vlm_config: of the whole vision-language model; `config.num_vlm_layers` says how many text layers are
    kept. Raises LayersError if the kept layers are not a multiple of `config.num_expert_layers`.
    """

    def __init__(self, vlm_config: SmolVLMConfig, config: SmolVLAConfig):
        super().__init__()
        vlm_config = cut_text_layers(vlm_config, config.num_vlm_layers)
        if config.load_vlm_weights:
            vlm_config = in_bfloat16(vlm_config)
        self.config, self.vlm_config = config, vlm_config
        self.num_vlm_layers = vlm_config.text.num_hidden_layers
        self.num_expert_layers = config.num_expert_layers if config.num_expert_layers > 0 else self.num_vlm_layers
        if self.num_vlm_layers % self.num_expert_layers:
            raise LayersError(
                f"The {self.num_vlm_layers} text layers (--policy.num_vlm_layers) are not a multiple of "
                f"--policy.num_expert_layers={self.num_expert_layers}."
            )
        self.every = self.num_vlm_layers // self.num_expert_layers
        self.vlm = SmolVLM(vlm_config)
        self.vlm.model.vision_model.to(vlm_config.vision.dtype)
        self.vlm.model.vision_model.recomputes = config.gradient_checkpointing
        self.vlm.model.text_model.to(vlm_config.text.dtype)
        if config.load_vlm_weights:
            self.vlm.to(torch.bfloat16)
        self.expert_config = expert_config(vlm_config.text, config.expert_width_multiplier, self.num_expert_layers)
        cross = [i // self.every for i in range(0, self.num_vlm_layers, self.every) if self.is_cross(i)]
        self.lm_expert = Expert(self.expert_config, cross)
        self.set_requires_grad()

    def is_cross(self, layer: int) -> bool:
        """Whether the expert reads the prefix by cross-attention beside text layer `layer`."""
        n = self.config.self_attn_every_n_layers
        return "cross" in self.config.attention_mode and not (n > 0 and layer % n == 0)

    def expert_layer(self, layer: int) -> TextLayer | None:
        """The expert block beside text layer `layer`, if there is one."""
        return self.lm_expert.layers[layer // self.every] if layer % self.every == 0 else None

    def set_requires_grad(self) -> None:
        """Freeze what `freeze_vision_encoder` and `train_expert_only` name, and the unused language head."""
        if self.config.train_expert_only:
            freeze(self, "vlm.")
        else:
            freeze(self, "vlm.lm_head.")
        if self.config.freeze_vision_encoder:
            freeze(self, "vlm.model.vision_model.")

    def train(self, mode: bool = True):
        super().train(mode)
        if self.config.freeze_vision_encoder:
            self.vlm.model.vision_model.eval()
        if self.config.train_expert_only:
            self.vlm.eval()
        return self

    def init_weights(self) -> None:
        """Random weights; positions start as waves, projections of cross layers as torch starts them."""
        vision = self.vlm.model.vision_model
        init_normal(vision, self.vlm_config.vision.initializer_range)
        if vision.embeddings.stem is not None:
            vision.embeddings.stem.init_weights()
        table, side = vision.embeddings.position_embedding.weight, vision.embeddings.side
        with torch.no_grad():
            table.copy_(0.1 * position_waves(side, table.shape[1]))
        text_std = self.vlm_config.text.initializer_range
        for part in (self.vlm.model.connector, self.vlm.model.text_model, self.vlm.lm_head, self.lm_expert):
            init_normal(part, text_std)
        for i in range(0, self.num_vlm_layers, self.every):
            if self.is_cross(i):
                self.expert_layer(i).self_attn.k_proj.reset_parameters()
                self.expert_layer(i).self_attn.v_proj.reset_parameters()

    @property
    def recomputes(self) -> bool:
        """Whether layers are computed again in the backward pass."""
        return self.config.gradient_checkpointing and self.training

    def prefix_keys_values(
        self, hidden: Tensor, positions: Tensor, bias: Tensor, past: KeysValues | None = None
    ) -> KeysValues:
        """Run prefix tokens through the text layers and return rotated keys, and values, of every layer.

        hidden: `(B, N, D)`; positions `(B, N)`; bias `(B, 1, N, P + N)`, additive. past: keys and values of
        `P` earlier tokens, which these attend as well; the result then covers all P + N.
        """
        table = rope_table(positions, self.vlm_config.text.head_dim)
        layers = self.vlm.model.text_model.layers
        keys_values = []
        for i, layer in enumerate(layers):
            last = i == len(layers) - 1  # nothing reads its output
            before = None if past is None else past[i]
            k, v, hidden = checkpointed(self.recomputes, prefix_layer, layer, hidden, table, bias, last, before)
            keys_values.append((k, v))
        return keys_values

    def expert_context(self, prefix: KeysValues) -> KeysValues:
        """What the expert reads per layer: the prefix's keys and values, projected in cross layers."""
        context = []
        for i, (k, v) in enumerate(prefix):
            layer = self.expert_layer(i)
            if layer is not None and self.is_cross(i):
                attention = layer.self_attn
                k = project_heads(attention.k_proj, k)
                v = project_heads(attention.v_proj, v)
            context.append((k, v))
        return context

    def expert_hidden(self, hidden: Tensor, context: KeysValues, positions: Tensor, bias: Tensor) -> Tensor:
        """Run action tokens `(B, C, D)` through the expert; returns the final norm's output.

        positions: `(B, C)` in the whole sequence; bias `(B, 1, C, P + C)`, additive, over prefix and action
        tokens.
        """
        head_dim = self.expert_config.head_dim
        joint_table = rope_table(positions, head_dim)
        cross_table = rope_table(torch.arange(hidden.shape[1], device=hidden.device)[None], head_dim)
        cross_bias = bias[..., : -hidden.shape[1]]
        for i, (k, v) in enumerate(context):
            layer = self.expert_layer(i)
            if layer is None:
                continue
            if self.is_cross(i):
                hidden = checkpointed(self.recomputes, cross_layer, layer, hidden, k, v, cross_table, cross_bias)
            else:
                hidden = checkpointed(self.recomputes, joint_layer, layer, hidden, k, v, joint_table, bias)
        return self.lm_expert.norm(hidden)


def cross_layer(layer: TextLayer, hidden: Tensor, k: Tensor, v: Tensor, table, bias: Tensor) -> Tensor:
    """Action tokens that attend keys and values of the prefix alone."""
    q = rotate(layer.self_attn.queries(layer.begin(hidden)), table)
    return layer.finish(hidden, grouped_attention(q, k, v, bias))


def project_heads(linear: nn.Linear, x: Tensor) -> Tensor:
    """Apply a linear map to all heads together: `(B, N, heads, head_dim)` to the same shape."""
    return linear(in_dtype_of(linear, x.flatten(2))).view_as(x)


def cut_text_layers(config: SmolVLMConfig, keep: int) -> SmolVLMConfig:
    """The configuration with the first `keep` text layers (0 or less: all)."""
    available = config.text.num_hidden_layers
    count = min(keep, available) if keep > 0 else available
    return dataclasses.replace(config, text=dataclasses.replace(config.text, num_hidden_layers=count))


def in_bfloat16(config: SmolVLMConfig) -> SmolVLMConfig:
    """The configuration of the same model loaded in bfloat16, which is how pretrained weights are used."""
    vision = dataclasses.replace(config.vision, dtype=torch.bfloat16)
    text = dataclasses.replace(config.text, dtype=torch.bfloat16)
    return dataclasses.replace(config, vision=vision, text=text)


def expert_config(text: TextConfig, width_multiplier: float, num_layers: int) -> TextConfig:
    """The expert's geometry: narrower than the text model, with the same heads, so that keys fit together."""
    hidden = int(text.hidden_size * width_multiplier)
    return dataclasses.replace(
        text,
        hidden_size=hidden,
        intermediate_size=get_intermediate_size(hidden),
        num_hidden_layers=num_layers,
        initializer_range=0.02,
    )


def freeze(module: nn.Module, prefix: str) -> None:
    """Stop training the parameters whose name starts with `prefix`. Raises ValueError if there are none."""
    matched = [p for name, p in module.named_parameters() if name.startswith(prefix)]
    if not matched:
        raise ValueError(
            f"No parameter of {type(module).__name__} is named '{prefix}...': a freezing flag "
            "(--policy.freeze_vision_encoder, train_expert_only, train_state_proj) would silently do nothing."
        )
    for parameter in matched:
        parameter.requires_grad_(False)
