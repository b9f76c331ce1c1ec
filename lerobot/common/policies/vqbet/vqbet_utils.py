"""Building blocks of VQ-BeT: residual vector quantization (Zeghidour et al. 2021) and a GPT over embeddings.

Letters: B batch, N vectors, G layers of codes, Kq codes per layer, Dq width of a code, T tokens, D width.
"""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot.common.policies.common.attention import attend

DECAY = 0.8  # of the running averages that codes are made of
EPS = 1e-5
DEAD = 1e-3  # a code with a smaller running count was not chosen for the last 25 steps or so


class MLP(nn.Sequential):
    """Linear layers with ReLU between them; the last of `hidden_channels` is the width of the output."""

    def __init__(self, in_channels: int, hidden_channels: list[int]):
        layers: list[nn.Module] = []
        for inside, out in zip([in_channels, *hidden_channels[:-1]], hidden_channels, strict=True):
            layers += [nn.Linear(inside, out), nn.ReLU()]
        super().__init__(*layers[:-1])


class EuclideanCodebook(nn.Module):
    """Codes that follow the running mean of the vectors assigned to them."""

    def __init__(self, size: int, dim: int):
        super().__init__()
        codes = nn.init.kaiming_uniform_(torch.empty(1, size, dim))
        self.register_buffer("initted", torch.ones(1))
        self.register_buffer("cluster_size", torch.zeros(1, size))
        self.register_buffer("embed_avg", codes.clone())
        self.register_buffer("embed", codes)

    def nearest(self, x: Tensor) -> Tensor:
        """Index (N,) of the nearest code of each vector (N, Dq)."""
        codes = self.embed[0]
        squares = x.square().sum(-1, keepdim=True) + codes.square().sum(-1) - 2 * x @ codes.T
        return (-squares.sqrt()).argmax(-1)  # the root of a negative rounding error is NaN: the nearest

    @torch.no_grad()
    def update(self, x: Tensor, indices: Tensor, reseed: bool) -> None:
        """Move the codes towards the vectors (N, Dq) assigned to them.

        A code that never had any is divided by almost zero and runs away; with `reseed` it becomes one of `x`.
        """
        assigned = F.one_hot(indices, self.embed.shape[1]).to(x.dtype)
        counts, sums = assigned.sum(0), assigned.T @ x
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts)
            dist.all_reduce(sums)
        if not len(x) and not counts.any():
            return  # before the first vector all counts are zero
        self.cluster_size.mul_(DECAY).add_(counts * (1 - DECAY))
        self.embed_avg.mul_(DECAY).add_(sums * (1 - DECAY))
        if reseed and len(x):
            self._reseed(x)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + EPS) / (total + self.embed.shape[1] * EPS) * total
        self.embed.copy_(self.embed_avg / smoothed.unsqueeze(-1))

    def _reseed(self, x: Tensor) -> None:
        dead = self.is_dead()
        chosen = x[torch.randint(0, len(x), (int(dead.sum()),), device=x.device)]
        self.embed_avg[0, dead] = chosen
        self.cluster_size[0, dead] = 1.0

    def is_dead(self) -> Tensor:
        """Which codes nothing is assigned to any more: bool (Kq,)."""
        return self.cluster_size[0] < DEAD


class VectorQuantize(nn.Module):
    """One layer of codes."""

    def __init__(self, dim: int, size: int):
        super().__init__()
        self._codebook = EuclideanCodebook(size, dim)

    def forward(self, x: Tensor, learn: bool, reseed: bool) -> tuple[Tensor, Tensor, Tensor]:
        """x (N, Dq) -> codes (N, Dq), their indices (N,) and the commitment loss.

        In training the codes pass gradients straight through to `x`; with `learn` they then move.
        """
        indices = self._codebook.nearest(x)
        codes = self._codebook.embed[0][indices]
        if not self.training:
            return codes, indices, x.new_zeros(())
        if learn:
            self._codebook.update(x.detach(), indices, reseed)
        commitment = (codes - x).square().sum() / max(1, x.numel())
        return x + (codes - x).detach(), indices, commitment


