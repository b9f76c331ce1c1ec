"""Llama blocks, cut open at their attention: SmolVLM2's text layers, SmolVLA's expert, and the base of pi0's Gemma."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot.common.policies.common.attention import attend, in_dtype_of
from lerobot.common.policies.common.packed_linear import project
from lerobot.common.policies.common.trained_linear import TrainedLinear


@dataclass(frozen=True)
class TextConfig:
    """`text_config` (llama) of a SmolVLM configuration; also describes the action expert."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    head_dim: int
    rms_norm_eps: float = 1e-5
    attention_bias: bool = False
    mlp_bias: bool = False
    initializer_range: float = 0.02
    dtype: torch.dtype = torch.float32


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32; its result takes the input's dtype before the weight is applied."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * y.to(x.dtype)


def rope_table(positions: Tensor, head_dim: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines `(B, T, 1, head_dim)`, float32, for `rotate`, from positions `(B, T)`."""
    half = torch.arange(head_dim // 2, dtype=torch.float32, device=positions.device)
    angle = positions[..., None].float() / base ** (2.0 / head_dim * half)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], -1)[:, :, None], torch.cat([-sin, sin], -1)[:, :, None]


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary embedding in half-split form: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), in float32.

    x: `(B, T, heads, head_dim)`; the result has its dtype.
    """
    cos, sin = table
    y = x.float()
    return torch.addcmul(y * cos, y.roll(y.shape[-1] // 2, -1), sin).to(x.dtype)


def grouped_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Grouped-query attention `(B, Q, heads * head_dim)` in the dtype of `v`.

    q: `(B, Q, heads, head_dim)`; k, v: `(B, K, kv_heads, head_dim)`; query head h reads
    kv head h // (heads / kv_heads). bias: float32 `(B or 1, 1, Q or 1, K)`, added to the scaled scores.
    """
    batch, queries, heads, _ = q.shape
    groups = heads // k.shape[2]
    q, k, v = q.to(v.dtype), k.transpose(1, 2), v.transpose(1, 2)
    if groups > 1 and v.device.type == "cpu":
        # Heads that read the same keys are one head with more queries: no key is copied.
        q = q.unflatten(2, (-1, groups)).permute(0, 2, 3, 1, 4).flatten(2, 3)
        bias = bias.repeat(1, 1, groups, 1) if bias.shape[2] > 1 else bias
        attended = attend(q, k, v, bias).unflatten(2, (groups, queries))
        return attended.permute(0, 3, 1, 2, 4).reshape(batch, queries, -1)
    if groups > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    attended = attend(q.transpose(1, 2), k, v, bias)
    return attended.transpose(1, 2).flatten(2)


class TextAttention(nn.Module):
    """The four projections of a llama attention; what attends what is decided by the caller."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.head_dim = config.head_dim
        wide, narrow = (
            config.num_attention_heads * config.head_dim,
            config.num_key_value_heads * config.head_dim,
        )
        bias = config.attention_bias
        self.q_proj = TrainedLinear(config.hidden_size, wide, bias=bias)
        self.k_proj = TrainedLinear(config.hidden_size, narrow, bias=bias)
        self.v_proj = TrainedLinear(config.hidden_size, narrow, bias=bias)
        self.o_proj = TrainedLinear(wide, config.hidden_size, bias=bias)

    def queries(self, x: Tensor) -> Tensor:
        """`(B, T, heads, head_dim)`, not yet rotated."""
        return self.q_proj(x).unflatten(-1, (-1, self.head_dim))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two of `(B, T, kv_heads, head_dim)`, the keys not yet rotated."""
        k, v = (y.unflatten(-1, (-1, self.head_dim)) for y in project(x, self.k_proj, self.v_proj))
        return k, v


class TextMLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.gate_proj = TrainedLinear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = TrainedLinear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = TrainedLinear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        x = in_dtype_of(self.gate_proj, x)
        gate, up = project(x, self.gate_proj, self.up_proj)
        return self.down_proj(F.silu(gate) * up)


class TextLayer(nn.Module):
    """A llama block, cut open at its attention so that two streams can meet there."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.self_attn = TextAttention(config)
        self.mlp = TextMLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def begin(self, hidden: Tensor) -> Tensor:
        """What queries, keys and values are projected from."""
        return in_dtype_of(self.self_attn.q_proj, self.input_layernorm(hidden))

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """Output projection, residual, MLP, residual; the stream takes the output projection's dtype."""
        o_proj = self.self_attn.o_proj
        y = o_proj(in_dtype_of(o_proj, attended))
        y = (y + hidden).to(y.dtype)
        return y + self.mlp(self.post_attention_layernorm(y))


def prefix_layer(
    layer: TextLayer, hidden: Tensor, table, bias: Tensor, last: bool, past: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(keys, values, hidden) of tokens `(B, N, D)` that attend each other and `P` earlier ones, as `bias` allows.

    Keys, rotated, and values `(B, P + N, kv_heads, head_dim)`; past: those of the earlier tokens. `last`: the layer's
    output is not needed, `hidden` comes back as it is.
    """
    x = layer.begin(hidden)
    k, v = layer.self_attn.keys_values(x)
    k = rotate(k, table)
    if past is not None:
        k, v = torch.cat([past[0], k], 1), torch.cat([past[1], v], 1)
    if not last:
        q = rotate(layer.self_attn.queries(x), table)
        hidden = layer.finish(hidden, grouped_attention(q, k, v, bias))
    return k, v, hidden


def joint_layer(layer: TextLayer, hidden: Tensor, k: Tensor, v: Tensor, table, bias: Tensor) -> Tensor:
    """Tokens that attend keys and values of a prefix beside their own."""
    x = layer.begin(hidden)
    own_k, own_v = layer.self_attn.keys_values(x)
    k, v = torch.cat([k, rotate(own_k, table)], 1), torch.cat([v, own_v], 1)
    q = rotate(layer.self_attn.queries(x), table)
    return layer.finish(hidden, grouped_attention(q, k, v, bias))


def init_normal(module: nn.Module, std: float) -> None:
    """Weights normal(0, std), biases zero, norms one: the fresh state of the published model family."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
            if getattr(part, "bias", None) is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm | RMSNorm):
            nn.init.ones_(part.weight)
            if getattr(part, "bias", None) is not None:
                nn.init.zeros_(part.bias)
