"""The pictures of a batch, written straight into its memory: from videos, image cells, or a frame store."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from lerobot.common.datasets.video_utils import map_cameras, read_frames
from lerobot.common.utils.memory import empty_batch

GATHERED = 2**20  # bytes of small records that are gathered together before they become floats
_MOST = np.float32(255)


class PictureBatch:
    """N pictures (C, H, W) side by side, uint8 or float32 in [0, 1]; all have the size of the first one put."""

    def __init__(self, count: int, as_float: bool):
        self._count, self._dtype = count, torch.float32 if as_float else torch.uint8
        self._planes: np.ndarray | None = None  # uint8 (C, H, W), of the picture that becomes float
        self._target: np.ndarray | None = None
        self.pictures: torch.Tensor | None = None

    def put(self, place: int, picture: np.ndarray) -> None:
        """Take a uint8 (H, W, C) as the picture at `place`; ValueError for another size than the ones before."""
        height, width, channels = picture.shape
        if self.pictures is None:
            self._allocate(channels, height, width)
        if self._target.shape[1:] != (channels, height, width):
            raise ValueError(f"Pictures of one batch differ in size: {picture.shape[:2]}, {self._target.shape[2:]}.")
        planes = self._target[place] if self._planes is None else self._planes
        if channels == 1:
            planes[0] = picture[..., 0]
        else:  # ten times as fast as a transposed copy
            cv2.split(picture, list(planes))
        if self._planes is not None:  # still in the processor's cache
            np.copyto(self._target[place], planes)
            np.divide(self._target[place], _MOST, out=self._target[place])

    def _allocate(self, channels: int, height: int, width: int) -> None:
        self.pictures = empty_batch((self._count, channels, height, width), self._dtype)
        self._target = self.pictures.numpy()
        if self._dtype is torch.float32:
            self._planes = empty_batch((channels, height, width), torch.uint8).numpy()


def read_pictures(dataset, key: str, rows: torch.Tensor) -> torch.Tensor:
    """Pictures of one camera at rows (N,) of a `LeRobotDataset`: (N, C, H, W), uint8 if it gives those."""
    if dataset.frame_store is not None:
        return _records(dataset.frame_store[key], dataset.global_index(rows), not dataset.return_uint8)
    batch = PictureBatch(len(rows), not dataset.return_uint8)
    if key in dataset.meta.video_keys:
        for path, (places, times) in dataset.video_times(key, rows).items():
            read_frames(path, times, dataset.tolerance_s, dataset.video_backend, _Placed(batch, places))
    else:
        column = dataset.table[key]
        for place, row in enumerate(rows.tolist()):
            batch.put(place, column.picture(row))
    return batch.pictures


class _Placed:
    """Puts frame i of a file at its place in the batch."""

    def __init__(self, batch: PictureBatch, places: Sequence[int]):
        self._batch, self._places = batch, places

    def __call__(self, number: int, picture: np.ndarray) -> None:
        self._batch.put(self._places[number], picture)


def _records(records: torch.Tensor, index: torch.Tensor, as_float: bool) -> torch.Tensor:
    """Records (C, H, W) of a frame store at `index` (N,)."""
    shape = (len(index), *records.shape[1:])
    if not as_float:
        return torch.index_select(records, 0, index, out=empty_batch(shape, torch.uint8))
    result = empty_batch(shape, torch.float32)
    together = max(1, GATHERED // records[0].numel())
    if together == 1:
        for target, row in zip(result, index.tolist(), strict=True):
            target.copy_(records[row]).div_(255)
    else:
        for targets, rows in zip(result.split(together), index.split(together), strict=True):
            targets.copy_(records.index_select(0, rows)).div_(255)
    return result


def read_cameras(dataset, keys: Sequence[str], rows: torch.Tensor, windows: dict[str, torch.Tensor]) -> dict:
    """Pictures of several cameras: {key: (B, C, H, W)}, or (B, T, C, H, W) where `windows` has rows (B, T)."""

    def pictures(key: str) -> torch.Tensor:
        wanted = windows.get(key, rows)
        return read_pictures(dataset, key, wanted.flatten()).unflatten(0, wanted.shape)

    decoded = map_cameras(pictures, keys) if dataset.frame_store is None else map(pictures, keys)
    return dict(zip(keys, decoded, strict=True))
