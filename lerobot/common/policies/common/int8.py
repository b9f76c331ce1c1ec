"""Linear layers with 8-bit weights and activations, for inference on a CPU.

Weights get one scale per output; activations get theirs at each call, so nothing is calibrated. Products are exact in
32-bit integers. Where torch has oneDNN's 8-bit product (private, so it is tried before use) it scales, adds the bias
and applies a GELU on the way out; elsewhere torch's own product runs, and the rest in passes of its own.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager
from functools import cache, partial
from math import ceil, log2

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot.common.policies.common.packed_linear import has_tiles, is_linear, replace

SMALLEST = 256  # inputs and outputs; below, scaling costs more than the product saves
# Multiplications of a call; below, the product in bfloat16 is as fast and rounds less: the 50 rows of the 450M expert
# would make most of the error.
FEWEST = 100_000_000
FEW_ROWS = 17  # torch's integer product wants more than 16
BLOCK = 128  # rows that are scaled together
LAST_BYTE = 255
# With tile registers the tanh form would take a third of a product's time; the exact form differs from it by 0.0005.
GELU = "none" if has_tiles() else "tanh"
LOWEST_GELU = -0.17004  # of both
LEAST_RANGE = 0.25  # of GELU, for bytes

Rounded = tuple[Tensor, float, int]  # rows of bytes, their step and the byte that means zero


class Int8Linear(nn.Module):
    """A linear layer `(..., K) -> (..., N)`; the result has the dtype that the float layer's would have.

    Scaling runs in blocks of rows that stay in the processor's cache: in whole passes it costs as much as the product.
    """

    fuses_gelu = True

    def __init__(self, linear: nn.Linear):
        super().__init__()
        whole, scale = _rounded_weights(linear)
        self.register_buffer("weight", linear.weight.detach().new_empty(0))  # its dtype is asked for
        self.register_buffer("whole", whole)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """`(..., K)` -> `(..., N)`, after the tanh form of GELU if wanted."""
        dtype = _out_dtype(x)
        rows = x.reshape(-1, x.shape[-1])
        count = len(rows)
        whole = torch.zeros(max(count, FEW_ROWS), rows.shape[1], dtype=torch.int8)
        scale = torch.empty(count, 1)
        for part in _blocks(count):
            block = rows[part].float()
            scale[part] = block.abs().amax(1, keepdim=True).clamp_(min=1e-12) / 127
            whole[part] = block.div(scale[part]).round_()
        product = torch._int_mm(whole, self.whole.t())
        y = torch.empty(count, len(self.whole), dtype=dtype)
        for part in _blocks(count):
            block = product[part].float().mul_(scale[part]).mul_(self.scale)
            block = block if self.bias is None else block.add_(self.bias)
            y[part] = F.gelu(block, approximate="tanh") if gelu else block
        return y.view(*x.shape[:-1], -1)


@cache
def has_onednn_int8() -> bool:
    """Whether torch has oneDNN's 8-bit product, and a small one comes out right."""
    linear = nn.Linear(64, 48)
    with torch.no_grad():
        linear.weight.copy_(torch.linspace(1, -1, 48 * 64).view(48, 64))
        x = torch.linspace(-2, 3, 32 * 64).view(32, 64)
        try:
            found = OneDnnInt8Linear(linear)(x)
        except (AttributeError, RuntimeError):
            return False
        expected = linear(x)
    return bool((found - expected).norm() < 0.02 * expected.norm())


