"""The one masked reduction that every policy's loss goes through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

STEPS = "action"  # the steps of the action window
_denominator_ratios: ContextVar[Mapping[str, float]] = ContextVar("denominator_ratios", default={})  # noqa: B039


@contextmanager
def shared_denominators(ratios: Mapping[str, float]) -> Iterator[None]:
    """In this block `masked_mean` divides by `ratios[steps]` times its count of valid entries.

    A batch that is divided among processes or accumulated in pieces has one mean only if every piece divides by the
    average piece's count, not by its own.
    """
    token = _denominator_ratios.set(ratios)
    try:
        yield
    finally:
        _denominator_ratios.reset(token)


def masked_mean(
    values: Tensor, is_pad: Tensor | None, width: int | None = None, over_padding: bool = False, steps: str = STEPS
) -> Tensor:
    """Mean of elementwise losses over the entries that are data.

    values: (B, T, D), or (B, T) with one number per step. is_pad: bool (B, T), true where a step only fills
    the chunk; None when no step does. width: leading part of D that holds real action dimensions (None: all).
    over_padding: divide the masked sum by the count of all entries, padding included, as LeRobot 0.4.4 does.
    steps: the name of this mask among the policy's `step_masks`.
    Returns a scalar (0 when nothing is valid). Padded entries get a gradient of exactly zero, even from NaN.
    """
    count = values.numel()
    if width is not None:
        values = values[..., :width]
        count = count if over_padding else values.numel()
    if is_pad is None:
        return values.sum() / max(count, 1)
    valid = _like(~is_pad, values)
    total = torch.where(valid, values, 0).sum()
    if over_padding:
        return total / max(count, 1)
    count, ratio = valid.sum().clamp(min=1), _denominator_ratios.get().get(steps, 1.0)
    return total / (count if ratio == 1.0 else count * ratio)


def zero_padding(values: Tensor, is_pad: Tensor | None) -> Tensor:
    """`values` (B, T, D) with padded steps set to zero, so that a NaN there reaches no gradient."""
    return values if is_pad is None else torch.where(_like(is_pad, values), 0, values)


def repeat_into_padding(values: Tensor, is_pad: Tensor | None) -> Tensor:
    """`values` (B, T, D) with padded steps replaced by the last valid one before them, else by the first valid one.

    That is how datasets fill chunks that leave the episode; what stood there reaches neither loss nor gradient.
    """
    if is_pad is None:
        return values
    steps = torch.arange(is_pad.shape[1], device=is_pad.device).expand_as(is_pad)
    source = steps.masked_fill(is_pad, -1).cummax(dim=1).values
    first = is_pad.to(torch.uint8).argmin(dim=1, keepdim=True)
    source = torch.where(source < 0, first, source)
    filled = values.gather(1, source.unsqueeze(-1).expand_as(values))
    return zero_padding(filled, is_pad.all(dim=1, keepdim=True).expand_as(is_pad))


def _like(mask: Tensor, values: Tensor) -> Tensor:
    """Repeat a (B, T) mask over the trailing axes of `values`."""
    return mask.view(*mask.shape, *[1] * (values.dim() - mask.dim())).expand_as(values)
