"""Video files: decoding the frames of given timestamps, properties; encoding is in `video_encoding`. PyAV only."""

from __future__ import annotations

import functools
import gc
import itertools
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from lerobot.common.datasets.video_encoding import ONE_THREAD
from lerobot.common.datasets.video_encoding import VIDEO_CODECS as VIDEO_CODECS  # LeRobot has these names here
from lerobot.common.datasets.video_encoding import VideoEncoder as VideoEncoder
from lerobot.common.datasets.video_encoding import check_vcodec as check_vcodec
from lerobot.common.datasets.video_encoding import encode_video_frames as encode_video_frames
from lerobot.common.datasets.video_index import PacketIndex, file_version
from lerobot.common.utils.images import pictures_as_float
from lerobot.common.utils.memory import keep_freed_pages

VIDEO_BACKENDS = ("pyav", "torchcodec", "video_reader")
DECODER_CACHE_ENV = "LEROBOT_VIDEO_DECODER_CACHE_SIZE"
DEFAULT_DECODER_CACHE_SIZE = 100
INDEX_BYTES = 64 << 20  # of the packet lists that a process keeps
SHORT_WALK = 8  # frames after a keyframe up to which a single frame is decoded on its own

keep_freed_pages()


class VideoDecodeError(ValueError, RuntimeError):
    """A video file is missing, truncated, or not decodable; the message names the file."""


class FrameTimestampError(ValueError):
    """A video has no frame near enough to a queried timestamp; the message names the file."""


def _reason(error: Exception) -> str:
    """What FFmpeg says, without its number and the file, which the message names already."""
    return getattr(error, "strerror", None) or str(error)


def get_safe_default_codec() -> str:
    """The decoding backend used when none is named."""
    return "pyav"


def check_video_backend(name: str | None) -> str:
    """The backend that decodes: pyav, or torchcodec where it works, else pyav with a message; ValueError for others."""
    if name is None or name == "pyav":
        return "pyav"
    if name not in VIDEO_BACKENDS:
        raise ValueError(f"Unknown --dataset.video_backend '{name}'; expected one of {VIDEO_BACKENDS}.")
    reason = _torchcodec_fails() if name == "torchcodec" else "it was torchvision's"
    if reason is None:
        return "torchcodec"
    logging.warning("--dataset.video_backend=%s: %s; decoding with pyav, which gives the same frames.", name, reason)
    return "pyav"


@functools.cache
def _torchcodec_fails() -> str | None:
    """Why torchcodec cannot be used, None if it can."""
    try:
        import torchcodec.decoders  # noqa: F401
    except Exception as e:  # a missing FFmpeg shows as a RuntimeError of the loader
        return f"torchcodec does not load ({str(e).splitlines()[0][:100]})"
    return None


# --- decoding -----------------------------------------------------------------------------------------------