class OneDnnInt8Linear(nn.Module):
    """As `Int8Linear`, by oneDNN: activations are unsigned, with one scale and zero point for all rows of a call.

    Half of the range is not lost where values lean to one side, as behind a GELU.
    """

    fuses_gelu = True

    def __init__(self, linear: nn.Linear):
        super().__init__()
        whole, scale = _rounded_weights(linear)
        self.register_buffer("weight", linear.weight.detach().new_empty(0))  # its dtype is asked for
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros(len(whole), dtype=torch.int64))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())
        self._packed = torch.ops.onednn.qlinear_prepack(whole, None)
        self._range: float | None = None  # of GELU in the call before

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """`(..., K)` -> `(..., N)`, after the tanh form of GELU if wanted."""
        return self.product(x, self.round(x), gelu)

    @staticmethod
    def round(x: Tensor) -> Rounded:
        """`x` as rows of bytes, their step and the byte that means zero."""
        rows = x.reshape(-1, x.shape[-1])
        low, high = (float(v) for v in rows.aminmax())
        low, high = min(low, 0.0), max(high, 1e-12)  # zero is one of the steps
        step = (high - low) / (LAST_BYTE - 1)  # one less than there are, so that a rounded zero point leaves room
        zero = round(-low / step)
        half = torch.tensor(zero + 0.5)  # cutting off the fraction then rounds
        whole = torch.empty(rows.shape, dtype=torch.uint8)
        for part in _blocks(len(rows)):
            whole[part] = torch.add(half, rows[part].float(), alpha=1 / step)
        return whole, step, zero

    def product(self, x: Tensor, rounded: Rounded, gelu: bool = False) -> Tensor:
        """The layer's result from `round(x)`."""
        return self._product(rounded, gelu, (1.0, 0, _out_dtype(x))).view(*x.shape[:-1], -1)

    def rounded_gelu(self, x: Tensor) -> Rounded:
        """What `round` makes of the layer's GELU, written as bytes by the product itself.

        Their step has to be known before: it is that of the call before, and where the bytes show that their largest
        is of another size, the product runs again. A range that is a power of two makes the result of a call
        independent of those before it.
        """
        rounded = self.round(x)
        found = self._gelu_bytes(rounded) if self._range else None
        if found is None or not self._fits(found):
            largest = float(self.product(x, rounded, gelu=True).amax())
            self._range = max(2.0 ** ceil(log2(largest)), LEAST_RANGE) if largest > 0 else LEAST_RANGE
            found = self._gelu_bytes(rounded)
        return found

    def _gelu_bytes(self, rounded: Rounded) -> Rounded:
        step = (self._range - LOWEST_GELU) / (LAST_BYTE - 1)
        zero = round(-LOWEST_GELU / step)
        return self._product(rounded, True, (step, zero, torch.uint8)), step, zero

    def _fits(self, found: Rounded) -> bool:
        """Whether no byte was cut off at the last one, and no smaller range would do."""
        whole, step, zero = found
        largest = int(whole.max())
        return largest < LAST_BYTE and (self._range == LEAST_RANGE or (largest - zero) * step > self._range / 2)

    def _product(self, rounded: Rounded, gelu: bool, out: tuple[float, int, torch.dtype]) -> Tensor:
        """Rows of the result, divided by the step of `out` and shifted by its zero, in its dtype."""
        whole, step, zero = rounded
        post = ("gelu", [], GELU) if gelu else ("none", [], "")
        weights = self._packed, self.scale, self.zero, self.bias
        return torch.ops.onednn.qlinear_pointwise(whole, step, zero, *weights, *out, *post)


def _rounded_weights(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weights `(N, K)` as signed bytes, and the step of each row `(N,)`."""
    weight = linear.weight.detach().float()
    scale = weight.abs().amax(1).clamp(min=1e-12) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale


def _out_dtype(x: Tensor) -> torch.dtype:
    """What a float layer would return."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def _blocks(count: int) -> list[slice]:
    return [slice(first, min(first + BLOCK, count)) for first in range(0, count, BLOCK)]


def quantize_linears(module: nn.Module, names: Container[str] | None = None) -> dict[str, nn.Linear]:
    """Replace the larger linear layers of `module` (of `names`, if given); returns what was there, by name."""
    kind = OneDnnInt8Linear if has_onednn_int8() else Int8Linear
    chosen = {
        name: part
        for name, part in module.named_modules()
        if is_linear(part) and min(part.in_features, part.out_features) >= SMALLEST and (names is None or name in names)
    }
    for name, linear in chosen.items():
        replace(module, name, kind(linear))
    return chosen


@contextmanager
def busy_linears(module: nn.Module) -> Iterator[set[str]]:
    """Within, collects the names of linear layers whose calls are large enough to gain from 8 bits."""
    found: set[str] = set()

    def look(name: str, linear: nn.Linear, inputs: tuple) -> None:
        if inputs[0].numel() * linear.out_features >= FEWEST:
            found.add(name)

    linears = [(name, part) for name, part in module.named_modules() if is_linear(part)]
    hooks = [part.register_forward_pre_hook(partial(look, name)) for name, part in linears]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
