"""Per-frame records on disk, memory-mapped: decoded pictures, or features of a frozen network.

A store is a folder: `store.json` (what the arrays are and what they depend on, written last), one file per key with a
record for every frame of the dataset, `done.bin` with a mark per episode, `sums.bin` with its checksums and
`sources.bin` with what it was computed from. An episode that is marked is complete. Who fills holds the lock of the
folder, who reads shares it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import warnings
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from tqdm import tqdm

from lerobot.common.constants import HF_LEROBOT_HOME
from lerobot.common.datasets.utils import picture_size
from lerobot.common.datasets.video_utils import VideoReader
from lerobot.common.utils.images import RESIZE_RULE, resize_images
from lerobot.common.utils.io_utils import read_json, write_json

STORE_VERSION = 2
MANIFEST = "store.json"
DONE = "done.bin"
SUMS = "sums.bin"  # per episode: first frame, frame behind the last, crc32 of the records of each key
SOURCES = "sources.bin"  # per episode: see `episode_sources`
BY_EPISODE = ("episode lengths", "picture files", "tasks")  # what `episode_sources` says more closely
LOCK = "lock"
STAMPS = "stamps.json"  # sizes and times of the files when all their records were known to be right
LARGER_DISK = "set HF_LEROBOT_HOME to a larger disk, or use a smaller --policy.image_size"


class FrameStoreError(ValueError):
    """A store does not belong to what it is opened for, or cannot be filled; the message says why."""


class FrameStore:
    """Arrays with one record per frame of a dataset: `store[key][global_frame_index]`.

    `arrays` {key: (torch dtype, record shape)}. `depends` is a JSON dict of everything the records were
    computed from; opening with another one is refused with FrameStoreError naming the entries that differ.
    `remedy`: what its user can do where the disk is too small.
    """

    def __init__(
        self,
        root: str | Path,
        arrays: dict[str, tuple[torch.dtype, tuple[int, ...]]],
        num_frames: int,
        num_episodes: int,
        depends: dict[str, Any],
        remedy: str = LARGER_DISK,
    ):
        self.remedy = remedy
        self.root, self.num_frames, self.num_episodes, self.depends = Path(root), num_frames, num_episodes, depends
        self._arrays = {key: (dtype, tuple(shape)) for key, (dtype, shape) in arrays.items()}
        described = {
            key: {"file": f"{i:03d}.bin", "dtype": str(dtype).removeprefix("torch."), "shape": list(shape)}
            for i, (key, (dtype, shape)) in enumerate(self._arrays.items())
        }
        manifest = {"frames": num_frames, "episodes": num_episodes, "arrays": described, "depends": depends}
        manifest = json.loads(json.dumps({"store_version": STORE_VERSION, **manifest}))
        self._paths = {key: self.root / entry["file"] for key, entry in described.items()}
        self.is_new = not (self.root / MANIFEST).exists()
        if not self.is_new:
            self._refuse_other(read_json(self.root / MANIFEST), manifest)
        else:
            with self._explaining_the_disk():
                self._create(manifest)
        if not (self.root / SOURCES).exists():  # new, or of a version that did not look at single episodes
            (self.root / SOURCES).write_bytes(bytes(8 * num_episodes))
        self._done = np.memmap(self.root / DONE, dtype=np.uint8, mode="r+")
        self._sums = np.memmap(self.root / SUMS, dtype=np.uint64, mode="r+", shape=(num_episodes, 2 + len(arrays)))
        self._sources = np.memmap(self.root / SOURCES, dtype=np.uint64, mode="r+")
        self._maps: dict[str, torch.Tensor] = {}
        self._lock: IO | None = None
        self._seen: list | None = None

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
        (self.root / SUMS).write_bytes(bytes(8 * manifest["episodes"] * (2 + len(self._arrays))))
        (self.root / LOCK).touch()
        write_json(manifest, self.root / MANIFEST)

    @contextmanager
    def _explaining_the_disk(self) -> Iterator[None]:
        """Errors of the disk inside become a FrameStoreError with what to do."""
        try:
            yield
        except OSError as e:
            raise FrameStoreError(
                f"Filling '{self.root}' stopped: {e.strerror}. What is complete stays; make room or {self.remedy}, and "
                "start again."
            ) from e

    @classmethod
    def at(cls, root: str | Path) -> FrameStore:
        """The store that is in a folder, whatever it depends on. FileNotFoundError where there is none."""
        found = read_json(Path(root) / MANIFEST)
        arrays = {key: (getattr(torch, e["dtype"]), tuple(e["shape"])) for key, e in found["arrays"].items()}
        return cls(root, arrays, found["frames"], found["episodes"], found["depends"])

    @property
    def episodes_done(self) -> list[int]:
        """Complete episodes."""
        return np.flatnonzero(self._done).tolist()

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
        with self._explaining_the_disk(), open(self._paths[key], "r+b") as file:
            file.seek(first_frame * self.record_bytes(key))
            file.write(records.contiguous().view(torch.uint8).numpy().data)

    def is_done(self, episode: int, source: int | None = None) -> bool:
        """Whether all records of an episode are on disk, computed from this source if one is given."""
        return bool(self._done[episode]) and (source is None or int(self._sources[episode]) == source)

    def mark_done(self, episode: int, frames: range, source: int = 0) -> None:
        """Declare the records of an episode, which has these frames, complete, after they reached the disk."""
        for path in self._paths.values():
            with self._explaining_the_disk(), open(path, "r+b") as file:
                os.fsync(file.fileno())
        self._sums[episode] = [frames.start, frames.stop, *self._checksums(frames)]
        self._sums.flush()
        self._sources[episode] = source
        self._sources.flush()
        self._done[episode] = 1
        self._done.flush()

    def unmark(self, episodes: Iterable[int]) -> None:
        """Declare episodes incomplete, before their records are written (again)."""
        self._done[list(episodes)] = 0
        self._done.flush()

    def why_incomplete(self, episodes: Sequence[int]) -> str:
        """The reason, for a message, why these episodes have to be filled."""
        if self.is_new:
            return why_new(self.root, self.depends)
        changed = sum(map(self.is_done, episodes))
        if changed:
            return f"{changed} of them had other pictures, times or tasks when they were filled"
        return "they were not filled yet"

    def copy_known(self, dataset, sources: dict[int, int]) -> list[int]:
        """Copy the records of episodes that stores beside this one made from the same; returns their numbers.

        sources: see `episode_sources`.
        """
        copied: list[int] = []
        for folder, manifest in _stores_beside(self.root).items():
            if not self._differs_by_episodes(manifest):
                continue
            other, count = FrameStore.at(folder), len(copied)
            try:
                other.share(wait=False)
            except FrameStoreError:  # somebody fills it: computing is as right
                continue
            known = {int(other._sources[i]): i for i in other.episodes_done}
            for episode in sources.keys() - copied:
                found = known.get(sources[episode])
                if found is not None and other.is_whole(found):
                    self._copy(other, found, episode, frames_of(dataset, episode), sources[episode])
                    copied.append(episode)
            other.release()
            if len(copied) > count:
                logging.info("Copied %d of %d episodes from '%s'.", len(copied) - count, len(sources), other.root)
        return copied

    def _copy(self, other: FrameStore, found: int, episode: int, frames: range, source: int) -> None:
        theirs = slice(*other._sums[found, :2].tolist())
        for key in self.keys:
            self.write(key, frames.start, other[key][theirs])
        self.mark_done(episode, frames, source)

    def _differs_by_episodes(self, other: dict) -> bool:
        """Whether a store with this manifest differs in nothing but in which episodes its dataset has."""
        own = read_json(self.root / MANIFEST)
        if any(own[key] != other[key] for key in ("store_version", "arrays")):
            return False
        own, other = (_flat(manifest["depends"]) for manifest in (own, other))
        return all(other.get(key) == own[key] for key in own if key not in BY_EPISODE)

    def _checksums(self, frames: range) -> list[int]:
        sums = []
        for key, path in self._paths.items():
            size = self.record_bytes(key)
            raw = np.memmap(path, dtype=np.uint8, mode="r", offset=frames.start * size, shape=len(frames) * size)
            sums.append(zlib.crc32(raw))
        return sums

    def is_whole(self, episode: int) -> bool:
        """Whether the records of a complete episode are what was written."""
        first, end, *sums = self._sums[episode].tolist()
        return first < end and self._checksums(range(first, end)) == sums

    def verify(self, episode: int) -> None:
        """FrameStoreError if the records of a complete episode are not what was written."""
        if not self.is_whole(episode):
            raise FrameStoreError(
                f"The frame store '{self.root}' is damaged (episode {episode} has another checksum). Delete the "
                "folder; it is filled again."
            )

    def require_intact(self) -> None:
        """Verify every complete episode if a file was touched since all were known to be right.

        FrameStoreError for a damaged store.
        """
        path = self.root / STAMPS
        if path.exists() and read_json(path) == self._touched():
            return
        for episode in self.episodes_done:
            self.verify(episode)
        self.remember_intact()

    def remember_intact(self) -> None:
        """Spare `require_intact` its work as long as nobody touches the files."""
        with self._explaining_the_disk():
            write_json(self._touched(), self.root / STAMPS)

    def _touched(self) -> dict[str, list[int]]:
        paths = [self.root / DONE, self.root / SUMS, *self._paths.values()]
        return {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in paths}

    def share(self, wait: bool = True) -> None:
        """Hold the folder for reading until the process ends: meanwhile nobody fills it."""
        self._hold(fcntl.LOCK_SH, "filled", wait)
        self._seen = self._stamps()

    def hold_for_filling(self) -> None:
        """Hold the folder alone. FrameStoreError while another process reads or fills it."""
        self._hold(fcntl.LOCK_EX, "used", wait=False)

    def release(self) -> None:
        """Let others fill; happens by itself when the store is no longer used."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _hold(self, how: int, used: str, wait: bool) -> None:
        if self._lock is None:
            self._lock = open(self.root / LOCK, "a")  # noqa: SIM115  open as long as it is held
        try:
            fcntl.flock(self._lock, how if wait else how | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise FrameStoreError(
                f"The frame store '{self.root}' is being {used} by another process. Wait until it is done, or choose "
                "another folder."
            ) from e

    def _stamps(self) -> list:
        stats = [os.stat(path) for path in self._paths.values()]
        return [(s.st_ino, s.st_size, s.st_mtime_ns) for s in stats]

    def require_unchanged(self) -> None:
        """FrameStoreError if a file was changed or deleted since `share`."""
        try:
            same = self._stamps() == self._seen
        except FileNotFoundError:
            same = False
        if not same:
            raise FrameStoreError(
                f"The frame store '{self.root}' was changed or deleted while this run read it. Start again from the "
                "last checkpoint (--resume=true); the store is checked, and filled again where needed."
            )

    def require_space(self, num_frames: int) -> None:
        """FrameStoreError if so many more frames do not fit on the disk."""
        needed = num_frames * sum(self.record_bytes(key) for key in self.keys)
        free = shutil.disk_usage(self.root).free
        if needed > free:
            raise FrameStoreError(
                f"The frame store needs {needed / 1e6:,.1f} MB in '{self.root}', where {free / 1e6:,.1f} MB are free: "
                f"{self.remedy}."
            )

    def __getstate__(self):
        return {
            **self.__dict__,
            "_maps": {},
            "_done": None,
            "_sums": None,
            "_sources": None,
            "_lock": None,
        }  # a worker maps the files itself, and only reads

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
            root = HF_LEROBOT_HOME / "frame_store" / fingerprint_name(depends)
        shapes = {key: (picture_size(meta.features[key])[0], *size) for key in meta.camera_keys}
        arrays = {key: (torch.uint8, shape) for key, shape in shapes.items()}
        store = cls(root, arrays, meta.total_frames, meta.total_episodes, depends)
        store.require_intact()
        sources = episode_sources(dataset)
        missing = [i for i, source in sources.items() if not store.is_done(i, source)]
        if missing:
            store.require_space(sum(meta.episodes[i]["length"] for i in missing))
            logging.info("Decoding %d episodes into '%s': %s.", len(missing), store.root, store.why_incomplete(missing))
            store.unmark(missing)
            known = store.copy_known(dataset, {i: sources[i] for i in missing})
            missing = [i for i in missing if i not in known]
        bar = tqdm(missing, desc=f"Decoding to {size[0]}x{size[1]}", unit="episode", disable=not (progress and missing))
        with ThreadPoolExecutor(max(1, len(meta.camera_keys))) as cameras:
            for episode in bar:
                list(cameras.map(partial(store._fill, dataset, episode), meta.camera_keys))
                store.mark_done(episode, frames_of(dataset, episode), sources[episode])
        store.remember_intact()
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


def fingerprint_name(depends: dict[str, Any]) -> str:
    """A folder name for a store that depends on this."""
    return hashlib.sha256(json.dumps([STORE_VERSION, depends]).encode()).hexdigest()[:16]


def frames_of(dataset, episode: int) -> range:
    """Numbers, in the whole dataset, of the frames of a loaded episode."""
    first, last = dataset.global_index(dataset.rows_of_episode(episode)[[0, -1]]).tolist()
    return range(first, last + 1)


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


def episode_sources(dataset, with_tasks: bool = False) -> dict[int, int]:
    """For each loaded episode a number (64 bits) that changes with what its records are made from.

    That is the files of its pictures, its place in them, the times of its frames and which cameras count; with_tasks:
    the texts of its frames as well.
    """
    meta, table = dataset.meta, dataset.table
    sample = cache(lambda path: _sample(meta.root / path))  # files of v3.0 have many episodes
    columns = ["timestamp", *(mask for key in meta.camera_keys if (mask := f"{key}_padding_mask") in meta.features)]
    found = {}
    for episode in dataset.episode_indices:
        rows = dataset.rows_of_episode(episode)
        digest = hashlib.sha256(b"".join(table[name][rows].numpy().tobytes() for name in columns))
        for key in meta.video_keys:
            digest.update(f"{key} {meta.video_start(episode, key)} ".encode())
            digest.update(sample(meta.get_video_file_path(episode, key)))
        if meta.image_keys:
            digest.update(sample(meta.get_data_file_path(episode)))
        if with_tasks:
            digest.update(json.dumps([meta.tasks[i] for i in table["task_index"][rows].tolist()]).encode())
        found[episode] = int.from_bytes(digest.digest()[:8], "little")
    return found


def why_new(root: Path, depends: dict[str, Any]) -> str:
    """What sets a new store apart from the most similar one of its folder, for a message."""
    differences = {}
    for folder, manifest in _stores_beside(root).items():
        other, own = _flat(manifest["depends"]), _flat(depends)
        differences[folder.name] = [key for key in own if other.get(key) != own[key]]
    if not differences:
        return f"it is the first store in '{root.parent}'"
    name = min(differences, key=lambda name: len(differences[name]))
    return f"the most similar store there, '{name}', was made from other {', '.join(differences[name])}"


def _stores_beside(root: Path) -> dict[Path, dict[str, Any]]:
    """The other stores of a store's folder and their manifests; one that is damaged is no store."""
    found = {}
    for path in sorted(root.parent.glob(f"*/{MANIFEST}")):
        try:
            manifest = read_json(path)
        except (OSError, ValueError):
            logging.warning("'%s' cannot be read; remove its folder.", path)
            continue
        if path.parent != root and manifest.get("store_version") == STORE_VERSION:
            found[path.parent] = manifest
    return found


def _flat(depends: dict[str, Any]) -> dict[str, Any]:
    return {**depends, **depends.get("dataset", {}), "dataset": None}


def _sample(path: Path) -> bytes:
    if not path.is_file():  # an episode that was not downloaded
        return b"absent"
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(2**12)
        file.seek(max(0, size - 2**14))
        return hashlib.sha256(str(size).encode() + head + file.read()).digest()
