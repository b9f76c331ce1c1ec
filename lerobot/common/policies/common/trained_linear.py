"""A linear layer whose weights a CPU trains faster in bfloat16."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class TrainedLinear(nn.Linear):
    """nn.Linear, equal to the bit; a CPU with tile registers computes the gradient of bfloat16 weights sooner."""

    def forward(self, x: Tensor) -> Tensor:
        """`(..., in_features)` to `(..., out_features)`."""
        trains = self.weight.requires_grad and torch.is_grad_enabled()
        if not trains or self.weight.dtype != torch.bfloat16 or x.device.type != "cpu":
            return super().forward(x)
        if x.dtype != torch.bfloat16 or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return super().forward(x)
        return _Linear.apply(x, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    """F.linear; oneDNN's product for the weights reads a transposed copy faster than transposed rows."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            (rows @ weight).view_as(x) if for_x else None,
            rows.t().contiguous() @ x.reshape(-1, x.shape[-1]) if for_weight else None,
            rows.sum(0) if for_bias else None,
        )
