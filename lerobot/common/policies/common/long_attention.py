"""Attention over many keys in bfloat16 on a CPU, without gradients or a mask: two products of oneDNN per head.

torch's own kernels convert to float32, or fall back to a slow product, where the CPU has no tile registers (AMX). Here
the exponentials are taken inside the first product, from scores in float32, and it returns the weights in bfloat16, as
torch's own kernel for that precision rounds them; the second product is rounded before and after it is divided by their
sum.

oneDNN can end a product with a sigmoid, not with an exponential; far below zero they are equal: sigmoid(x) = exp(x) *
(1 - exp(x) + ...). A shift of all scores, which a softmax does not notice, brings them there.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

LONG = 256  # keys from which it pays
ROWS = 512  # queries at once: their weights stay in the processor's cache
SHIFT = -52.0  # scores up to 36 come where a sigmoid is off by exp(-16) at most
# Sums of the weights of a row: larger ones may have left the sigmoid's tail (scores above 45), smaller ones may lack
# weights that bfloat16 cannot hold (no score above -17).
SUMS = (1e-30, 1e-3)


def suits_long_attention(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether `attend_long` may be tried on `(B, heads, N, d)` tensors."""
    return (
        key.shape[2] >= LONG
        and query.dtype == key.dtype == value.dtype == torch.bfloat16
        and query.device.type == "cpu"
        and not (torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value)))
        and not torch.compiler.is_compiling()
        and _has_exact_scale(query.shape[-1])
        and has_long_attention()
    )


def _has_exact_scale(head_dim: int) -> bool:
    """Whether 1 / sqrt(head_dim) is a power of two, so that scaling the queries rounds nothing."""
    return head_dim in (4, 16, 64, 256)


@cache
def has_long_attention() -> bool:
    """Whether torch has the (private) products, this CPU multiplies bfloat16, and a small attention comes out right."""
    q, k, v = (torch.linspace(-2, top, LONG * 16).sin().view(1, 1, LONG, 16).bfloat16() for top in (3, 40, 900))
    try:
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        with torch.no_grad():
            found = attend_long(q, k, v)
    except (AttributeError, RuntimeError):  # NotImplementedError is a RuntimeError
        return False
    expected = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
    return found is not None and torch.allclose(found.float(), expected, atol=0.01, rtol=0.01)


def attend_long(query: Tensor, key: Tensor, value: Tensor) -> Tensor | None:
    """scaled_dot_product_attention of bfloat16 `(B, heads, N, d)`; None where the scores spread too far for it."""
    batch, heads, count, width = query.shape
    scaled = query * width**-0.5
    out = torch.empty(batch, count, heads, width, dtype=query.dtype).transpose(1, 2)
    sums = torch.empty(batch, heads, count, 1)
    shift = torch.full((key.shape[2],), SHIFT, dtype=query.dtype)
    for b, h in product(range(batch), range(heads)):
        k, v = key[b, h].contiguous(), value[b, h].contiguous()  # else oneDNN takes its reference implementation
        for rows in (slice(first, first + ROWS) for first in range(0, count, ROWS)):
            weights = torch.ops.mkldnn._linear_pointwise(scaled[b, h, rows], k, shift, "sigmoid", [], "")
            total = sums[b, h, rows].copy_(weights.sum(-1, keepdim=True, dtype=torch.float32))
            torch.mul(torch.mm(weights, v), total.reciprocal(), out=out[b, h, rows])
    low, high = sums.aminmax()
    return out if SUMS[0] <= low and high <= SUMS[1] else None
