"""Encoding pictures to video files."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

VIDEO_CODECS = ("h264", "hevc", "libsvtav1")

# PyAV's log handler waits for the interpreter's lock, in the threads of a codec too: closing such a codec never ends.
av.logging.set_level(None)

# Newer PyAV converts pixels with a thread per core by default, in every worker.
ONE_THREAD = {"threads": 1} if "threads" in (VideoReformatter.reformat.__doc__ or "") else {}


def check_vcodec(name: str) -> None:
    """ValueError unless frames can be encoded with that codec here."""
    if name not in VIDEO_CODECS:
        raise ValueError(f"Unknown vcodec '{name}'; expected one of {VIDEO_CODECS}.")
    if name not in av.codecs_available:
        raise ValueError(f"The installed PyAV has no encoder '{name}'; choose another one of {VIDEO_CODECS}.")


class VideoEncoder:
    """Writes RGB frames to an mp4 file, frame i at i/fps seconds.

    `g` is the distance of keyframes and `crf` the quality, LeRobot's defaults (2, 30): random access costs
    at most two decoded frames. ValueError for an unknown codec.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        vcodec: str = "h264",
        pix_fmt: str = "yuv420p",
        g: int | None = 2,
        crf: int | None = 30,
        fast_decode: int = 0,
    ):
        check_vcodec(vcodec)
        if vcodec != "h264" and pix_fmt == "yuv444p":
            logging.warning("%s cannot encode yuv444p; using yuv420p.", vcodec)
            pix_fmt = "yuv420p"
        options = {name: str(value) for name, value in (("g", g), ("crf", crf)) if value is not None}
        if fast_decode:
            name = "svtav1-params" if vcodec == "libsvtav1" else "tune"
            options[name] = f"fast-decode={fast_decode}" if vcodec == "libsvtav1" else "fastdecode"
        if vcodec == "hevc":
            options["x265-params"] = "log-level=error"
        self.path, self._vcodec, self._pix_fmt, self._options = Path(path), vcodec, pix_fmt, options
        self._rate = Fraction(fps).limit_denominator(65535)
        self._container, self._stream, self._to_yuv, self._count = None, None, VideoReformatter(), 0

    def write(self, image: np.ndarray) -> None:
        """Add one uint8 RGB (H, W, 3) frame; the first one fixes the size."""
        if self._container is None:
            self._open(*image.shape[:2])
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = self._to_yuv.reformat(frame, format=self._pix_fmt, **ONE_THREAD)
        frame.pts, frame.time_base = self._count, 1 / self._rate
        self._count += 1
        self._container.mux(self._stream.encode(frame))

    def _open(self, height: int, width: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(self.path), "w", format="mp4")
        self._stream = self._container.add_stream(self._vcodec, rate=self._rate, options=self._options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, self._pix_fmt
        self._stream.codec_context.time_base = 1 / self._rate
        if self._vcodec == "h264":  # enough for 30 pictures per second; the control loop has the other cores
            self._stream.codec_context.thread_count = 1

    def close(self) -> None:
        """Write what the encoder still holds and the index of the file."""
        container, self._container = self._container, None
        if container is not None:
            with container:
                container.mux(self._stream.encode())

    def __enter__(self) -> VideoEncoder:
        return self

    def __exit__(self, *error) -> None:
        self.close()


def encode_video_frames(
    imgs_dir: str | Path,
    video_path: str | Path,
    fps: float,
    vcodec: str = "libsvtav1",
    pix_fmt: str = "yuv420p",
    g: int | None = 2,
    crf: int | None = 30,
    fast_decode: int = 0,
    log_level: int | None = av.logging.ERROR,
    overwrite: bool = False,
) -> None:
    """Encode the `frame_??????.png` of a folder, in order.

    FileNotFoundError if there are none, FileExistsError if the video exists and `overwrite` is not set.
    """
    video_path = Path(video_path)
    if video_path.exists() and not overwrite:
        raise FileExistsError(f"Video '{video_path}' exists; give overwrite=True to replace it.")
    paths = sorted(Path(imgs_dir).glob("frame[_-]??????.png"))
    if not paths:
        raise FileNotFoundError(f"No frame_??????.png in '{imgs_dir}'.")
    if log_level is not None:
        av.logging.set_libav_level(log_level)
    with VideoEncoder(video_path, fps, vcodec, pix_fmt, g, crf, fast_decode) as encoder:
        for path in paths:
            encoder.write(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION))