class VideoReader:
    """Random access to the frames of one video file, exact for every GOP length and with B-frames.

    The packets are listed once (without decoding), so that a query knows which frame it wants and where the
    preceding keyframe lies. The decoder stays open: a query ahead in the same group of pictures continues
    decoding instead of seeking. `times` holds the presentation time of every frame, float64 seconds,
    ascending. Where the index can read packets (`PacketIndex.kind`), the container is closed again and the decoder may
    pass to a reader of another file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise VideoDecodeError(f"Video '{path}' does not exist.")
        self.version = file_version(path)
        try:
            self._container = av.open(str(path))
            self._stream = self._container.streams.video[0]
            self._index = index = PacketIndex(self.path, self.version, self._container)
        except (av.FFmpegError, IndexError) as e:
            raise VideoDecodeError(f"Video '{path}' cannot be opened: {_reason(e)}.") from e
        if not (len(index.keyframes) and index.shown.any()):
            raise VideoDecodeError(f"Video '{path}' has no frames that can be decoded.")
        self._context, self._to_rgb = self._stream.codec_context, VideoReformatter()
        # One thread: a query decodes one to a few frames; cameras and workers provide the parallelism.
        self._context.thread_count = 1
        self._pts = np.sort(index.pts[index.shown])
        self._key_pts = index.pts[index.keyframes]
        self._key_numbers = np.searchsorted(self._pts, self._key_pts)
        self.times = self._pts * float(index.time_base)
        self._decoding: Iterator[av.VideoFrame] | None = None
        self._position: int | None = None  # pts of the last decoded frame
        self._scanning = False
        if index.kind is not None:
            self._container.close()
            self._container = self._stream = None

    @property
    def nbytes(self) -> int:
        """About the memory that it holds without its decoder."""
        return self._index.nbytes + self._pts.nbytes + self.times.nbytes

    @property
    def kind(self) -> tuple | None:
        """Equal for readers that may take each other's decoder; None for one that needs its container."""
        return self._index.kind

    @property
    def is_open(self) -> bool:
        """Whether it has a decoder."""
        return self._context is not None

    @property
    def has_decoded(self) -> bool:
        """Whether its decoder is in use, not merely prepared."""
        return self.is_open and self._context.is_open

    def take_decoder(self, other: VideoReader) -> None:
        """Decode with the decoder of another reader from now on, which is left without."""
        decoder = other._context, other._to_rgb
        other.close()
        self._decoding = self._position = None
        self._context, self._to_rgb = decoder

    def close(self) -> None:
        """Release the file and the decoder."""
        self._decoding = self._position = self._context = self._to_rgb = None
        if self._container is not None:
            self._container.close()

    def nearest(self, timestamps: Sequence[float], tolerance_s: float) -> np.ndarray:
        """Number of the frame nearest to each timestamp; FrameTimestampError if none is near enough."""
        wanted = np.asarray(timestamps, dtype=np.float64)
        right = np.searchsorted(self.times, wanted).clip(1, max(len(self.times) - 1, 1))
        left = right - 1
        right = right.clip(max=len(self.times) - 1)
        chosen = np.where(wanted - self.times[left] <= self.times[right] - wanted, left, right)
        distance = np.abs(self.times[chosen] - wanted)
        # Timestamps are stored as float32, whose spacing exceeds 1e-4 s beyond 1024 s.
        allowed = np.maximum(tolerance_s, np.spacing(wanted.astype(np.float32)).astype(np.float64))
        if not (distance < allowed).all():
            worst = int(distance.argmax())
            raise FrameTimestampError(
                f"Video '{self.path}' has no frame at {wanted[worst]:.6f} s: the nearest of its "
                f"{len(self.times)} frames is at {self.times[chosen[worst]]:.6f} s, {distance[worst]:.6f} s "
                f"away, tolerance {tolerance_s} s. The dataset's timestamps or fps do not match the video, "
                "or frames are missing."
            )
        return chosen

    def frames(self, numbers: Sequence[int]) -> np.ndarray:
        """The frames with these numbers as uint8 RGB (N, H, W, 3), or VideoDecodeError."""
        frames: list = [None] * len(numbers)
        self.each(numbers, frames.__setitem__)
        return np.stack(frames)

    def each(self, numbers: Sequence[int], take: Callable[[int, np.ndarray], Any]) -> None:
        """`take(i, uint8 RGB (H, W, 3))` for the frame with number `numbers[i]`, in the order of the video."""
        places: dict[int, list[int]] = {}
        for place, number in enumerate(numbers):
            places.setdefault(int(number), []).append(place)
        ordered = sorted(places)
        goes_on = [self._scanning, *(self._goes_on(*pair) for pair in itertools.pairwise(ordered)), self._scanning]
        for i, number in enumerate(ordered):
            try:
                frame = self._frame(self._pts[number], not (goes_on[i] or goes_on[i + 1]))
            except (av.FFmpegError, EOFError, OSError) as e:
                self._decoding = self._position = None
                raise VideoDecodeError(f"Video '{self.path}' cannot be decoded: {_reason(e)}.") from e
            for place in places[number]:
                take(place, frame)

    def _goes_on(self, number: int, later: int) -> bool:
        """Whether it costs less to decode on from one frame to another than to begin at the other's keyframe."""
        key = self._key_numbers[np.searchsorted(self._key_numbers, later, side="right") - 1]
        return later - number <= later - key + 1

    def scan(self, numbers: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        """(number, uint8 RGB (H, W, 3)) of ascending frame numbers, decoded from front to back."""
        self._scanning = True
        try:
            for number in numbers:
                yield number, self.frames([number])[0]
        finally:
            self._scanning = False

    def _frame(self, pts: int, alone: bool) -> np.ndarray:
        """One frame as RGB; `alone`: the next query will be somewhere else."""
        key = max(0, int(np.searchsorted(self._key_pts, pts, side="right")) - 1)
        if alone and np.searchsorted(self._pts, pts) - np.searchsorted(self._pts, self._key_pts[key]) < SHORT_WALK:
            frame = self._only(pts, key)
            if frame is not None:
                return self._to_rgb.reformat(frame, format="rgb24", **ONE_THREAD).to_ndarray()
        # Going on costs less than seeking also when the wanted frame is the very next one, a keyframe.
        follows = self._position is not None and np.searchsorted(self._pts, self._position) + 1 >= np.searchsorted(
            self._pts, pts
        )
        if self._position is None or not (self._key_pts[key] <= self._position or follows) or self._position >= pts:
            self._decode_from(key)
        frame = self._advance_to(pts)
        if frame is None and key > 0:  # a container whose seeking lands behind the keyframe
            self._decode_from(0)
            frame = self._advance_to(pts)
        if frame is None:
            raise EOFError(f"the frame at {pts * float(self._index.time_base):.6f} s is missing or damaged")
        return self._to_rgb.reformat(frame, format="rgb24", **ONE_THREAD).to_ndarray()

    def _only(self, pts: int, key: int) -> av.VideoFrame | None:
        """A frame decoded from its keyframe on, and nothing after it: what it refers to stands before it.

        Going on decoding, as `_advance_to` does, the decoder first wants as many more packets as it may reorder.
        """
        packets = self._packets_from(key)
        self._decoding = self._position = None
        context, found = self._context, None
        for packet in packets:
            found = next((frame for frame in context.decode(packet) if frame.pts == pts), found)
            if found is not None or packet.pts == pts:
                break
        if found is None:
            found = next((frame for frame in context.decode(None) if frame.pts == pts), None)
        context.flush_buffers()
        return found

    def _advance_to(self, pts: int) -> av.VideoFrame | None:
        for frame in self._decoding:
            self._position = frame.pts
            if frame.pts >= pts:
                return frame if frame.pts == pts else None
        self._position = None
        return None

    def _decode_from(self, key: int) -> None:
        packets, context = self._packets_from(key), self._context
        self._decoding = (frame for packet in packets for frame in context.decode(packet))
        self._position = None

    def _packets_from(self, key: int) -> Iterator[av.Packet]:
        """The packets from a keyframe on, with the decoder emptied.

        Containers and versions of FFmpeg differ in whether they seek by presentation or by decoding time. By the wrong
        one a seek ends a group of pictures too early, which is decoded in vain, or too late.
        """
        self._context.flush_buffers()
        if self._index.kind is not None:
            return self._index.read(key)
        for time in (int(self._key_pts[key]), int(self._index.key_dts[key])):
            self._container.seek(time, stream=self._stream, backward=True)
            packets = self._container.demux(self._stream)
            first = next(packets)
            if first.pts == self._key_pts[key]:
                break
        return itertools.chain([first], packets)

    def __del__(self):
        if getattr(self, "_container", None) is not None:
            self.close()


class _ReaderCache:
    """The last used readers of this process: so many with a decoder as the limit says, of others the packets' places.

    A file that comes back after its decoder went to another takes over the decoder unused for longest among those of
    its kind.
    """

    def __init__(self):
        self._readers: OrderedDict[str, VideoReader] = OrderedDict()
        self._open: OrderedDict[str, VideoReader] = OrderedDict()  # those of them with a decoder
        self._bytes = 0  # of `_readers`
        self._lock = Lock()

    def limit(self) -> float:
        text = os.environ.get(DECODER_CACHE_ENV, str(DEFAULT_DECODER_CACHE_SIZE)).lower()
        return float("inf") if text in ("none", "unbounded", "-1") else max(1, int(text))

    def decode(
        self,
        path: str | Path,
        timestamps: Sequence[float],
        tolerance_s: float,
        take: Callable[[int, np.ndarray], Any],
    ) -> None:
        # Taken out while in use: two threads never share a decoder.
        with self._lock:
            reader = self._pop(str(path))
        if reader is None or reader.version != file_version(path):  # recording may have replaced the file
            reader = VideoReader(path)
        with self._lock:
            self._share_decoder(reader)
        if not reader.is_open:
            reader = VideoReader(path)
        reader.each(reader.nearest(timestamps, tolerance_s), take)
        with self._lock:
            self._put(str(path), reader)

    def _pop(self, path: str) -> VideoReader | None:
        self._open.pop(path, None)
        reader = self._readers.pop(path, None)
        self._bytes -= 0 if reader is None else reader.nbytes
        return reader

    def _share_decoder(self, reader: VideoReader) -> None:
        """Give a reader without decoder another's; also one just opened, if there are as many as may be."""
        if reader.kind is None or reader.has_decoded or (reader.is_open and len(self._open) < self.limit()):
            return
        path = next((path for path, other in self._open.items() if other.kind == reader.kind), None)
        if path is not None:
            reader.take_decoder(self._open.pop(path))

    def _put(self, path: str, reader: VideoReader) -> None:
        self._pop(path)  # that of a thread which decoded the same file meanwhile
        self._readers[path] = self._open[path] = reader
        self._bytes += reader.nbytes
        while len(self._open) > self.limit():
            oldest, other = self._open.popitem(last=False)
            other.close()
            if other.kind is None:
                self._pop(oldest)
        while self._bytes > INDEX_BYTES and len(self._readers) > 1:
            self._pop(next(iter(self._readers)))

    def clear(self) -> None:
        with self._lock:
            self._readers.clear()
            self._open.clear()
            self._bytes = 0

    def new_lock(self) -> None:
        self._lock = Lock()


_readers = _ReaderCache()


# A forked worker shares file offsets with its parent, so it must open its own readers; and the parent closes
# its own before the fork, because in the child the threads that FFmpeg waits for on closing do not exist.
# Encoders and decoders that wait for the garbage collector are frozen for the child, which would wait for ever.
def _before_fork() -> None:
    _readers.clear()
    gc.freeze()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=gc.unfreeze, after_in_child=_readers.new_lock)


