"""DINOv2 vision transformers (Oquab et al. 2023, registers: Darcet et al. 2023) with transformers' tensor names."""

# no postponed annotations: DINOv2Config is a field of a draccus configuration

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot.common.policies.common.attention import attend
from lerobot.common.policies.common.positions import position_waves
from lerobot.common.policies.common.resnet import MAX_LAYERS, ResNet, fast_layout

HEAD_DIM = 64
REGISTERS = 4  # of the published nets that have some


@dataclass(frozen=True)
class DINOv2Config:
    """Sizes of a net, under the names of transformers' config.json; the defaults are the small one's.

    stem_layers: residual stages (of a ResNet-18 whose first has `stem_width` planes) that the pictures pass before
    they are cut into patches; 0, as published, for none. A net that starts from random weights and few pictures
    needs it: a transformer does not learn from them that a shifted object is the same object. Raises ValueError for
    sizes that do not go together.
    """

    hidden_size: int = 384
    num_hidden_layers: int = 12
    num_attention_heads: int = 6
    mlp_ratio: int = 4
    patch_size: int = 14
    image_size: int = 518  # of the stored position table
    num_register_tokens: int = 0
    use_swiglu_ffn: bool = False
    layer_norm_eps: float = 1e-6
    stem_layers: int = 0
    stem_width: int = 16

    def __post_init__(self):
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "patch_size", "stem_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"backbone_config: {name}={getattr(self, name)}, expected at least 1.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"backbone_config: hidden_size={self.hidden_size} does not divide into num_attention_heads="
                f"{self.num_attention_heads}."
            )
        if self.image_size < self.patch_size:
            raise ValueError(
                f"backbone_config: image_size={self.image_size} is smaller than patch_size={self.patch_size}."
            )
        if not 0 <= self.stem_layers <= MAX_LAYERS or self.patch_size % self.stem_stride:
            raise ValueError(
                f"backbone_config: stem_layers={self.stem_layers} with patch_size={self.patch_size}, expected 0 to "
                f"{MAX_LAYERS} and a patch_size that is a multiple of the stem's stride, 2^(stem_layers + 1)."
            )

    @property
    def stem_stride(self) -> int:
        """Pixels per step of the map that the stem hands on."""
        return 2 ** (self.stem_layers + 1) if self.stem_layers else 1

    @property
    def mlp_dim(self) -> int:
        """Inner width of the feed-forward part; of SwiGLU two thirds, rounded up to a multiple of 8."""
        width = int(self.hidden_size * self.mlp_ratio)
        return (int(width * 2 / 3) + 7) // 8 * 8 if self.use_swiglu_ffn else width


class DINOv2(nn.Module):
    """Pictures (B, 3, H, W), normalized, to tokens (B, 1 + R + P, D): class, R registers, patches row by row.

    H and W are multiples of the patch size. `last_layers` block outputs, each through the final norm, are averaged.
    Parts whose parameters are frozen, from the input up to the first one that is trained, run without a graph.
    """

    def __init__(self, config: DINOv2Config):
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self._initialize()

    @property
    def out_channels(self) -> int:
        """Width D of a token."""
        return self.config.hidden_size

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:  # those of the stem have none
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        table, side = self.embeddings.position_embeddings, self.config.image_size // self.config.patch_size
        with torch.no_grad():
            table[0, 1:] = 0.1 * position_waves(side, self.config.hidden_size)

    def freeze(self, unfrozen_layers: int = 0) -> None:
        """Train nothing, or only the last blocks and the final norm."""
        self.requires_grad_(False)
        if unfrozen_layers:
            for part in (*self.encoder.layer[-unfrozen_layers:], self.layernorm):
                part.requires_grad_(True)

    @property
    def is_frozen(self) -> bool:
        """Whether no parameter is trained."""
        return not any(p.requires_grad for p in self.parameters())

    def forward(self, pictures: Tensor, last_layers: int = 1) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and _is_trained(self.embeddings)):
            x = self.embeddings(pictures)
        outputs = []
        for block in self.encoder.layer:
            with torch.set_grad_enabled(torch.is_grad_enabled() and (x.requires_grad or _is_trained(block))):
                x = block(x)
            outputs = [*outputs, x][-last_layers:]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            normed = [self.layernorm(output) for output in outputs]
            return normed[0] if last_layers == 1 else torch.stack(normed).mean(dim=0)


