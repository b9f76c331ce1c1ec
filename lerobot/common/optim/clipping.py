"""Clipping gradients by their norm."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch


def clip_gradients(parameters: Iterable[torch.nn.Parameter], largest: float) -> torch.Tensor:
    """Scale the gradients so that their norm is at most `largest`, and return the norm before.

    As `torch.nn.utils.clip_grad_norm_`, which on a CPU also multiplies gradients that are small enough, by one.
    """
    parameters = list(parameters)
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    small = norm.device.type == "cpu" and norm + 1e-6 <= largest and norm < math.inf  # a GPU would be waited for
    if not small:
        torch.nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return norm