def decode_video_frames(
    video_path: str | Path,
    timestamps: Sequence[float],
    tolerance_s: float,
    backend: str | None = None,
    return_uint8: bool = False,
) -> torch.Tensor:
    """Frames nearest to `timestamps` (seconds): float32 (T, 3, H, W) in [0, 1], or uint8.

    FrameTimestampError if a frame is not strictly nearer than `tolerance_s`; VideoDecodeError if the file is
    broken. Decoders stay open between calls (at most LEROBOT_VIDEO_DECODER_CACHE_SIZE per process, default
    100).
    """
    frames: list = [None] * len(timestamps)

    def take(place: int, frame: np.ndarray) -> None:
        frames[place] = torch.from_numpy(frame).permute(2, 0, 1)

    read_frames(video_path, timestamps, tolerance_s, backend, take)
    stacked = torch.stack(frames)
    return stacked if return_uint8 else pictures_as_float(stacked)


def read_frames(
    video_path: str | Path,
    timestamps: Sequence[float],
    tolerance_s: float,
    backend: str | None,
    take: Callable[[int, np.ndarray], Any],
) -> None:
    """`take(i, uint8 RGB (H, W, 3))` for the frame nearest to each `timestamps[i]`; errors as above."""
    if check_video_backend(backend) == "torchcodec":
        for place, frame in enumerate(decode_with_torchcodec(video_path, timestamps, tolerance_s)):
            take(place, frame.permute(1, 2, 0).numpy())
    else:
        _readers.decode(video_path, timestamps, tolerance_s, take)


