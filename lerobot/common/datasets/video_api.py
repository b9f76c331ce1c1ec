"""Names of LeRobot's `lerobot.datasets.video_utils` that this package itself does without."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import av
import pyarrow as pa
import torch

from lerobot.common.datasets.video_utils import (
    VideoDecodeError,
    audio_info,
    decode_video_frames,
    decode_with_torchcodec,
    file_version,
    torchcodec_decoder,
)


@dataclass
class VideoFrame:
    """Column type of old parquet files whose pictures stand in videos: {path, timestamp}."""

    pa_type: ClassVar[Any] = pa.struct({"path": pa.string(), "timestamp": pa.float32()})
    _type: str = field(default="VideoFrame", init=False, repr=False)

    def __call__(self) -> pa.DataType:
        return self.pa_type


class VideoDecoderCache:
    """Open torchcodec decoders by path; the least used one is closed when there are more than `max_size`."""

    def __init__(self, max_size: int = 100):
        self.max_size, self._decoders = max_size, OrderedDict()

    def get_decoder(self, video_path: str | Path):
        """The decoder of a video, opened now if it is not open."""
        path = str(video_path)
        if path not in self._decoders:
            self._decoders[path] = torchcodec_decoder(path, file_version(path))
        self._decoders.move_to_end(path)
        while len(self._decoders) > self.max_size:
            self._decoders.popitem(last=False)
        return self._decoders[path]

    def size(self) -> int:
        """How many are open."""
        return len(self._decoders)

    def clear(self) -> None:
        """Close all."""
        self._decoders.clear()


class VideoEncodingManager:
    """Around a recording: at its end the dataset is finished, and what an interrupted episode left is removed."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __enter__(self) -> VideoEncodingManager:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if self.dataset.has_pending_frames():
            self.dataset.clear_episode_buffer()
        self.dataset.finalize()


def decode_video_frames_torchcodec(
    video_path: str | Path,
    timestamps: Sequence[float],
    tolerance_s: float,
    device: str = "cpu",
    log_loaded_timestamps: bool = False,
    decoder_cache: VideoDecoderCache | None = None,
) -> torch.Tensor:
    """`decode_video_frames` by torchcodec, with a decoder of `decoder_cache` if one is given."""
    decoder = None if decoder_cache is None else decoder_cache.get_decoder(video_path)
    frames = decode_with_torchcodec(video_path, timestamps, tolerance_s, decoder)
    return frames.to(device, torch.float32).div_(255)


def decode_video_frames_torchvision(
    video_path: str | Path,
    timestamps: Sequence[float],
    tolerance_s: float,
    backend: str = "pyav",
    log_loaded_timestamps: bool = False,
) -> torch.Tensor:
    """`decode_video_frames` by PyAV: torchvision's reader of that name used the same library."""
    return decode_video_frames(video_path, timestamps, tolerance_s, backend)


def get_audio_info(video_path: str | Path) -> dict[str, Any]:
    """`has_audio`, and channels, codec, bit rate and sample rate of the first sound track."""
    try:
        with av.open(str(video_path)) as container:
            return audio_info(container)
    except av.FFmpegError as e:
        raise VideoDecodeError(f"Video '{video_path}' cannot be opened: {e}.") from e


def get_image_pixel_channels(image: Any) -> int:
    """Channels of a PIL picture: 1 (L), 2 (LA), 3 (RGB) or 4 (RGBA); ValueError for another mode."""
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
    if image.mode not in channels:
        raise ValueError(f"Picture of mode '{image.mode}'; expected one of {', '.join(channels)}.")
    return channels[image.mode]


def _register() -> None:
    """Old parquet files name `VideoFrame` in their header; the library must know it to open them."""
    from datasets.features.features import register_feature

    register_feature(VideoFrame, "VideoFrame")


with contextlib.suppress(ImportError):  # without the library nothing reads such a header
    _register()
