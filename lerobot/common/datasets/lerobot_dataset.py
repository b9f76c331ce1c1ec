"""LeRobotDataset: read and record a dataset; one dictionary per frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lerobot.common.constants import DRAW_SEED
from lerobot.common.datasets.collate import FrameBatch, collate
from lerobot.common.datasets.compute_stats import aggregate_stats
from lerobot.common.datasets.dataset_metadata import LeRobotDatasetMetadata, takes_newer_order
from lerobot.common.datasets.episode_recorder import EncoderOptions, EpisodeRecorder, without_buffering
from lerobot.common.datasets.frame_table import EpisodeFile, FrameTable
from lerobot.common.datasets.hub_download import download_files
from lerobot.common.datasets.hub_upload import push_to_hub
from lerobot.common.datasets.image_writer import AsyncImageWriter
from lerobot.common.datasets.pictures import read_cameras
from lerobot.common.datasets.recovery import drop_last_episode
from lerobot.common.datasets.table_view import TableView
from lerobot.common.datasets.transforms import transform_batch
from lerobot.common.datasets.utils import (
    CODEBASE_VERSION,
    DatasetError,
    check_delta_timestamps,
    check_timestamps_sync,
    get_delta_indices,
    get_episode_data_index,
)
from lerobot.common.datasets.video_utils import check_video_backend

__all__ = ["CODEBASE_VERSION", "LeRobotDataset", "LeRobotDatasetMetadata"]


class LeRobotDataset(torch.utils.data.Dataset):
    """Frames of a v2.0, v2.1 or v3.0 dataset, and the place to record new episodes.

    `root` is the dataset folder (without it `$HF_LEROBOT_HOME/<repo_id>`, downloaded when files are missing).
    `episodes` selects and orders episodes. `delta_timestamps` {key: seconds relative to the frame} gives
    that key a time axis and adds `<key>_is_pad`. Pictures are float32 (C, H, W) in [0, 1], or uint8 with
    `return_uint8`. `meta`: metadata that were read before. `encoding` (vcodec, pix_fmt, g, crf) is how further
    episodes are recorded; settings of LeRobot 0.4's buffers are accepted and have no effect.

    An item holds every feature, the pad masks, and `task`. Raises FileNotFoundError for a missing dataset,
    CompatibilityError for other format versions, DatasetError for contradictory files, ValueError for
    timestamps or deltas that are not multiples of 1/fps.
    """

    collate = staticmethod(collate)  # a DataLoader's collate_fn: batches are gathered at once, not stacked

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
        download_videos: bool = True,
        video_backend: str | None = None,
        *,
        return_uint8: bool = False,
        meta: LeRobotDatasetMetadata | None = None,
        **encoding: Any,
    ):
        self.meta = LeRobotDatasetMetadata(repo_id, root, revision, force_cache_sync) if meta is None else meta
        self.episodes = None if episodes is None else [int(index) for index in episodes]
        self.image_transforms, self.tolerance_s = image_transforms, tolerance_s
        self.video_backend, self.return_uint8 = check_video_backend(video_backend), return_uint8
        self.delta_timestamps, self.delta_indices = delta_timestamps, None
        self._set_writer(EncoderOptions(**without_buffering(encoding)))
        self._check_episodes_exist()
        self._download_missing(download_videos, force_cache_sync)
        self._load_frames()
        if delta_timestamps is not None:
            check_delta_timestamps(delta_timestamps, self.fps, tolerance_s)
            self._set_deltas(get_delta_indices(delta_timestamps, self.fps))

    def _set_deltas(self, delta_indices: dict[str, list[int]]) -> None:
        if unknown := sorted(set(delta_indices) - set(self.features)):
            raise KeyError(f"delta_timestamps has {unknown}, which are not features; there are {list(self.features)}.")
        self.delta_indices = delta_indices
        self._deltas = {key: torch.tensor(deltas, dtype=torch.int64) for key, deltas in delta_indices.items()}

    def _check_episodes_exist(self) -> None:
        unknown = [index for index in self.episodes or [] if index not in self.meta.episodes]
        if unknown:
            raise ValueError(
                f"Episodes {unknown} are not in '{self.root}', which has 0 to "
                f"{self.meta.total_episodes - 1}; change --dataset.episodes."
            )

    def _download_missing(self, videos: bool, force: bool) -> None:
        needed = dict.fromkeys(self.meta.data_file(index) for index in self.episode_indices)
        if videos:
            keys = self.meta.video_keys
            needed |= dict.fromkeys(self.meta.video_file(i, key) for i in self.episode_indices for key in keys)
        missing = next((path for path in needed if not path.is_file()), None)
        if missing is not None or force:
            patterns = None if self.episodes is None else [str(path.relative_to(self.root)) for path in needed]
            ignore = None if videos else "videos/"
            download_files(self.repo_id, self.root, self.meta.revision, missing or self.root, patterns, ignore)

    def _load_frames(self) -> None:
        indices = self.episode_indices
        files = self.meta.locate_rows(indices)
        self._table: FrameTable | None = FrameTable(files, self.meta.features)
        self.episode_data_index = get_episode_data_index(self.meta.episodes, indices)
        lengths = torch.tensor([file.length for file in files], dtype=torch.int64)
        self._row_episode = torch.repeat_interleave(torch.arange(len(files)), lengths)  # place in `indices`
        keys = self.meta.video_keys
        self._videos = [
            {key: (self.meta.video_file(i, key), self.meta.video_start(i, key)) for key in keys} for i in indices
        ]
        firsts = get_episode_data_index(self.meta.episodes)["from"][torch.tensor(indices, dtype=torch.int64)]
        offset = firsts - self.episode_data_index["from"]
        self._row_global = torch.arange(len(self._table)) + offset[self._row_episode]
        if files:
            self._check_rows(files)

    def _check_rows(self, files: list[EpisodeFile]) -> None:
        stored, expected = self._table["episode_index"], torch.tensor([file.index for file in files])
        wrong = (stored != expected[self._row_episode]).nonzero()
        if len(wrong):
            row = int(wrong[0])
            file = files[self._row_episode[row]]
            raise DatasetError(
                f"Episode {file.index}, file '{file.path}': the column episode_index has {int(stored[row])}."
            )
        unknown = set(self._table["task_index"].unique().tolist()) - set(self.meta.tasks)
        if unknown:
            tasks = "tasks.parquet" if self.meta.is_v30 else "tasks.jsonl"
            raise DatasetError(
                f"task_index {sorted(unknown)} is used in '{self.root / 'data'}' but not in meta/{tasks}."
            )
        check_timestamps_sync(
            self._table["timestamp"].numpy(),
            stored.numpy(),
            {key: value.numpy() for key, value in self.episode_data_index.items()},
            self.fps,
            self.tolerance_s,
        )

    # --- reading --------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.num_frames

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """One frame; negative numbers count from the end; a slice gives a list."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> FrameBatch:
        """Several frames gathered at once; a sequence of items, or as a whole the collated batch."""
        table = self.table
        rows = torch.as_tensor([int(i) for i in indices], dtype=torch.int64)
        if ((rows < -len(table)) | (rows >= len(table))).any():
            raise IndexError(f"Frame {list(map(int, indices))} is outside of 0 to {len(table) - 1}.")
        rows = torch.where(rows < 0, rows + len(table), rows)
        windows, pads = self._windows(rows)
        batch: dict[str, Any] = {}
        pictures = {} if self.skip_pictures else self._pictures(rows, windows)
        batch |= {key: pictures[key] for key in self.meta.video_keys if key in pictures}
        for key, column in table.columns.items():
            if key in pictures:
                batch[key] = pictures[key]
            elif isinstance(column, list):
                batch[key] = _pick(column, windows.get(key, rows).tolist())
            elif isinstance(column, torch.Tensor):
                batch[key] = column[windows.get(key, rows)]
        batch.update(pads)
        self._transform_pictures(batch, indices)
        batch["task"] = [self.meta.tasks[i] for i in table["task_index"][rows].tolist()]
        return FrameBatch(batch, len(rows))

    def _windows(self, rows: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Rows (B, T) that each key with deltas reads, clamped to the episode, and where that was needed."""
        windows, pads = {}, {}
        if self.delta_indices:
            episodes = self._row_episode[rows]
            first = self.episode_data_index["from"][episodes][:, None]
            last = self.episode_data_index["to"][episodes][:, None] - 1
            for key, deltas in self._deltas.items():
                wanted = rows[:, None] + deltas
                windows[key] = torch.minimum(torch.maximum(wanted, first), last)
                pads[f"{key}_is_pad"] = wanted != windows[key]
        return windows, pads

    def _pictures(self, rows: torch.Tensor, windows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Pictures of all cameras, several cameras decoded at a time."""
        pictures = read_cameras(self, self.meta.camera_keys, rows, windows)
        for key in self.meta.video_keys:
            if key in windows:  # as LeRobot: no time axis for a single delta of a video
                pictures[key] = pictures[key].squeeze(1)
        return pictures

    def video_times(self, key: str, rows: torch.Tensor) -> dict[Path, tuple[list[int], list[float]]]:
        """Where the pictures of rows (N,) are: {video: (which of the rows, seconds in the video)}."""
        found: dict[Path, tuple[list[int], list[float]]] = {}
        episodes, times = self._row_episode[rows].tolist(), self.table["timestamp"][rows].tolist()
        for place, (episode, time) in enumerate(zip(episodes, times, strict=True)):
            path, start = self._videos[episode][key]
            places, seconds = found.setdefault(path, ([], []))
            places.append(place)
            seconds.append(start + time)
        return found

    def _transform_pictures(self, batch: dict[str, Any], indices: Sequence[int]) -> None:
        """Augment per frame and camera, with draws that depend on the frame's address if it has one."""
        if self.give_draw_seeds:
            batch[DRAW_SEED] = torch.tensor([index.draw_seed for index in indices])
        if self.image_transforms is None or self.skip_pictures:
            return
        seedable = getattr(self.image_transforms, "seedable", False)
        seeds = [getattr(index, "draw_seed", None) if seedable else None for index in indices]
        batch.update(transform_batch(self.image_transforms, batch, self.meta.camera_keys, seeds))

    def add_column(self, key: str, values: torch.Tensor, deltas: Sequence[int]) -> None:
        """Add a float column (N,) in memory, read at `deltas` frames from the current one."""
        self.table.columns[key] = values
        self.meta.info["features"] = {**self.meta.features, key: {"dtype": "float32", "shape": (1,), "names": None}}
        self._set_deltas({**(self.delta_indices or {}), key: list(deltas)})

    def use_frame_store(self, store: Any | None) -> None:
        """Take pictures from a `FrameStore` (at its size) instead of decoding them; None decodes again."""
        if store is not None:
            missing = [key for key in self.meta.camera_keys if key not in store]
            unfilled = [index for index in self.episode_indices if not store.is_done(index)]
            if missing or unfilled:
                raise ValueError(f"The frame store '{store.root}' lacks cameras {missing}, episodes {unfilled[:10]}.")
        self.frame_store = store

    def rows_of_episode(self, episode: int) -> torch.Tensor:
        """Item numbers of a loaded episode."""
        position = self.episode_indices.index(episode)
        return torch.arange(*(int(self.episode_data_index[bound][position]) for bound in ("from", "to")))

    def global_index(self, rows: torch.Tensor) -> torch.Tensor:
        """Frame number in the whole dataset (its column `index`) of item numbers."""
        return self._row_global[rows]

    def get_episodes_file_paths(self) -> list[Path]:
        """Data and video files of the loaded episodes, relative to the root."""
        paths = [self.meta.get_data_file_path(index) for index in self.episode_indices]
        keys = self.meta.video_keys
        paths += [self.meta.get_video_file_path(i, key) for i in self.episode_indices for key in keys]
        return list(dict.fromkeys(paths))

    @property
    def table(self) -> FrameTable:
        """The numeric and text columns; loaded again after episodes were recorded."""
        if self._table is None:
            self.wait_until_saved()
            self._load_frames()
        return self._table

    @property
    def hf_dataset(self) -> TableView:
        """The columns under the name and with the calls that LeRobot has: `hf_dataset.select([1, 2])["action"]`."""
        table = self.table
        if self._view is None or self._view[0] is not table:
            self._view = table, TableView(table)
        return self._view[1]

    @property
    def episode_indices(self) -> list[int]:
        """Numbers of the loaded episodes, in order."""
        return list(self.meta.episodes) if self.episodes is None else self.episodes

    @property
    def stats(self) -> dict[str, dict[str, np.ndarray]]:
        """Statistics of the loaded episodes; `meta.stats`, which training uses, has the whole dataset's."""
        if self.episodes is None or not self.meta.has_episode_stats:
            return self.meta.stats
        return (
            aggregate_stats([stats for i in self.episodes if (stats := self.meta.episodes_stats[i])]) or self.meta.stats
        )

    @property
    def root(self) -> Path:
        """The dataset folder."""
        return self.meta.root

    @property
    def repo_id(self) -> str | None:
        """The hub id, if any."""
        return self.meta.repo_id

    @property
    def fps(self) -> int | float:
        """Frames per second."""
        return self.meta.fps

    @property
    def features(self) -> dict[str, dict]:
        """Every feature: {dtype, shape, names}."""
        return self.meta.features

    @property
    def hf_features(self):
        """Column types for the library `datasets`; ImportError without it."""
        from lerobot.common.datasets.hf_tables import get_hf_features_from_features

        return get_hf_features_from_features(self.features)

    @property
    def num_frames(self) -> int:
        """Frames of the loaded episodes."""
        return sum(self.meta.episodes[index]["length"] for index in self.episode_indices)

    @property
    def num_episodes(self) -> int:
        """Loaded episodes."""
        return len(self.episode_indices)

    def push_to_hub(self, branch: str | None = None, tags: list[str] | None = None, **options) -> str:
        """Upload the dataset with a card; options of `hub_upload.push_to_hub`. Returns its address."""
        self.wait_until_saved()
        return push_to_hub(self.meta, branch, tags, **options)

    # --- recording ------------------------------------------------------------------------------------------

    @classmethod
    @takes_newer_order(
        "features root robot_type use_videos tolerance_s image_writer_processes image_writer_threads video_backend "
        "batch_encoding_size vcodec"
    )
    def create(
        cls,
        repo_id: str | None,
        fps: int,
        root: str | Path | None = None,
        robot=None,
        robot_type: str | None = None,
        features: dict | None = None,
        use_videos: bool = True,
        tolerance_s: float = 1e-4,
        image_writer_processes: int = 0,
        image_writer_threads: int = 0,
        video_backend: str | None = None,
        *,
        codebase_version: str = CODEBASE_VERSION,
        vcodec: str = "h264",
        pix_fmt: str = "yuv420p",
        g: int = 2,
        crf: int = 30,
        **more: Any,
    ) -> LeRobotDataset:
        """Start an empty dataset on disk, v2.1 or v3.0, ready for `add_frame`.

        `features` {name: {dtype, shape, names}} without the bookkeeping ones; pictures have dtype video or
        image. v3.0 takes data_files_size_in_mb and video_files_size_in_mb; settings of LeRobot 0.4's buffers are
        accepted and have no effect: episodes are encoded while they are recorded.
        FileExistsError if the folder exists; ValueError for malformed features or an unknown codec.
        """
        options, sizes = EncoderOptions(vcodec, pix_fmt, g, crf), without_buffering(more)
        dataset = cls.__new__(cls)
        dataset.meta = LeRobotDatasetMetadata.create(
            repo_id, fps, root, robot, robot_type, features, use_videos, codebase_version=codebase_version, **sizes
        )
        dataset.episodes = dataset.image_transforms = None
        dataset.delta_timestamps = dataset.delta_indices = None
        dataset.tolerance_s, dataset.return_uint8 = tolerance_s, False
        dataset.video_backend = check_video_backend(video_backend)
        dataset._set_writer(options)
        dataset._load_frames()
        if image_writer_processes or image_writer_threads:
            dataset.start_image_writer(image_writer_processes, image_writer_threads)
        return dataset

    def _set_writer(self, options: EncoderOptions) -> None:
        self._encoder_options = options
        self._recorder: EpisodeRecorder | None = None
        self._view: tuple[FrameTable, TableView] | None = None
        self.image_writer: AsyncImageWriter | None = None
        self.frame_store = None
        self.give_draw_seeds = False  # items with the seed of their draws, for who augments them later
        self.skip_pictures = False  # items without pictures, for who keeps what a frozen network made of them

    @property
    def recorder(self) -> EpisodeRecorder:
        """Takes the frames of the running episode; ValueError if this dataset cannot be added to."""
        if self._recorder is None:
            if self.meta.lacks_stats:
                raise ValueError(
                    f"'{self.root}' has no statistics, to which those of new episodes could be added. Compute them: "
                    f"python lerobot/scripts/check_dataset.py {self.root} --fix"
                )
            if not self.meta.has_episode_stats:
                raise ValueError(
                    f"'{self.root}' is {self.meta.info['codebase_version']}; episodes can be added to v2.1 and v3.0 "
                    "only. Convert it: python lerobot/common/datasets/v21/convert_dataset_v20_to_v21.py "
                    f"--root={self.root} --output=FOLDER"
                )
            self._recorder = EpisodeRecorder(self.meta, self._encoder_options, self.tolerance_s, self.image_writer)
        return self._recorder

    @property
    def episode_buffer(self) -> dict[str, Any]:
        """Numbers and texts of the running episode: {"size", "task", "episode_index", key: list}."""
        return self.recorder.buffer

    def create_episode_buffer(self, episode_index: int | None = None) -> dict[str, Any]:
        """An empty buffer: {"size": 0, "task": [], "episode_index": the next one or the given, key: [] per column}."""
        buffer = self.recorder.empty_buffer()
        return buffer if episode_index is None else {**buffer, "episode_index": episode_index}

    def add_frame(self, frame: dict[str, Any], task: str | None = None, timestamp: float | None = None) -> None:
        """Add a frame to the running episode, `task` in it or given; ValueError if it does not fit."""
        self.recorder.add_frame(frame, task, timestamp)

    def save_episode(
        self, episode_data: dict[str, Any] | None = None, parallel_encoding: bool = True, *, background: bool = False
    ) -> None:
        """Write the running episode (or `episode_data`: {key: sequence over frames, "task": text or texts}).

        When this returns the episode is on disk; killed before, the dataset is as it was. With `background` it
        returns at once, the next episode can be recorded, and `wait_until_saved` says when it is on disk. Cameras
        are encoded side by side while they are recorded, whatever `parallel_encoding` says.
        """
        if episode_data is not None:
            self._add_frames(episode_data)
        self.recorder.save(background)
        self._table = None

    def wait_until_saved(self) -> None:
        """Return when all episodes are on disk; raises what went wrong in the background."""
        if self._recorder is not None:
            self._recorder.wait()
        self._table = None

    def _add_frames(self, data: dict[str, Any]) -> None:
        tasks = data["task"]
        keys = [key for key in self.features if key in data and key not in ("frame_index", "episode_index", "index")]
        keys = [key for key in keys if key != "task_index"]
        size = len(data[keys[0]])
        for i in range(size):
            self.add_frame({key: data[key][i] for key in keys}, tasks if isinstance(tasks, str) else tasks[i])

    def clear_episode_buffer(self, delete_images: bool = True) -> None:
        """Forget the frames of the running episode; nothing of them stays on disk."""
        self.recorder.discard()

    def drop_last_episode(self) -> None:
        """Remove the episode that was saved last (v2.1 only, else ValueError); frames being recorded are forgotten."""
        self.clear_episode_buffer()
        drop_last_episode(self.meta)
        self._recorder, self._table = None, None

    def has_pending_frames(self) -> bool:
        """Whether frames were added since the last saved episode."""
        return self._recorder is not None and self._recorder.buffer["size"] > 0

    def start_image_writer(self, num_processes: int = 0, num_threads: int = 4) -> None:
        """Write the PNG files of image features with that many threads."""
        self.image_writer = AsyncImageWriter(num_processes, num_threads)
        self._recorder = None

    def stop_image_writer(self) -> None:
        """End the PNG threads after what is queued."""
        if self.image_writer is not None:
            self.image_writer.stop()
            self.image_writer, self._recorder = None, None

    def finalize(self) -> None:
        """Wait for episodes saved in the background; every other one is complete on disk already."""
        self.wait_until_saved()

    def __getstate__(self):
        return {**self.__dict__, "_recorder": None, "image_writer": None}  # a worker process only reads

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(repo_id={self.repo_id!r}, root='{self.root}', "
            f"episodes={self.num_episodes}, frames={self.num_frames}, features={list(self.features)})"
        )


def __getattr__(name: str):
    if name == "MultiLeRobotDataset":  # stands in a file of its own, which imports this one
        from lerobot.common.datasets.multi_dataset import MultiLeRobotDataset

        return MultiLeRobotDataset
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def _pick(values: list[str], rows: list) -> list:
    """Strings by row numbers, nested as those are."""
    return [_pick(values, row) if isinstance(row, list) else values[row] for row in rows]