def decode_with_torchcodec(
    video_path: str | Path, timestamps: Sequence[float], tolerance_s: float, decoder: Any | None = None
) -> torch.Tensor:
    """Frames nearest to `timestamps` as uint8 (T, 3, H, W) by torchcodec; errors as `decode_video_frames` has them."""
    decoder = decoder or torchcodec_decoder(str(video_path), file_version(video_path))
    half = 0.5 / (decoder.metadata.average_fps or 30)
    last = decoder.metadata.end_stream_seconds
    wanted = torch.tensor(timestamps, dtype=torch.float64)
    try:
        batch = decoder.get_frames_played_at(torch.clamp(wanted + half, max=last - 1e-6).tolist())
    except (RuntimeError, IndexError) as e:
        raise VideoDecodeError(f"Video '{video_path}' cannot be decoded: {e}.") from e
    distance = (batch.pts_seconds - wanted).abs()
    allowed = np.maximum(tolerance_s, np.spacing(np.float32(timestamps)).astype(np.float64))
    if not (distance.numpy() < allowed).all():
        worst = int(distance.argmax())
        raise FrameTimestampError(
            f"Video '{video_path}' has no frame at {timestamps[worst]:.6f} s: the nearest is "
            f"{distance[worst]:.6f} s away."
        )
    return batch.data