def _is_trained(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


class Embeddings(nn.Module):
    """Patches (of the stem's map, if there is one) and class token with positions, then register tokens without."""

    def __init__(self, config: DINOv2Config):
        super().__init__()
        width, side = config.hidden_size, config.image_size // config.patch_size
        self.config = config
        self.cls_token = nn.Parameter(_small(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of the pretraining; stored, never used here
        if config.num_register_tokens:
            self.register_tokens = nn.Parameter(_small(1, config.num_register_tokens, width))
        self.position_embeddings = nn.Parameter(_small(1, 1 + side * side, width))
        self.patch_embeddings = nn.Module()
        channels, size = 3, config.patch_size
        if config.stem_layers:
            self.stem = ResNet("resnet18", norm="group", width=config.stem_width, layers=config.stem_layers)
            channels, size = self.stem.out_channels, config.patch_size // config.stem_stride
        self.patch_embeddings.projection = nn.Conv2d(channels, width, size, size)
        self._table: tuple[tuple, Tensor] | None = None  # the last interpolated positions, not stored

    def forward(self, pictures: Tensor) -> Tensor:
        height, width = pictures.shape[-2:]
        patch = self.config.patch_size
        if height % patch or width % patch:
            raise ValueError(f"Pictures of {height}x{width} do not divide into patches of {patch}x{patch}.")
        projection = self.patch_embeddings.projection
        pictures = pictures.to(projection.weight.dtype)
        if self.config.stem_layers:
            pictures = self.stem(fast_layout(pictures, self.stem.width))
        patches = projection(pictures).flatten(2).transpose(1, 2)
        count = len(patches)
        x = torch.cat([self.cls_token.to(patches.dtype).expand(count, -1, -1), patches], dim=1)
        x = x + self.positions(height // patch, width // patch).to(x.dtype)
        if not self.config.num_register_tokens:
            return x
        registers = self.register_tokens.to(x.dtype).expand(count, -1, -1)
        return torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)

    def positions(self, rows: int, columns: int) -> Tensor:
        """Table (1, 1 + rows * columns, D), interpolated from the stored one where its grid is another."""
        table = self.position_embeddings
        side = self.config.image_size // self.config.patch_size
        if (rows, columns) == (side, side):
            return table
        if table.requires_grad:
            return self._interpolate(rows, columns, side)
        address = (rows, columns, table.device, table.dtype, table.data_ptr(), table._version)
        if self._table is None or self._table[0] != address:
            with torch.inference_mode(False), torch.no_grad():
                self._table = (address, self._interpolate(rows, columns, side))
        return self._table[1]

    def _interpolate(self, rows: int, columns: int, side: int) -> Tensor:
        table = self.position_embeddings
        grid = table[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
        antialias = bool(self.config.num_register_tokens)  # as the published nets with and without registers have it
        grid = F.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False, antialias=antialias)
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


class Block(nn.Module):
    """x + scale * attention(norm(x)), then x + scale * mlp(norm(x)); tokens (B, N, D)."""

    def __init__(self, config: DINOv2Config):
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(config)
        self.layer_scale1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = SwiGLU(config) if config.use_swiglu_ffn else MLP(config)
        self.layer_scale2 = LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale1(self.attention(self.norm1(x)))
        return x + self.layer_scale2(self.mlp(self.norm2(x)))


class Attention(nn.Module):
    """Multi-head self-attention without a mask."""

    def __init__(self, config: DINOv2Config):
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.attention = nn.Module()
        self.attention.query, self.attention.key, self.attention.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Module()
        self.output.dense = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        part = self.attention
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (part.query, part.key, part.value))
        return self.output.dense(attend(q, k, v).transpose(1, 2).flatten(2))


class LayerScale(nn.Module):
    """A factor per channel."""

    def __init__(self, width: int):
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.lambda1


class MLP(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, config: DINOv2Config):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.mlp_dim)
        self.fc2 = nn.Linear(config.mlp_dim, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwiGLU(nn.Module):
    """silu(first half) * second half of one linear map, then a linear map (Shazeer 2020)."""

    def __init__(self, config: DINOv2Config):
        super().__init__()
        self.weights_in = nn.Linear(config.hidden_size, 2 * config.mlp_dim)
        self.weights_out = nn.Linear(config.mlp_dim, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.weights_in(x).chunk(2, dim=-1)
        return self.weights_out(F.silu(gate) * value)


def _small(*shape: int) -> Tensor:
    return nn.init.trunc_normal_(torch.empty(shape), std=0.02)
