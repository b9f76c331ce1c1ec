"""Linear layers with 8-bit weights and activations, for inference on a CPU.

Weights get one scale per output, activations one per row at each call (largest magnitude / 127), so nothing is
calibrated; products are exact in 32-bit integers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALLEST = 256  # inputs and outputs; below, scaling costs more than the product saves
FEW_ROWS = 17  # torch's integer product wants more than 16
BLOCK = 128  # rows that are scaled together


class Int8Linear(nn.Module):
    """A linear layer `(..., K) -> (..., N)`; the result has the dtype that the float layer's would have.

    Scaling runs in blocks of rows that stay in the processor's cache: in whole passes it costs as much as the product.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=1e-12) / 127
        self.register_buffer(
            "weight", linear.weight.detach().new_empty(0)
        )  # tells the dtype, as the float layer's does
        self.register_buffer("whole", (weight / scale[:, None]).round().to(torch.int8))  # (N, K)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        rows = x.reshape(-1, x.shape[-1])
        count = len(rows)
        whole = torch.zeros(max(count, FEW_ROWS), rows.shape[1], dtype=torch.int8)
        scale = torch.empty(count, 1)
        for part in _blocks(count):
            block = rows[part].float()
            scale[part] = block.abs().amax(1, keepdim=True).clamp_(min=1e-12) / 127
            whole[part] = block.div_(scale[part]).round_()
        product = torch._int_mm(whole, self.whole.t())
        y = torch.empty(count, len(self.whole), dtype=dtype)
        for part in _blocks(count):
            block = product[part].float().mul_(scale[part]).mul_(self.scale)
            y[part] = block if self.bias is None else block.add_(self.bias)
        return y.view(*x.shape[:-1], -1)


def _blocks(count: int) -> list[slice]:
    return [slice(first, min(first + BLOCK, count)) for first in range(0, count, BLOCK)]


def quantize_linears(module: nn.Module) -> dict[str, nn.Linear]:
    """Replace the larger linear layers of `module`; returns those that were there, by name, for `restore_linears`."""
    large = {
        name: part
        for name, part in module.named_modules()
        if type(part) is nn.Linear and min(part.in_features, part.out_features) >= SMALLEST
    }
    for name, linear in large.items():
        _replace(module, name, Int8Linear(linear))
    return large


def restore_linears(module: nn.Module, linears: dict[str, nn.Linear]) -> None:
    """Undo `quantize_linears`."""
    for name, linear in linears.items():
        _replace(module, name, linear)


def _replace(module: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, part)
