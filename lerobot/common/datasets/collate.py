"""Batches: frames gathered together, usable one by one or as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lerobot.common.utils.lending import Lent, lend
from lerobot.common.utils.memory import empty_batch


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
    """A batch on its way out of a loader's worker: large tensors are lent, small ones travel as arrays.

    PyTorch would make a shared file for each.
    """

    def __reduce__(self):
        return _unpack, ({key: _pack(value) for key, value in self.items()},)


def _pack(value: Any) -> Any:
    if not isinstance(value, torch.Tensor) or value.device.type != "cpu" or value.layout != torch.strided:
        return value
    if value.nbytes > SMALL:
        lent = lend(value)
        return value if lent is None else lent
    return value if value.dtype == torch.bfloat16 else value.numpy()


def _unpack(packed: dict[str, Any]) -> dict[str, Any]:
    return {key: _unpacked(value) for key, value in packed.items()}


def _unpacked(value: Any) -> Any:
    if isinstance(value, Lent):
        return value.borrow()
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def collate(items: FrameBatch | Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`collate_fn` of a DataLoader: a `FrameBatch` as it is, other items stacked; texts become lists."""
    if isinstance(items, FrameBatch):
        batch = items.batch
    else:
        batch = {key: _stacked([item[key] for item in items]) for key in items[0]}
    return batch if torch.utils.data.get_worker_info() is None else _Packed(batch)


def _stacked(values: list[Any]) -> Any:
    if isinstance(values[0], str):
        return values
    if not isinstance(values[0], torch.Tensor):
        return torch.utils.data.default_collate(values)
    return torch.stack(values, out=empty_batch((len(values), *values[0].shape), values[0].dtype))
