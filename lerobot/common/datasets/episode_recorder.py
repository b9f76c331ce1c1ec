"""Recording episodes: pictures are encoded in the background while frames arrive, of the next episode too if wanted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lerobot.common.datasets.compute_stats import (
    DEFAULT_QUANTILES,
    NO_QUANTILES,
    PictureHistograms,
    compute_episode_stats,
)
from lerobot.common.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.common.datasets.image_writer import STALL_S, AsyncImageWriter, image_array_to_png, to_rgb_uint8
from lerobot.common.datasets.recovery import RecordingFolder
from lerobot.common.datasets.utils import PICTURE_DTYPES, check_timestamps_sync, validate_frame
from lerobot.common.datasets.v30 import writer as v30_writer
from lerobot.common.datasets.video_encoding import VideoEncoder, check_vcodec
from lerobot.common.utils.io_utils import flush_to_disk

QUEUED_FRAMES = 64  # per camera; adding a frame waits when the encoder is that far behind


# Settings of LeRobot 0.4 for what it buffers before writing.
BUFFERING = {
    "batch_encoding_size",
    "metadata_buffer_size",
    "streaming_encoding",
    "encoder_queue_maxsize",
    "encoder_threads",
}


def without_buffering(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a recording without LeRobot 0.4's settings of its buffers."""
    return {name: value for name, value in options.items() if name not in BUFFERING}


@dataclass(frozen=True)
class EncoderOptions:
    """How videos are encoded: LeRobot's defaults, but h264, which is fast and decodes everywhere."""

    vcodec: str = "h264"
    pix_fmt: str = "yuv420p"
    g: int = 2
    crf: int = 30

    def __post_init__(self):
        check_vcodec(self.vcodec)


class _ImageFolder:
    """Sink of an image feature: one PNG per frame until the episode is saved."""

    def __init__(self, folder: Path, writer: AsyncImageWriter | None):
        self.path, self._writer, self._count = folder, writer, 0
        folder.mkdir(parents=True)

    def write(self, image: np.ndarray) -> None:
        path = self.frame_path(self._count)
        if self._writer is None:
            path.write_bytes(image_array_to_png(image))
        else:
            self._writer.save_image(image, path)
        self._count += 1

    def frame_path(self, frame_index: int) -> Path:
        return self.path / f"frame_{frame_index:06d}.png"

    def close(self) -> None:
        if self._writer is not None:
            self._writer.wait_until_done()


