"""The vision tower (SigLIP) of SmolVLM2 and PaliGemma; key names as in their published weights.

Written here, not taken from transformers: the position ids are right in every precision, and any picture size works.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lerobot.common.policies.common.attention import attend, checkpointed, in_dtype_of
from lerobot.common.policies.common.packed_linear import GeluLinear, linear_gelu_linear, project
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


def bucketed_position_ids(rows: int, cols: int, side: int, device: torch.device) -> Tensor:
    """Indices `(rows * cols,)` into a `side` x `side` position table for a grid of patches, row by row.

    Row i takes the bucket floor(i * side / rows), in integers: float arithmetic puts rows on the wrong side
    of a boundary.
    """
    row = torch.arange(rows, device=device) * side // rows
    col = torch.arange(cols, device=device) * side // cols
    return (row[:, None] * side + col).flatten()


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
        tokens = patches.flatten(2).transpose(1, 2) + self.position_embedding(ids)
        return tokens.contiguous(), (rows, cols)  # else every block would keep, and undo, the picture's layout


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
        projected = project(x, self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in projected)
        attended = attend(q, k, v)  # (B, heads, N, D / heads)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class VisionMLP(nn.Module):
    """Two linear layers with a tanh-approximated GELU between them."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.fc1 = GeluLinear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return linear_gelu_linear(self.fc1, self.fc2, x)


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
        self.recomputes = False  # layers in the backward pass; while training
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x, grid = self.embeddings(images)
        for layer in self.encoder.layers:
            x = checkpointed(self.recomputes and self.training, layer, x)
        return self.post_layernorm(x), grid
