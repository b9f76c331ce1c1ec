"""The SmolVLM2 backbone: vision tower, connector, llama text layers; key names as in its published weights.

Written here, not taken from transformers: the position ids of the vision tower are right in every precision,
any picture size works, and the text layers hand out their keys and values.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot.common.policies.common.attention import attend
from lerobot.common.policies.common.resnet import ResNet, fast_layout


@dataclass(frozen=True)
class VisionConfig:
    """`vision_config` of a SmolVLM configuration; `dtype` is the precision it asks to be built in.

    stem_layers: residual stages (of a ResNet-18 whose first has `stem_width` planes) that the pictures pass before
    they are cut into patches; 0, as published, for none. A tower that is trained from random weights on few pictures
    needs them: convolutions know that a shifted cube is a cube ("Early convolutions help transformers see better",
    arXiv 2106.14881). `patch_size` stays the stride of the whole, in pixels.
    """

    hidden_size: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_channels: int = 3
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    stem_layers: int = 0
    stem_width: int = 16
    dtype: torch.dtype = torch.float32

    def __post_init__(self):
        if self.patch_size % self.stem_stride:
            raise ValueError(
                f"vision_config: patch_size {self.patch_size} is not a multiple of {self.stem_stride}, the stride of a "
                f"stem of {self.stem_layers} layers; set stem_layers to 0 (--policy.vlm_config) for none."
            )

    @property
    def stem_stride(self) -> int:
        """Pixels per step of the map that the stem hands on."""
        return 2 ** (self.stem_layers + 1) if self.stem_layers else 1

    @property
    def patches_per_side(self) -> int:
        """Rows (and columns) of the position table."""
        return self.image_size // self.patch_size


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


def bucketed_position_ids(rows: int, cols: int, side: int, device: torch.device) -> Tensor:
    """Indices `(rows * cols,)` into a `side` x `side` position table for a grid of patches, row by row.

    Row i takes the bucket floor(i * side / rows), in integers: float arithmetic puts rows on the wrong side
    of a boundary.
    """
    row = torch.arange(rows, device=device) * side // rows
    col = torch.arange(cols, device=device) * side // cols
    return (row[:, None] * side + col).flatten()


def in_dtype_of(linear: nn.Linear, x: Tensor) -> Tensor:
    """`x` in the precision that `linear` computes in, cast once for all the layers that read it."""
    device = x.device.type
    autocast = torch.is_autocast_enabled(device)
    return x.to(torch.get_autocast_dtype(device) if autocast else linear.weight.dtype)


class VisionEmbeddings(nn.Module):
    """Pictures `(B, C, H, W)` -> patch tokens `(B, N, D)` with learned positions, and the grid."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.side = config.patches_per_side
        self.stem, channels, size = None, config.num_channels, config.patch_size
        if config.stem_layers:
            self.stem = ResNet("resnet18", norm="group", width=config.stem_width, layers=config.stem_layers)
            channels, size = self.stem.out_channels, config.patch_size // config.stem_stride
        self.patch_embedding = nn.Conv2d(channels, config.hidden_size, kernel_size=size, stride=size)
        self.position_embedding = nn.Embedding(self.side**2, config.hidden_size)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        images = images.to(self.patch_embedding.weight.dtype)
        if self.stem is not None:
            images = self.stem(fast_layout(images, self.stem.width))
        patches = self.patch_embedding(images)  # (B, D, rows, cols)
        rows, cols = patches.shape[2:]
        ids = bucketed_position_ids(rows, cols, self.side, patches.device)
        return patches.flatten(2).transpose(1, 2) + self.position_embedding(ids), (rows, cols)


class VisionAttention(nn.Module):
    """Full self-attention over the patches of one picture."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.heads = config.num_attention_heads
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        x = in_dtype_of(self.q_proj, x)
        q, k, v = (
            p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = attend(q, k, v)  # (B, heads, N, D / heads)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class VisionMLP(nn.Module):
    """Two linear layers with a tanh-approximated GELU between them."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class VisionLayer(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.self_attn = VisionAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VisionMLP(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class VisionEncoder(nn.Module):
    """The blocks of the vision tower."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.num_hidden_layers))


class VisionModel(nn.Module):
    """Pictures `(B, C, H, W)` in [-1, 1] -> patch features `(B, N, D)` and the patch grid (rows, cols)."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.embeddings = VisionEmbeddings(config)
        self.encoder = VisionEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x, grid = self.embeddings(images)
        for layer in self.encoder.layers:
            x = layer(x)
        return self.post_layernorm(x), grid


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
    groups = q.shape[2] // k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q.to(v.dtype), k, v))
    if groups > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    attended = attend(q, k, v, bias)
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
        self.q_proj = nn.Linear(config.hidden_size, wide, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, narrow, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, narrow, bias=bias)
        self.o_proj = nn.Linear(wide, config.hidden_size, bias=bias)

    def queries(self, x: Tensor) -> Tensor:
        """`(B, T, heads, head_dim)`, not yet rotated."""
        return self.q_proj(x).unflatten(-1, (-1, self.head_dim))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two of `(B, T, kv_heads, head_dim)`, the keys not yet rotated."""
        k, v = (p(x).unflatten(-1, (-1, self.head_dim)) for p in (self.k_proj, self.v_proj))
        return k, v


class TextMLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        x = in_dtype_of(self.gate_proj, x)
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


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
