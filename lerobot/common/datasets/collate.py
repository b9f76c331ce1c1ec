"""Batches: frames gathered together, usable one by one or as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class FrameBatch(Sequence):
    """B frames gathered at once: `batch` {key: tensor (B, ...) or list of B texts}; `self[i]` is one item."""

    def __init__(self, batch: dict[str, Any], size: int):
        self.batch, self._size = batch, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -self._size <= index < self._size:
            raise IndexError(index)  # ends iteration
        return {key: value[index] for key, value in self.batch.items()}


SMALL = 2**16  # bytes


class _Packed(dict):
    """A batch on its way out of a loader's worker: small tensors travel as arrays, not each as a shared file."""

    def __reduce__(self):
        small = {key: value.numpy() for key, value in self.items() if _is_small(value)}
        return _unpack, (list(self), small, {key: value for key, value in self.items() if key not in small})


def _is_small(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.nbytes <= SMALL and value.dtype != torch.bfloat16


def _unpack(keys: list[str], small: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    return {key: torch.from_numpy(small[key]) if key in small else others[key] for key in keys}


def collate(items: FrameBatch | Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`collate_fn` of a DataLoader: a `FrameBatch` as it is, other items stacked; texts become lists."""
    if isinstance(items, FrameBatch):
        return items.batch if torch.utils.data.get_worker_info() is None else _Packed(items.batch)
    batch = {}
    for key in items[0]:
        values = [item[key] for item in items]
        batch[key] = values if isinstance(values[0], str) else torch.utils.data.default_collate(values)
    return batch
