"""Linear layers in bfloat16 on a CPU by oneDNN's own products: weights packed once, a GELU inside the product.

torch uses these operators behind torch.compile and keeps them private, so they are tried before use, and where they are
missing or give something else the plain layers run.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot.common.policies.common.trained_linear import TrainedLinear


@cache
def has_onednn_products() -> bool:
    """Whether torch has the operators, this CPU multiplies bfloat16, and a small product comes out right."""
    x = torch.linspace(-2, 2, 32 * 64).view(32, 64).bfloat16()
    weight = torch.linspace(1, -1, 48 * 64).view(48, 64).bfloat16()
    try:
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 32)
        found = _product(x, packed, weight[:, 0].contiguous(), gelu=False), _product(x, weight, None, gelu=True)
    except (AttributeError, RuntimeError):  # NotImplementedError is a RuntimeError
        return False
    expected = F.linear(x, weight, weight[:, 0]), F.gelu(F.linear(x.float(), weight.float()), approximate="tanh")
    return all(torch.allclose(a.float(), b.float(), atol=0.02, rtol=0.02) for a, b in zip(found, expected, strict=True))


@cache
def has_tiles() -> bool:
    """Whether this CPU multiplies bfloat16 and bytes in tile registers (AMX), as far as torch can tell."""
    try:
        return torch.cpu._is_amx_tile_supported()
    except (AttributeError, RuntimeError):  # a private function
        return False


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    """`x @ weight.T + bias` in bfloat16, rounded once, after the tanh form of GELU if wanted."""
    post = ("gelu", [], "tanh") if gelu else ("none", [], "")
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, *post)


class GeluLinear(nn.Linear):
    """A linear layer that may end with the GELU which follows it."""

    fuses_gelu = True

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """`(..., in_features)` -> `(..., out_features)`, after the tanh form of GELU if wanted.

        One product gives both for bfloat16 on a CPU without gradients, and rounds once instead of twice.
        """
        if not gelu:
            return super().forward(x)
        if self._has_product(x):
            return _product(x, self.weight, self.bias, gelu=True)
        return F.gelu(super().forward(x), approximate="tanh")

    def _has_product(self, x: Tensor) -> bool:
        return (
            x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.bfloat16
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and has_onednn_products()
        )


def is_linear(module: nn.Module) -> bool:
    """Whether this is a linear layer and nothing more, so that another product may stand in for it."""
    return type(module) in (nn.Linear, TrainedLinear, GeluLinear)


def linear_gelu_linear(first: nn.Module, second: nn.Module, x: Tensor) -> Tensor:
    """`second` of the GELU (tanh form) of `first`, which is a `GeluLinear` or what took its place (an adapter's too).

    `(..., first.in_features)` -> `(..., second.out_features)`. Between 8-bit layers nothing but bytes is written.
    """
    if hasattr(first, "rounded_gelu") and hasattr(second, "product"):
        return second.product(x, first.rounded_gelu(x))
    if getattr(first, "fuses_gelu", False):
        return second(first(x, gelu=True))
    return second(F.gelu(first(x), approximate="tanh"))  # what an adapter adds comes before the GELU


def project(x: Tensor, *linears: nn.Module) -> tuple[Tensor, ...]:
    """What each linear layer makes of `x` `(..., in_features)`; 8-bit layers round it once for all of them."""
    if all(hasattr(linear, "product") for linear in linears):
        rounded = linears[0].round(x)
        return tuple(linear.product(x, rounded) for linear in linears)
    return tuple(linear(x) for linear in linears)


class PackedLinear(nn.Module):
    """A linear layer for inference whose bfloat16 weights oneDNN keeps in the order that it reads them in.

    `weight` is empty and tells the dtype, as the layer's does; the result is in bfloat16. The weights are packed in the
    first call, for as many rows as that one has.
    """

    fuses_gelu = True

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("weight", linear.weight.detach().new_empty(0))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().bfloat16())
        self._packed: Tensor | None = None
        self._plain: Tensor | None = linear.weight.detach()

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """`(..., in_features)` of any dtype -> `(..., out_features)`."""
        if self._packed is None:
            rows = x.numel() // self.in_features
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self._plain.bfloat16().contiguous(), rows)
            self._plain = None
        return _product(x.bfloat16(), self._packed, self.bias, gelu)


def pack_linears(module: nn.Module, half: bool) -> dict[str, nn.Linear]:
    """Replace the linear layers of `module` that compute in bfloat16; returns what was there, by name.

    half: those in float32 as well, as autocast would compute them.
    """
    dtypes = (torch.bfloat16, torch.float32) if half else (torch.bfloat16,)
    found = {n: m for n, m in module.named_modules() if is_linear(m) and m.weight.dtype in dtypes}
    for name, linear in found.items():
        replace(module, name, PackedLinear(linear))
    return found


def replace(module: nn.Module, name: str, part: nn.Module) -> None:
    """Put `part` in the place of the submodule `name`."""
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, part)


def restore_linears(module: nn.Module, linears: dict[str, nn.Linear]) -> None:
    """Undo `pack_linears` (or `quantize_linears`)."""
    for name, linear in linears.items():
        replace(module, name, linear)