class _CameraThread(Thread):
    """Takes the pictures of one camera in order: counts their colours and gives them to a sink."""

    def __init__(self, key: str, sink: VideoEncoder | _ImageFolder):
        super().__init__(daemon=True)
        self.key, self.sink, self.histograms, self.count = key, sink, PictureHistograms(), 0
        self._written = 0
        self._queue: Queue = Queue(maxsize=QUEUED_FRAMES)
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        while (image := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self.histograms.add(image)
                    self.sink.write(image)
                    self._written += 1
                except Exception as e:  # raised in the recording thread by the next call
                    self._error = e
        try:
            self.sink.close()
        except Exception as e:
            self._error = self._error or e

    def add(self, image: np.ndarray) -> None:
        if self._error is not None:
            self._raise()
        self._put(image)
        self.count += 1

    def finish(self, keep: bool = True) -> None:
        """Wait until everything is written; raises what went wrong, unless the result is not kept."""
        self._put(None)
        before = -1
        while self.is_alive():
            self.join(STALL_S)
            if self.is_alive() and self._written == before:
                self._stuck()
            before = self._written
        if keep and self._error is not None:
            self._raise()

    def _put(self, image: np.ndarray | None) -> None:
        try:
            self._queue.put(image, timeout=STALL_S)
        except Full:
            self._stuck()

    def _stuck(self) -> None:
        raise RuntimeError(
            f"Recording camera '{self.key}' to '{self.sink.path}' made no progress for {STALL_S} s; the encoder or the "
            "disk is stuck. Saved episodes are whole; start the recording again."
        )

    def _raise(self) -> None:
        raise RuntimeError(
            f"Recording camera '{self.key}' to '{self.sink.path}' failed: {self._error}"
        ) from self._error


@dataclass
class _Take:
    """The frames recorded since the last episode: numbers and texts here, pictures with the cameras' threads."""

    buffer: dict[str, Any]
    folder: Path | None = None
    cameras: dict[str, _CameraThread] = field(default_factory=dict)


class EpisodeRecorder:
    """Collects the frames of one episode and turns them into files that `save` puts in place, all or nothing.

    `buffer` holds the numbers and strings recorded so far: {"size", "task", "episode_index", key: list}.
    """

    def __init__(
        self,
        meta: LeRobotDatasetMetadata,
        options: EncoderOptions,
        tolerance_s: float,
        image_writer: AsyncImageWriter | None = None,
    ):
        self._meta, self._options, self._tolerance_s = meta, options, tolerance_s
        self._image_writer = image_writer
        self._folder: RecordingFolder | None = None
        self._saver: ThreadPoolExecutor | None = None
        self._pending: list[Future] = []
        self._number_of_takes = 0
        self._take = _Take(self.empty_buffer())

    @property
    def buffer(self) -> dict[str, Any]:
        """Numbers and texts of the running episode."""
        return self._take.buffer

    def empty_buffer(self) -> dict[str, Any]:
        """What `buffer` is before the first frame of the next episode."""
        columns = {key: [] for key, feature in self._meta.features.items() if feature["dtype"] not in PICTURE_DTYPES}
        number = self._meta.total_episodes + sum(not future.done() for future in self._pending)
        return {"size": 0, "task": [], **columns, "episode_index": number}

    def add_frame(self, frame: Mapping[str, Any], task: str | None = None, timestamp: float | None = None) -> None:
        """Add one frame: all features but the bookkeeping ones, and `task` (in the frame or as argument).

        Numbers are arrays of exactly the declared dtype and shape; pictures arrays (H, W, C) or (C, H, W) or
        PIL. ValueError listing everything that does not fit; nothing is added then.
        """
        frame = {
            key: value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
            for key, value in frame.items()
        }
        task = frame.pop("task", None) if task is None else task
        timestamp = frame.pop("timestamp", None) if timestamp is None else timestamp
        if task is None:
            raise ValueError(
                "The frame has no task: add frame['task'] = 'what the robot does' (an empty text is fine)."
            )
        validate_frame({**frame, "task": task}, self._meta.features)
        pictures = {key: to_rgb_uint8(frame.pop(key)) for key in self._meta.camera_keys}
        for key, image in pictures.items():
            self._camera(key).add(image.copy())  # the caller may reuse its buffer
        index = self.buffer["size"]
        self.buffer["frame_index"].append(index)
        time = index / self._meta.fps if timestamp is None else float(np.asarray(timestamp).item())
        self.buffer["timestamp"].append(time)
        self.buffer["task"].append(task)
        for key, value in frame.items():
            self.buffer[key].append(np.array(value) if isinstance(value, np.ndarray) else value)
        self.buffer["size"] += 1

    def _work_folder(self) -> Path:
        """Where the files of the running episode grow."""
        if self._folder is None:
            self._folder = RecordingFolder(self._meta.root)
        if self._take.folder is None:
            self._take.folder = self._folder.path / f"take_{self._number_of_takes}"
            self._take.folder.mkdir()
            self._number_of_takes += 1
        return self._take.folder

    def _camera(self, key: str) -> _CameraThread:
        if key not in self._take.cameras:
            path = self._work_folder() / key
            if self._meta.features[key]["dtype"] == "video":
                o = self._options
                sink = VideoEncoder(path.with_name(f"{key}.mp4"), self._meta.fps, o.vcodec, o.pix_fmt, o.g, o.crf)
            else:
                sink = _ImageFolder(path, self._image_writer)
            self._take.cameras[key] = _CameraThread(key, sink)
        return self._take.cameras[key]

    def save(self, background: bool = False) -> None:
        """Make the recorded frames the next episode of the dataset.

        ValueError if there are none, or their timestamps are not 1/fps apart (the frames stay recorded).
        Until the last file is replaced, the dataset is as before. In the background, `wait` returns when that
        has happened.
        """
        take, size = self._take, self.buffer["size"]
        if size == 0:
            raise ValueError("save_episode() needs at least one frame; call add_frame() first.")
        times, bounds = np.array(take.buffer["timestamp"], dtype=np.float32), {"from": [0], "to": [size]}
        check_timestamps_sync(times, np.zeros(size), bounds, self._meta.fps, self._tolerance_s)
        for camera in take.cameras.values():
            if camera.count != size:  # adding a frame was interrupted between two cameras
                raise RuntimeError(
                    f"Camera '{camera.key}' has {camera.count} pictures for {size} frames; "
                    "call clear_episode_buffer() and record the episode again."
                )
        self._work_folder()
        if background:
            self._saver = self._saver or ThreadPoolExecutor(1, "episode-saver")
            self._pending.append(self._saver.submit(self._store, take))
            self._take = _Take(self.empty_buffer())
        else:
            self.wait(release=False)
            self._store(take)
            self._reset()

    def wait(self, release: bool = True) -> None:
        """Return when every episode saved in the background is on disk; raises the first error of one."""
        pending, self._pending = self._pending, []
        errors = [error for future in pending if (error := future.exception()) is not None]
        if release and pending and not self.buffer["size"]:
            self._reset()
        if errors:
            raise errors[0]

    def _store(self, take: _Take) -> None:
        """Finish the files of an episode and put them in place."""
        size, index = take.buffer["size"], self._meta.total_episodes
        for camera in take.cameras.values():
            camera.finish()
        columns = self._columns(take.buffer, index)
        pictures = {key: camera.histograms for key, camera in take.cameras.items()}
        data = {key: pictures.get(key, columns.get(key)) for key in self._meta.features}
        stats = compute_episode_stats(
            data, self._meta.features, DEFAULT_QUANTILES if self._meta.is_v30 else NO_QUANTILES
        )
        parquet = self._write_parquet(take, columns)
        videos = {key: take.cameras[key].sink.path for key in self._meta.video_keys}
        tasks = list(dict.fromkeys(take.buffer["task"]))
        if self._meta.is_v30:
            v30_writer.save_episode(self._meta, take.folder, parquet, videos, size, tasks, stats)
        else:
            moves = {parquet: self._meta.data_file(index)}
            moves |= {path: self._meta.video_file(index, key) for key, path in videos.items()}
            for source, target in moves.items():
                flush_to_disk(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(source, target)
            self._meta.save_episode(index, size, tasks, stats)
        shutil.rmtree(take.folder, ignore_errors=True)

    def discard(self) -> None:
        """Forget the frames recorded since the last episode."""
        for camera in self._take.cameras.values():
            camera.finish(keep=False)
        self.wait(release=False)
        self._reset()

    def _reset(self) -> None:
        if self._folder is not None:
            self._folder.release()
        self._folder, self._take = None, _Take(self.empty_buffer())

    def _columns(self, buffer: dict[str, Any], episode_index: int) -> dict[str, np.ndarray | list[str]]:
        """Every column but the pictures, in its dtype: (T,) for shape (1,), else (T, *shape)."""
        size = buffer["size"]
        task_index = {task: self._meta.add_task(task) for task in dict.fromkeys(buffer["task"])}
        computed = {
            "task_index": [task_index[task] for task in buffer["task"]],
            "episode_index": [episode_index] * size,
            "index": np.arange(self._meta.total_frames, self._meta.total_frames + size),
        }
        columns = {}
        for key, feature in self._meta.features.items():
            if feature["dtype"] in PICTURE_DTYPES:
                continue
            values = computed.get(key, buffer[key])
            if feature["dtype"] != "string":
                shape = () if feature["shape"] == (1,) else feature["shape"]
                values = np.asarray(values, dtype=feature["dtype"]).reshape(size, *shape)
            columns[key] = values
        return columns

    def _write_parquet(self, take: _Take, columns: dict) -> Path:
        arrays, fields = [], []
        for key, feature in self._meta.features.items():
            if feature["dtype"] == "video":
                continue
            if feature["dtype"] == "image":
                array = _image_array(take.cameras[key].sink, take.buffer["size"])
            else:
                array = _arrow_array(columns[key], feature)
            arrays.append(array)
            fields.append(pa.field(key, array.type, metadata=_extension_metadata(feature)))
        path = take.folder / "episode.parquet"
        metadata = huggingface_metadata(self._meta.features)
        pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=metadata)), path)
        return path


