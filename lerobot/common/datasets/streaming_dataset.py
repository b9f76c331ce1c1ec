"""Reading a dataset that does not fit on the disk: a few episodes at a time, from the hub or a local folder."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from lerobot.common.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.sampler import FrameAddress
from lerobot.common.utils.random_utils import derive_seed


class StreamingLeRobotDataset(torch.utils.data.IterableDataset):
    """Every frame once per pass, in a random order over the frames of the open episodes.

    As many episodes are open as have `buffer_size` frames together (at least one); their numbers are in memory,
    their videos are decoded frame by frame. Files of a hub dataset are downloaded episode by episode into a
    temporary folder and deleted after use, unless `root` holds them. The order is a function of (seed, pass,
    worker); workers share the episodes among them. `shuffle=False` keeps the order of the dataset.

    Items are those of `LeRobotDataset` with the same arguments, windows and padding at the episode's ends
    included.
    """

    def __init__(
        self,
        repo_id: str | None = None,
        root: str | Path | None = None,
        episodes: Sequence[int] | None = None,
        image_transforms: Callable | None = None,
        delta_timestamps: dict[str, list[float]] | None = None,
        tolerance_s: float = 1e-4,
        revision: str | None = None,
        force_cache_sync: bool = False,
        streaming: bool = True,
        buffer_size: int = 1000,
        max_num_shards: int = 16,
        seed: int = 42,
        rng: Any = None,
        shuffle: bool = True,
        *,
        return_uint8: bool = False,
    ):
        if buffer_size < 1:
            raise ValueError(f"buffer_size={buffer_size}: expected at least 1 frame.")
        self.meta = LeRobotDatasetMetadata(repo_id, root, revision, force_cache_sync)
        self.repo_id, self.buffer_size, self.shuffle, self.epoch = repo_id, buffer_size, shuffle, 0
        self.seed = seed if rng is None else int(rng.integers(2**31))
        self.streaming, self.max_num_shards = streaming, max_num_shards
        self.episodes = list(self.meta.episodes) if episodes is None else [int(index) for index in episodes]
        self._options = {
            "image_transforms": image_transforms,
            "delta_timestamps": delta_timestamps,
            "tolerance_s": tolerance_s,
            "return_uint8": return_uint8,
        }

    @property
    def fps(self) -> int | float:
        """Frames per second."""
        return self.meta.fps

    @property
    def num_episodes(self) -> int:
        """Episodes of a pass."""
        return len(self.episodes)

    @property
    def num_frames(self) -> int:
        """Frames of a pass."""
        return sum(self.meta.episodes[index]["length"] for index in self.episodes)

    def set_epoch(self, epoch: int) -> None:
        """Which pass comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = torch.utils.data.get_worker_info()
        number, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        epoch, self.epoch = self.epoch, self.epoch + 1
        order = self.episodes
        if self.shuffle:  # the same order in every worker, of which each takes its share
            generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
            order = [order[i] for i in torch.randperm(len(order), generator=generator).tolist()]
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, number))
        with TemporaryDirectory(prefix="lerobot-stream-") as folder:
            yield from self._frames(order[number::count], generator, epoch, _Files(self, Path(folder)))

    def _frames(self, order: list[int], generator: torch.Generator, epoch: int, files: _Files) -> Iterator[dict]:
        waiting, open_episodes = list(reversed(order)), []  # [(dataset, rows that are left)]
        while waiting or open_episodes:
            while waiting and (not open_episodes or sum(len(left) for _, left in open_episodes) < self.buffer_size):
                dataset = files.open(waiting.pop())
                rows = list(range(len(dataset)))
                if self.shuffle:
                    rows = torch.randperm(len(rows), generator=generator).tolist()
                open_episodes.append((dataset, rows[::-1]))
            place = 0
            if self.shuffle:  # an episode is chosen in proportion to what is left of it
                left = torch.tensor([len(rows) for _, rows in open_episodes], dtype=torch.float64)
                place = int(torch.multinomial(left, 1, generator=generator))
            dataset, rows = open_episodes[place]
            yield dataset[FrameAddress(rows.pop(), derive_seed(self.seed, dataset.episodes[0]), epoch)]
            if not rows:
                del open_episodes[place]
                files.close(dataset)


class _Files:
    """The files of the open episodes; what was downloaded is deleted with the last episode that needs it."""

    def __init__(self, stream: StreamingLeRobotDataset, folder: Path):
        self._stream, self._folder = stream, folder
        self._users: dict[Path, int] = {}

    def open(self, episode: int) -> LeRobotDataset:
        meta = self._stream.meta
        needed = [meta.data_file(episode), *[meta.video_file(episode, key) for key in meta.video_keys]]
        if not all(path.is_file() for path in needed):
            meta = copy.copy(meta)
            meta.root = self._folder
        dataset = LeRobotDataset(self._stream.repo_id, episodes=[episode], meta=meta, **self._stream._options)
        for path in dataset.get_episodes_file_paths():
            self._users[path] = self._users.get(path, 0) + 1
        return dataset

    def close(self, dataset: LeRobotDataset) -> None:
        for path in dataset.get_episodes_file_paths():
            self._users[path] -= 1
            if not self._users[path] and dataset.root == self._folder:
                (self._folder / path).unlink()
        if dataset.root == self._folder:
            shutil.rmtree(self._folder / ".cache", ignore_errors=True)  # notes of the hub client
