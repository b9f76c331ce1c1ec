"""Multi-head attention with the names and numbers of nn.MultiheadAttention, through the fused kernels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class MultiheadAttention(nn.MultiheadAttention):
    """Sequence-first attention that returns only its output.

    Faster than its parent in training: one projection where queries and keys are the same tensor, and
    scaled_dot_product_attention, which on a CPU draws dropout in the parent's order.
    """

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None
    ) -> Tensor:
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
        out = F.scaled_dot_product_attention(
            *(self._heads(x) for x in (q, k, v)), mask, self.dropout if self.training else 0.0
        )
        return self.out_proj(out.permute(2, 0, 1, 3).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        """(N, B, D) -> (B, heads, N, D / heads)."""
        return x.unflatten(-1, (self.num_heads, self.head_dim)).permute(1, 2, 0, 3)