@functools.lru_cache(maxsize=DEFAULT_DECODER_CACHE_SIZE)
def torchcodec_decoder(path: str, version: tuple | None):
    """The decoder of a file in the state `version`; VideoDecodeError without such a file or if it is broken."""
    from torchcodec.decoders import VideoDecoder

    if version is None:
        raise VideoDecodeError(f"Video '{path}' does not exist.")
    try:
        return VideoDecoder(path, dimension_order="NCHW", num_ffmpeg_threads=1)
    except (RuntimeError, ValueError) as e:
        raise VideoDecodeError(f"Video '{path}' cannot be opened: {e}.") from e


if hasattr(os, "register_at_fork"):  # as for the readers above
    os.register_at_fork(before=torchcodec_decoder.cache_clear)

_camera_threads: dict[int, ThreadPoolExecutor] = {}  # by process: a fork has none of its parent's threads


def map_cameras(function: Callable, keys: Sequence[str]) -> list:
    """`function` of every camera, side by side where torch may use several threads (a loader's worker has one)."""
    if len(keys) < 2 or torch.get_num_threads() < 2:
        return [function(key) for key in keys]
    pid = os.getpid()
    if pid not in _camera_threads:
        _camera_threads.clear()
        _camera_threads[pid] = ThreadPoolExecutor(4, "camera")
    return list(_camera_threads[pid].map(function, keys))


def iter_video_frames(video_path: str | Path) -> Iterator[np.ndarray]:
    """Every frame from front to back as uint8 RGB (H, W, 3); ending early closes the file."""
    to_rgb = VideoReformatter()
    try:
        with av.open(str(video_path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                yield to_rgb.reformat(frame, format="rgb24", **ONE_THREAD).to_ndarray()
    except (av.FFmpegError, IndexError) as e:
        raise VideoDecodeError(f"Video '{video_path}' cannot be decoded: {e}.") from e


# --- properties ---------------------------------------------------------------------------------------------


def get_video_info(video_path: str | Path) -> dict:
    """The `info` entry of a video feature in info.json."""
    try:
        with av.open(str(video_path)) as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            info = {
                "video.height": stream.height,
                "video.width": stream.width,
                "video.codec": context.codec.canonical_name,
                "video.pix_fmt": context.pix_fmt,
                "video.is_depth_map": False,
                "video.fps": round(stream.average_rate) if stream.average_rate else None,
                "video.channels": get_video_pixel_channels(context.pix_fmt),
            }
            return {**info, **audio_info(container)}
    except (av.FFmpegError, IndexError) as e:
        raise VideoDecodeError(f"Video '{video_path}' cannot be opened: {e}.") from e


def audio_info(container) -> dict:
    """The sound entries of `get_video_info`, from an open container."""
    if not container.streams.audio:
        return {"has_audio": False}
    stream = container.streams.audio[0]
    return {
        "has_audio": True,
        "audio.channels": stream.channels,
        "audio.codec": stream.codec_context.name,
        "audio.bit_rate": stream.bit_rate,
        "audio.sample_rate": stream.sample_rate,
        "audio.bit_depth": stream.format.bits,
        "audio.channel_layout": stream.layout.name,
    }


def get_video_pixel_channels(pix_fmt: str) -> int:
    """Colour channels of a pixel format."""
    return len(av.VideoFormat(pix_fmt).components)
