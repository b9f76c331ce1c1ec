"""Weights that follow from a tensor's name and an element's index, so that golden cases need no weight file.

u = murmur3 finalizer of crc32(name) + 2654435769 * index, as a number in [-1, 1). Tensors of two or more axes
hold u * sqrt(3 / fan_in), biases and running means 0.1 * u, other vectors 1 + 0.1 * u.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from torch import Tensor, nn


def values(name: str, shape: tuple[int, ...]) -> Tensor:
    """The float32 tensor of this name."""
    with np.errstate(over="ignore"):
        x = np.arange(math.prod(shape), dtype=np.uint32) * np.uint32(2654435769) + np.uint32(zlib.crc32(name.encode()))
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
            x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    u = x / 2.0**31 - 1.0
    if len(shape) > 1:
        u = u * np.sqrt(3.0 / math.prod(shape[1:]))
    elif name.endswith(("bias", "running_mean")):
        u = 0.1 * u
    else:
        u = 1.0 + 0.1 * u
    return torch.from_numpy(u.astype(np.float32).reshape(shape))


@torch.no_grad()
def fill(module: nn.Module, salt: str) -> None:
    """Give all parameters and the buffers of normalization layers their values."""
    parameters = dict(module.named_parameters())
    for name, tensor in module.state_dict().items():
        of_norm = name.endswith((".weight", ".bias", "running_mean", "running_var"))
        if tensor.ndim and tensor.is_floating_point() and (name in parameters or of_norm):
            tensor.copy_(values(salt + name, tuple(tensor.shape)))
