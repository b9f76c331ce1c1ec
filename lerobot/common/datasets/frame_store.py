"""Per-frame records on disk, memory-mapped: decoded pictures, or features of a frozen network.

A store is a folder: `store.json` (what the arrays are and what they depend on, written last), one file per
key with a record for every frame of the dataset, and `done.bin` with a mark per episode. An episode that is
marked is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from lerobot.common.constants import HF_LEROBOT_HOME
from lerobot.common.datasets.utils import picture_size
from lerobot.common.datasets.video_utils import VideoReader
from lerobot.common.utils.images import RESIZE_RULE, resize_images
from lerobot.common.utils.io_utils import read_json, write_json

STORE_VERSION = 1
MANIFEST = "store.json"
DONE = "done.bin"


class FrameStoreError(ValueError):
    """A store does not belong to what it is opened for, or cannot be filled; the message says why."""


class FrameStore:
    """Arrays with one record per frame of a dataset: `store[key][global_frame_index]`.

    `arrays` {key: (torch dtype, record shape)}. `depends` is a JSON dict of everything the records were
    computed from; opening with another one is refused with FrameStoreError naming the entries that differ.
    """

    def __init__(
        self,
        root: str | Path,
        arrays: dict[str, tuple[torch.dtype, tuple[int, ...]]],
        num_frames: int,
        num_episodes: int,
        depends: dict[str, Any],
    ):
        self.root, self.num_frames = Path(root), num_frames
        self._arrays = {key: (dtype, tuple(shape)) for key, (dtype, shape) in arrays.items()}
        described = {
            key: {"file": f"{i:03d}.bin", "dtype": str(dtype).removeprefix("torch."), "shape": list(shape)}
            for i, (key, (dtype, shape)) in enumerate(self._arrays.items())
        }
        manifest = {"frames": num_frames, "episodes": num_episodes, "arrays": described, "depends": depends}
        manifest = json.loads(json.dumps({"store_version": STORE_VERSION, **manifest}))
        self._paths = {key: self.root / entry["file"] for key, entry in described.items()}
        if (self.root / MANIFEST).exists():
            self._refuse_other(read_json(self.root / MANIFEST), manifest)
        else:
            self._create(manifest)
        self._done = np.memmap(self.root / DONE, dtype=np.uint8, mode="r+")
        self._maps: dict[str, torch.Tensor] = {}

    def _refuse_other(self, found: dict, expected: dict) -> None:
        found, expected = ({**m.pop("depends"), **m} for m in (dict(found), dict(expected)))
        different = [key for key in expected if found.get(key) != expected[key]]
        if different:
            raise FrameStoreError(
                f"The frame store '{self.root}' was made from something else: {', '.join(different)} differ. "
                "Delete the folder or choose another one."
            )

    def _create(self, manifest: dict) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        for key, path in self._paths.items():
            with open(path, "wb") as file:  # sparse: takes space as it is filled
                file.truncate(self.num_frames * self.record_bytes(key))
        (self.root / DONE).write_bytes(bytes(manifest["episodes"]))
        write_json(manifest, self.root / MANIFEST)

    def record_bytes(self, key: str) -> int:
        """Size of one record."""
        dtype, shape = self._arrays[key]
        return dtype.itemsize * int(np.prod(shape))

    @property
    def keys(self) -> list[str]:
        """Names of the arrays."""
        return list(self._arrays)

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def __getitem__(self, key: str) -> torch.Tensor:
        """All records of a key as a read-only memory-mapped tensor (frames, *shape)."""
        if key not in self._maps:
            dtype, shape = self._arrays[key]
            raw = np.memmap(self._paths[key], dtype=np.uint8, mode="r")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch has no read-only tensors; indexing copies
                flat = torch.from_numpy(raw)
            self._maps[key] = flat.view(dtype).view(self.num_frames, *shape)
        return self._maps[key]

    def write(self, key: str, first_frame: int, records: torch.Tensor) -> None:
        """Write consecutive records (n, *shape); they count once their episode is marked."""
        dtype, shape = self._arrays[key]
        if records.dtype != dtype or tuple(records.shape[1:]) != shape:
            raise FrameStoreError(
                f"Records of '{key}' are {records.dtype} {tuple(records.shape[1:])}; the store has {dtype} {shape}."
            )
        with open(self._paths[key], "r+b") as file:
            file.seek(first_frame * self.record_bytes(key))
            file.write(records.contiguous().view(torch.uint8).numpy().data)

    def is_done(self, episode: int) -> bool:
        """Whether all records of an episode are on disk."""
        return bool(self._done[episode])

    def mark_done(self, episode: int) -> None:
        """Declare the records of an episode complete, after they reached the disk."""
        for path in self._paths.values():
            with open(path, "r+b") as file:
                os.fsync(file.fileno())
        self._done[episode] = 1
        self._done.flush()

    def require_space(self, num_frames: int) -> None:
        """FrameStoreError if so many more frames do not fit on the disk."""
        needed = num_frames * sum(self.record_bytes(key) for key in self.keys)
        free = shutil.disk_usage(self.root).free
        if needed > free:
            raise FrameStoreError(
                f"The frame store needs {needed / 2**30:.2f} GiB in '{self.root}', where {free / 2**30:.2f} "
                f"GiB are "
                "free. Set HF_LEROBOT_HOME to a larger disk, or use a smaller --policy.image_size."
            )

    def __getstate__(self):
        return {**self.__dict__, "_maps": {}, "_done": None}  # a worker maps the files itself, and only reads

    # --- pictures -------------------------------------------------------------------------------------------

    @classmethod
    def open_or_fill(
        cls, dataset, size: tuple[int, int], root: str | Path | None = None, progress: bool = True
    ) -> FrameStore:
        """The pictures of all cameras of `dataset` as uint8 (C, height, width), `size` = (height, width).

        What is missing is decoded, every video once from front to back; an interrupted filling continues.
        The place is `<HF_LEROBOT_HOME>/frame_store/<fingerprint>` unless `root` is given.
        """
        meta = dataset.meta
        depends = picture_fingerprint(meta, size)
        if root is None:
            name = hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]
            root = HF_LEROBOT_HOME / "frame_store" / name
        shapes = {key: (picture_size(meta.features[key])[0], *size) for key in meta.camera_keys}
        arrays = {key: (torch.uint8, shape) for key, shape in shapes.items()}
        store = cls(root, arrays, meta.total_frames, meta.total_episodes, depends)
        missing = [i for i in dataset.episode_indices if not store.is_done(i)]
        store.require_space(sum(meta.episodes[i]["length"] for i in missing))
        bar = tqdm(missing, desc=f"Decoding to {size[0]}x{size[1]}", unit="episode", disable=not (progress and missing))
        with ThreadPoolExecutor(max(1, len(meta.camera_keys))) as cameras:
            for episode in bar:
                list(cameras.map(partial(store._fill, dataset, episode), meta.camera_keys))
                store.mark_done(episode)
        return store

    def _fill(self, dataset, episode: int, key: str) -> None:
        rows = dataset.rows_of_episode(episode)
        first, size = int(dataset.global_index(rows[:1])), self._arrays[key][1][1:]
        if key in dataset.meta.image_keys:
            for offset, row in enumerate(rows.tolist()):
                self.write(key, first + offset, resize_images(dataset.table[key][row], size)[None])
            return
        reader = VideoReader(dataset.meta.video_file(episode, key))
        start = dataset.meta.video_start(episode, key)
        times = [start + time for time in dataset.table["timestamp"][rows].tolist()]
        offsets = defaultdict(list)
        for offset, number in enumerate(reader.nearest(times, dataset.tolerance_s).tolist()):
            offsets[number].append(offset)
        for number, frame in reader.scan(sorted(offsets)):
            picture = resize_images(torch.from_numpy(frame).permute(2, 0, 1), size)[None]
            for offset in offsets[number]:
                self.write(key, first + offset, picture)


def picture_fingerprint(meta, size: tuple[int, int]) -> dict[str, Any]:
    """Everything that the resized pictures of a dataset depend on.

    Of each file the name, the size and a hash of its beginning and end (an mp4 has its table of frame sizes
    there); not the modification time, so that a copied dataset finds its store.
    """
    cameras = {key: list(meta.features[key]["shape"]) for key in meta.camera_keys}
    lengths = [meta.episodes[i]["length"] for i in range(meta.total_episodes)]
    digest = hashlib.sha256()
    paths: dict[Path, None] = {}  # in order, each once
    for episode in range(meta.total_episodes):
        paths |= dict.fromkeys(meta.get_video_file_path(episode, key) for key in meta.video_keys)
        paths |= {meta.get_data_file_path(episode): None} if meta.image_keys else {}
    for path in paths:
        digest.update(str(path).encode() + _sample(meta.root / path))
    return {
        "size": list(size),
        "resize": RESIZE_RULE,
        "fps": meta.fps,
        "cameras": cameras,
        "episode lengths": hashlib.sha256(json.dumps(lengths).encode()).hexdigest(),
        "picture files": digest.hexdigest(),
    }


def _sample(path: Path) -> bytes:
    if not path.is_file():  # an episode that was not downloaded
        return b"absent"
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(2**12)
        file.seek(max(0, size - 2**14))
        return hashlib.sha256(str(size).encode() + head + file.read()).digest()