# --- parquet columns as the `datasets` library has them -----------------------------------------------------


def _arrow_array(values: np.ndarray | list[str], feature: dict) -> pa.Array:
    """Scalars, fixed_size_list for one dimension, nested lists for more."""
    if feature["dtype"] == "string":
        return pa.array(values, type=pa.string())
    array = pa.array(values.reshape(-1))
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(array, values.shape[1])
    for size in reversed(values.shape[1:]):
        offsets = np.arange(0, len(array) + 1, size, dtype=np.int32)
        array = pa.ListArray.from_arrays(offsets, array)
    return array


def _image_array(sink: _ImageFolder, size: int) -> pa.Array:
    paths = [sink.frame_path(index) for index in range(size)]
    cells = pa.array([path.read_bytes() for path in paths], type=pa.binary())
    return pa.StructArray.from_arrays([cells, pa.array([path.name for path in paths])], names=["bytes", "path"])


def _extension_metadata(feature: dict) -> dict[str, str] | None:
    shape = feature["shape"]
    if feature["dtype"] == "image" or len(shape) < 2:
        return None
    return {
        "ARROW:extension:name": f"datasets.features.features.Array{len(shape)}DExtensionType",
        "ARROW:extension:metadata": json.dumps([list(shape), feature["dtype"]]),
    }


def huggingface_metadata(features: dict[str, dict]) -> dict[str, str]:
    """File metadata from which the `datasets` library (any version) knows its own feature types."""
    result = {}
    for key, feature in features.items():
        dtype, shape = feature["dtype"], feature["shape"]
        value = {"dtype": dtype, "_type": "Value"}
        if dtype == "image":
            result[key] = {"_type": "Image"}
        elif dtype == "string" or shape == (1,):
            result[key] = value
        elif dtype != "video" and len(shape) == 1:
            result[key] = {"feature": value, "length": shape[0], "_type": "Sequence"}
        elif dtype != "video":
            result[key] = {"shape": list(shape), "dtype": dtype, "_type": f"Array{len(shape)}D"}
    return {"huggingface": json.dumps({"info": {"features": result}})}
