"""Memory of batches that is used again: fresh pages cost more time than the pictures that are written to them."""

from __future__ import annotations

import ctypes
import math
import os
import sys
import weakref
from collections import defaultdict, deque

import numpy as np
import torch

from lerobot.common.utils import lending

SMALLEST = 2**18  # bytes; what is smaller comes out of the allocator's own free lists
KEPT = 2**29  # bytes that may lie unused


class _Pool:
    """Buffers whose tensors nobody holds any more, by size."""

    def __init__(self):
        self._free: defaultdict[int, deque[np.ndarray]] = defaultdict(deque)

    def take(self, size: int) -> np.ndarray:
        """uint8 (size,), filled with anything; it comes back when the last tensor over it is gone."""
        try:
            buffer = self._free[size].pop()
        except IndexError:
            buffer = np.empty(size, np.uint8)
        view = buffer[:]
        weakref.finalize(view, self._give_back, buffer).atexit = False
        return view

    def _give_back(self, buffer: np.ndarray) -> None:  # runs wherever a tensor dies: no lock, each step is atomic
        unused = sum(size * len(buffers) for size, buffers in list(self._free.items()))
        if unused + buffer.nbytes <= KEPT:
            self._free[buffer.nbytes].append(buffer)

    def clear(self) -> None:
        """Forget the unused buffers."""
        self._free = defaultdict(deque)


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.clear)


def empty_batch(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """As `torch.empty` on the CPU, large ones in memory that was used before; a worker's can be lent to its parent."""
    size = math.prod(shape) * dtype.itemsize
    if size < SMALLEST:
        return torch.empty(shape, dtype=dtype)
    memory = lending.take(size)
    return torch.from_numpy(_pool.take(size) if memory is None else memory).view(dtype).view(shape)


def keep_freed_pages() -> None:
    """Let the C library keep up to 64 MiB that are free instead of giving them back and taking them anew.

    glibc does so by itself once a block of nearly 32 MiB was freed. The frames that FFmpeg converts are such memory.
    """
    np.empty(2**25 - 2**16, np.uint8)


def keep_all_freed_pages() -> bool:
    """Let the C library keep every page that is freed from now on; says whether it can (glibc).

    For a process that allocates the same again and again: a training step on a CPU frees all its gradients at its end,
    more than `keep_freed_pages` keeps.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    # M_MMAP_THRESHOLD (-3), at most 32 MiB: smaller blocks come from the heap; M_TRIM_THRESHOLD (-1): whose end stays.
    return mallopt is not None and bool(mallopt(-3, 2**25)) and bool(mallopt(-1, 2**31 - 1))
