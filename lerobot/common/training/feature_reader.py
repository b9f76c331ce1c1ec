"""How the records of a store reach a batch: from the device where they fit it, else from the disk, beside computing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from lerobot.common.datasets.frame_store import FrameStore

GB = 1e9
SHARE = 0.4  # of the free memory of a GPU that records may take, if nothing else is said
PIECE = 256 * 2**20  # bytes that are copied to the device at once


class FeatureReader:
    """Records of `store` on `device`.

    max_device_gb: what may be kept there; None: two fifths of a GPU's free memory.
    """

    def __init__(self, store: FrameStore, device: torch.device, max_device_gb: float | None = None):
        self.store, self.device = store, device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.resident = self._load() if self._fits(max_device_gb) else None

    def _fits(self, max_device_gb: float | None) -> bool:
        if self.stream is None and max_device_gb is None:
            return False  # a CPU reads the mapped files, which are in its memory once read
        free = torch.cuda.mem_get_info(self.device)[0] if self.stream else float("inf")
        limit = SHARE * free if max_device_gb is None else min(max_device_gb * GB, free)
        size = self.store.num_frames * sum(map(self.store.record_bytes, self.store.keys))
        if size <= limit:
            kept = "kept on %s: %.2f of the %.1f GB that they may take there (--features.device_gb)"
        else:
            kept = "too large for %s (%.2f GB; they may take %.1f, --features.device_gb) and read from the disk"
        logging.info(f"Features are {kept}.", self.device, size / GB, limit / GB)
        return size <= limit

    def _load(self) -> dict[str, Tensor]:
        self.store.require_unchanged()
        loaded = {}
        for key in self.store.keys:
            records = self.store[key]
            target = torch.empty(records.shape, dtype=records.dtype, device=self.device)
            step = max(1, PIECE // self.store.record_bytes(key))
            for first in range(0, len(records), step):
                target[first : first + step] = records[first : first + step].to(self.device)
            loaded[key] = target
        return loaded

    def __call__(self, frames: Tensor) -> dict[str, Tensor]:
        """Records of these frames (numbers in the whole dataset, the column `index`), on the device."""
        if self.resident is not None:
            frames = frames.to(self.device, non_blocking=True)
            return {key: value.index_select(0, frames) for key, value in self.resident.items()}
        self.store.require_unchanged()
        if self.stream is None:
            return {key: self.store[key].index_select(0, frames) for key in self.store.keys}
        return {key: self._pinned(key, frames).to(self.device, non_blocking=True) for key in self.store.keys}

    def _pinned(self, key: str, frames: Tensor) -> Tensor:
        """Records in page-locked memory, which a GPU copies from while the host goes on."""
        source = self.store[key]
        pinned = torch.empty((len(frames), *source.shape[1:]), dtype=source.dtype, pin_memory=True)
        return torch.index_select(source, 0, frames, out=pinned)

    def ahead(self, batches: Iterator[dict]) -> Iterator[dict]:
        """The batches with their records, which a thread fetches while the batch before is computed on."""
        if self.resident is not None:  # nothing to wait for
            yield from ({**batch, **self(batch["index"])} for batch in batches)
            return
        with ThreadPoolExecutor(1) as pool:
            waiting: Future | None = None
            for batch in batches:
                following = pool.submit(self._fetch, batch)
                if waiting is not None:
                    yield self._arrived(waiting)
                waiting = following
            if waiting is not None:
                yield self._arrived(waiting)

    def _fetch(self, batch: dict) -> tuple[dict, dict[str, Tensor], torch.cuda.Event | None]:
        """A batch, its records, and when these have arrived: a GPU copies them on a stream of their own."""
        if self.stream is None:
            return batch, self(batch["index"]), None
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
            return batch, self(batch["index"]), self.stream.record_event()

    def _arrived(self, job: Future) -> dict:
        batch, records, event = job.result()
        if event is not None:
            hand_over(records, event, self.device)
        return {**batch, **records}


def hand_over(tensors: dict, event: torch.cuda.Event, device: torch.device) -> None:
    """Let work that follows on the GPU, not the host, wait for tensors that another stream makes."""
    now = torch.cuda.current_stream(device)
    now.wait_event(event)
    for value in tensors.values():
        if isinstance(value, Tensor) and value.is_cuda:
            value.record_stream(now)