class ResidualVQ(nn.Module):
    """Each layer quantizes what the layers before it left over. Codes stop moving when `freeze_codebook` is true."""

    def __init__(self, dim: int, num_quantizers: int, codebook_size: int, reseed: bool = False):
        super().__init__()
        self.reseed = reseed
        self.register_buffer("freeze_codebook", torch.tensor(False))
        self.layers = nn.ModuleList(VectorQuantize(dim, codebook_size) for _ in range(num_quantizers))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (N, Dq) -> quantized float32 (N, Dq), indices (N, G), commitment losses (G,)."""
        learn = self.training and not self.freeze_codebook
        with torch.autocast(x.device.type, enabled=False):
            residual = x.float()
            quantized, indices, losses = 0.0, [], []
            for layer in self.layers:
                codes, index, loss = layer(residual, learn, self.reseed)
                residual = residual - codes.detach()
                quantized = quantized + codes
                indices.append(index)
                losses.append(loss)
        return quantized, torch.stack(indices, dim=-1), torch.stack(losses)

    def codes_of(self, indices: Tensor) -> Tensor:
        """Indices (..., G) -> the sum of their codes (..., Dq)."""
        return sum(layer._codebook.embed[0][indices[..., i]] for i, layer in enumerate(self.layers))

    def dead_codes(self) -> list[int]:
        """Per layer, how many codes nothing is assigned to any more."""
        return [int(layer._codebook.is_dead().sum()) for layer in self.layers]


class CausalSelfAttention(nn.Module):
    """Multi-head attention to the present and earlier tokens."""

    def __init__(self, width: int, heads: int, block_size: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.resid_dropout, self.dropout = nn.Dropout(dropout), dropout
        # checkpoints hold the mask
        self.register_buffer("bias", torch.ones(block_size, block_size).tril()[None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        length = x.shape[1]
        q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in self.c_attn(x).chunk(3, dim=-1))
        mask = self.bias[:, :, :length, :length] != 0
        out = attend(q, k, v, mask, self.dropout if self.training else 0.0)
        return self.resid_dropout(self.c_proj(out.transpose(1, 2).flatten(2)))


class Block(nn.Module):
    """Attention and feed-forward, normalized before each."""

    def __init__(self, width: int, heads: int, block_size: int, dropout: float):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = CausalSelfAttention(width, heads, block_size, dropout)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """Transformer decoder over embeddings (Radford et al. 2019): (B, T, gpt_input_dim) -> (B, T, gpt_output_dim)."""

    def __init__(self, config):
        super().__init__()
        width = config.gpt_hidden_dim
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Linear(config.gpt_input_dim, width),
                "wpe": nn.Embedding(config.gpt_block_size, width),
                "drop": nn.Dropout(config.dropout),
                "h": nn.ModuleList(
                    Block(width, config.gpt_n_head, config.gpt_block_size, config.dropout)
                    for _ in range(config.gpt_n_layer)
                ),
                "ln_f": nn.LayerNorm(width),
            }
        )
        self.lm_head = nn.Linear(width, config.gpt_output_dim, bias=False)
        self._initialize(config.gpt_n_layer)

    def _initialize(self, layers: int) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.transformer
        positions = torch.arange(x.shape[1], device=x.device)
        x = parts.drop(parts.wte(x) + parts.wpe(positions))
        for block in parts.h:
            x = block(x)
        return self.lm_head(parts.ln_f(x))

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Weights of linear layers, which decay, and all others, which do not; each sorted by name."""
        linear = {f"{name}.weight" for name, m in self.named_modules() if isinstance(m, nn.Linear)}
        named = sorted(self.named_parameters())
        return [p for n, p in named if n in linear], [p for n, p in named if n not in linear]
