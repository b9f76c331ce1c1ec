"""Multi-head attention with the names and numbers of nn.MultiheadAttention, through the fused kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lerobot.common.policies.common.long_attention import attend_long, suits_long_attention
from lerobot.common.policies.common.packed_linear import has_tiles


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """scaled_dot_product_attention of (B, heads, N, d) tensors, on a CPU computed in float32 or by faster products.

    There the backward pass in bfloat16 takes three to ten times as long for short sequences. Without gradients a CPU
    with tile registers (AMX) runs torch's kernel for bfloat16; others have `attend_long`. `mask`: true where a key
    takes part, or a float bias. Returns the dtype of `value`.
    """
    if value.device.type != "cpu" or value.dtype == torch.float32:
        if mask is not None and mask.is_floating_point():
            mask = bias_in(value.dtype, mask)
        return F.scaled_dot_product_attention(query, key, value, mask, dropout)
    if not torch.is_grad_enabled() and _all_half(query, key, value) and _runs_on_tiles():
        return F.scaled_dot_product_attention(query, key, value, mask, dropout)
    if mask is None and dropout == 0.0 and suits_long_attention(query, key, value):
        out = attend_long(query, key, value)
        if out is not None:
            return out
    with torch.autocast("cpu", enabled=False):
        out = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), mask, dropout)
    return out.to(value.dtype)


def _runs_on_tiles() -> bool:
    return has_tiles() and not torch.compiler.is_compiling()


def _all_half(*tensors: Tensor) -> bool:
    return all(x.dtype == torch.bfloat16 for x in tensors)


def bias_in(dtype: torch.dtype, bias: Tensor) -> Tensor:
    """A float bias in another precision, still finite: float16 would make -inf of float32's largest, and rows NaN."""
    return bias.clamp(min=torch.finfo(dtype).min / 2).to(dtype) if dtype == torch.float16 else bias.to(dtype)


class MultiheadAttention(nn.MultiheadAttention):
    """Sequence-first attention that returns only its output.

    Faster than its parent in training: one projection where queries and keys are the same tensor, and
    scaled_dot_product_attention, which on a CPU draws dropout in the parent's order.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
        """query (L, B, D), key, value (N, B, D), key_padding_mask (B, N) true where ignored -> (L, B, D)."""
        width = self.embed_dim
        weights, biases = self.in_proj_weight.split(width), self.in_proj_bias.split(width)
        if query is key:
            both = F.linear(query, self.in_proj_weight[: 2 * width], self.in_proj_bias[: 2 * width])
            q, k = both.chunk(2, dim=-1)
        else:
            q, k = F.linear(query, weights[0], biases[0]), F.linear(key, weights[1], biases[1])
        v = F.linear(value, weights[2], biases[2])
        mask = None if key_padding_mask is None else ~key_padding_mask[:, None, None]
        dropout = self.dropout if self.training else 0.0
        out = attend(self._heads(q), self._heads(k), self._heads(v), mask, dropout)
        return self.out_proj(out.permute(2, 0, 1, 3).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        """(N, B, D) -> (B, heads, N, D / heads)."""
        return x.unflatten(-1, (self.num_heads, self.head_dim)).permute(1, 2, 0, 3)


def in_dtype_of(linear: nn.Linear, x: Tensor) -> Tensor:
    """`x` in the precision that `linear` computes in, cast once for all the layers that read it."""
    device = x.device.type
    autocast = torch.is_autocast_enabled(device)
    return x.to(torch.get_autocast_dtype(device) if autocast else linear.weight.dtype)


def checkpointed(wanted: bool, run: Callable, *args):
    """`run(*args)`; if `wanted`, what the backward pass needs of it is computed again there and not kept."""
    if wanted and torch.is_grad_enabled():
        return checkpoint(run, *args, use_reentrant=False)
    return run(*args)
