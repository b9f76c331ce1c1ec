"""A ring buffer of frames on disk, for data that is collected while a policy trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

NEXT_INDEX_KEY, OCCUPANCY_MASK_KEY = "_next_index", "_occupancy_mask"
INDEX_KEY, FRAME_INDEX_KEY, EPISODE_INDEX_KEY, TIMESTAMP_KEY = "index", "frame_index", "episode_index", "timestamp"
IS_PAD_POSTFIX = "_is_pad"


class OnlineBuffer(torch.utils.data.Dataset):
    """Frames of whole episodes in a folder, one numpy memory map per key; the oldest give way when it is full.

    `data_spec` {key: {"shape", "dtype"}} describes what a frame holds beside index, frame_index, episode_index and
    timestamp; an existing folder must have been made with the same one (ValueError). With `delta_timestamps`
    (seconds by key) an item holds windows (T, ...) and `<key>_is_pad` (T,) for steps outside its episode; that
    needs `fps`.
    """

    def __init__(
        self,
        write_dir: str | Path,
        data_spec: dict[str, Any] | None,
        buffer_capacity: int | None,
        fps: float | None = None,
        delta_timestamps: dict[str, list[float]] | dict[str, np.ndarray] | None = None,
    ):
        self.set_delta_timestamps(delta_timestamps)
        self._fps, self._write_dir = fps, Path(write_dir)
        self._write_dir.mkdir(parents=True, exist_ok=True)
        self._buffer_capacity = buffer_capacity
        spec = _complete(data_spec or {}, buffer_capacity)
        self._data = {key: self._memory_map(key, one["shape"], np.dtype(one["dtype"])) for key, one in spec.items()}

    def _memory_map(self, key: str, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
        path = self._write_dir / key
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if path.exists() and path.stat().st_size != size:
            raise ValueError(
                f"'{path}' has {path.stat().st_size} bytes; {dtype} of shape {shape} has {size}. Give the data_spec "
                "and buffer_capacity that the buffer was made with, or a new write_dir."
            )
        return np.memmap(path, dtype=dtype, mode="r+" if path.exists() else "w+", shape=shape)

    @property
    def delta_timestamps(self) -> dict[str, np.ndarray] | None:
        """Offsets of the windows in seconds, by key."""
        return self._delta_timestamps

    def set_delta_timestamps(self, value: dict[str, Any] | None) -> None:
        """Change the windows."""
        self._delta_timestamps = None if value is None else {k: np.asarray(v, dtype=float) for k, v in value.items()}

    @property
    def fps(self) -> float | None:
        """Frames per second."""
        return self._fps

    @property
    def tolerance_s(self) -> float:
        """How far a frame may be from the wanted time: a little under one period."""
        return 1 / self._fps - 1e-4

    @property
    def data_keys(self) -> list[str]:
        """What a frame holds."""
        return [key for key in self._data if not key.startswith("_")]

    @property
    def _occupied(self) -> np.ndarray:
        return self._data[OCCUPANCY_MASK_KEY]

    @property
    def num_frames(self) -> int:
        """Frames that are held."""
        return int(np.count_nonzero(self._occupied))

    @property
    def num_episodes(self) -> int:
        """Episodes of which a frame is held."""
        return len(np.unique(self._data[EPISODE_INDEX_KEY][self._occupied]))

    def add_data(self, data: dict[str, np.ndarray]) -> None:
        """Append frames, (N, ...) per key, whose `index` and `episode_index` start at 0.

        ValueError for other keys than those of the buffer, or for columns of different length.
        """
        if set(data) != set(self.data_keys):
            raise ValueError(f"Keys {sorted(data)}; the buffer has {sorted(self.data_keys)}.")
        lengths = {len(values) for values in data.values()}
        if len(lengths) != 1:
            raise ValueError(f"Columns have different lengths: {sorted(lengths)}.")
        (count,) = lengths
        first = int(self._data[NEXT_INDEX_KEY])
        data = dict(data)
        if self._occupied.any():
            last = (first - 1) % self._buffer_capacity
            for key in (INDEX_KEY, EPISODE_INDEX_KEY):
                data[key] = np.asarray(data[key]) + self._data[key][last] + 1
        places = (first + np.arange(count)) % self._buffer_capacity
        for key, values in data.items():
            self._data[key][places] = values
        self._occupied[places] = True
        self._data[NEXT_INDEX_KEY][...] = (first + count) % self._buffer_capacity

    def __len__(self) -> int:
        return self.num_frames

    def __getitem__(self, idx: int) -> dict[str, torch.Tensor]:
        if not -len(self) <= idx < len(self):
            raise IndexError(f"Frame {idx}; the buffer holds {len(self)}.")
        idx = idx % len(self)
        item = {key: self._data[key][idx] for key in self.data_keys}
        for key, deltas in (self._delta_timestamps or {}).items():
            item[key], item[f"{key}{IS_PAD_POSTFIX}"] = self._window(key, deltas, idx)
        return {key: torch.from_numpy(np.array(value)) for key, value in item.items()}

    def _window(self, key: str, deltas: np.ndarray, idx: int) -> tuple[np.ndarray, np.ndarray]:
        episode, times = self._data[EPISODE_INDEX_KEY], self._data[TIMESTAMP_KEY]
        rows = np.flatnonzero((episode == episode[idx]) & self._occupied)
        distance = np.abs(times[rows][None] - (times[idx] + deltas)[:, None])
        return self._data[key][rows[distance.argmin(axis=1)]], distance.min(axis=1) > self.tolerance_s

    def get_data_by_key(self, key: str) -> torch.Tensor:
        """One key of every frame that is held: (N, ...)."""
        return torch.from_numpy(np.array(self._data[key][self._occupied]))


def _complete(data_spec: dict[str, Any], capacity: int) -> dict[str, Any]:
    spec = {
        NEXT_INDEX_KEY: {"dtype": np.int64, "shape": ()},
        OCCUPANCY_MASK_KEY: {"dtype": np.bool_, "shape": (capacity,)},
        INDEX_KEY: {"dtype": np.int64, "shape": (capacity,)},
        FRAME_INDEX_KEY: {"dtype": np.int64, "shape": (capacity,)},
        EPISODE_INDEX_KEY: {"dtype": np.int64, "shape": (capacity,)},
        TIMESTAMP_KEY: {"dtype": np.float64, "shape": (capacity,)},
    }
    for key, one in data_spec.items():
        if key.startswith("_") or key in spec:
            raise ValueError(f"The key '{key}' is the buffer's own; name the feature differently.")
        spec[key] = {"dtype": one["dtype"], "shape": (capacity, *one["shape"])}
    return spec


def compute_sampler_weights(
    offline_dataset: Any,
    offline_drop_n_last_frames: int = 0,
    online_dataset: OnlineBuffer | None = None,
    online_sampling_ratio: float | None = None,
    online_drop_n_last_frames: int = 0,
) -> torch.Tensor:
    """How often each frame of the two datasets, one after the other, is drawn: float32, sum 1.

    Frames of a dataset have equal weight, but 0 at the ends of its episodes as far as they are dropped; those of
    the online one add up to `online_sampling_ratio`. ValueError if only one of online dataset and ratio is given.
    """
    if (online_dataset is None) != (online_sampling_ratio is None):
        raise ValueError("online_dataset and online_sampling_ratio go together: give both or neither.")
    ratio = online_sampling_ratio or 0.0
    weights = []
    if len(offline_dataset):
        ends = offline_dataset.episode_data_index["to"].tolist()
        counts = [b - a for a, b in zip([0, *ends], ends, strict=False)]
        weights.append(_equal(counts, offline_drop_n_last_frames) * (1 - ratio))
    if online_dataset is not None and len(online_dataset):
        column = online_dataset.get_data_by_key(EPISODE_INDEX_KEY)
        _, counts = torch.unique_consecutive(column, return_counts=True)
        weights.append(_equal(counts.tolist(), online_drop_n_last_frames) * ratio)
    if not weights:
        return torch.zeros(0)
    joined = torch.cat(weights)
    return joined / joined.sum()


def _equal(lengths: list[int], dropped: int) -> torch.Tensor:
    used = torch.cat([torch.arange(n) < n - dropped for n in lengths]).float()
    return used / used.sum()
