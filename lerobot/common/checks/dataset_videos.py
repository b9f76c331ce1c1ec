"""Checks of the pictures of a dataset, each video decoded once from front to back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lerobot.common.checks.finding import Finding, Where
from lerobot.common.datasets.video_utils import VideoDecodeError, VideoReader

FROZEN_S = 0.5  # seconds without any change
FROZEN_CHANGE = 0.05  # mean absolute difference of pixels (0 to 255) that counts as no change
DUPLICATES = 0.1  # of the frames equal to the one before
DARK = 4.0  # mean of 0 to 255
SAMPLED_PIXELS = 8  # every 8th row and column is compared


def check_video_times(
    path: Path, episode: int, key: str, length: int, fps: float, start: float, end: float | None, tolerance_s: float
) -> Iterator[Finding]:
    """A video has the frames of the episode, at the dataset's rate; `start`, `end`: its seconds in the file."""
    try:
        reader = VideoReader(path)
    except VideoDecodeError as e:
        yield Finding("video.unreadable", "error", str(e), Where(episode, feature=key, file=str(path)))
        return
    margin = 0.25 / fps
    times = reader.times[reader.times >= start - margin] - start
    times = times if end is None else times[times < end - start - margin]
    where = Where(episode, feature=key, file=str(path))
    if len(times) != length:
        text = f"The video has {len(times)} frames, the episode {length}."
        severity = "error" if len(times) < length else "warning"
        yield Finding("video.frame_count", severity, text, where, {"video": len(times), "episode": length})
    step = np.median(np.diff(times)) if len(times) > 1 else 1 / fps
    if abs(1 / step - fps) > 0.01 * fps:
        yield Finding(
            "video.fps",
            "error",
            f"The video runs at {1 / step:.2f} fps, the dataset at {fps:g}.",
            where,
            {"fps": 1 / step},
        )
    else:
        shared = min(len(times), length)
        late = np.abs(times[:shared] - np.arange(shared) / fps)
        if shared and late.max() >= tolerance_s:
            frame = int(late.argmax())
            text = f"The frame is shown {late[frame] * 1000:.1f} ms away from its timestamp."
            yield Finding(
                "video.timing", "error", text, Where(episode, frame, feature=key), {"seconds": float(late[frame])}
            )


class PictureCheck:
    """Looks at the frames of one camera and episode in order."""

    def __init__(self, episode: int, key: str, fps: float, moving: np.ndarray):
        self.episode, self.key, self.fps, self.moving = episode, key, fps, moving
        self._last: np.ndarray | None = None
        self._changes: list[float] = []
        self._means: list[float] = []

    def add(self, image: np.ndarray) -> None:
        """One uint8 (H, W, 3) picture."""
        small = image[::SAMPLED_PIXELS, ::SAMPLED_PIXELS].astype(np.int16)
        if self._last is not None:
            self._changes.append(float(np.abs(small - self._last).mean()))
        self._means.append(float(small.mean()))
        self._last = small

    def findings(self) -> Iterator[Finding]:
        """What was seen."""
        same = np.array(self._changes) < FROZEN_CHANGE
        begin, end = _longest_run(same)
        if (end - begin) / self.fps >= FROZEN_S and self.moving[begin + 1 : end + 1].any():
            text = f"The picture does not change for {(end - begin) / self.fps:.1f} s while the arm moves."
            where = Where(self.episode, begin, end, self.key)
            yield Finding("video.frozen", "warning", text, where, {"seconds": (end - begin) / self.fps})
        elif len(same) and (same & self.moving[1 : len(same) + 1]).mean() > DUPLICATES:
            share = float((same & self.moving[1 : len(same) + 1]).mean())
            text = f"{share:.0%} of the pictures equal the one before while the arm moves: the camera is slower than "
            text += "the recording."
            yield Finding("video.duplicates", "warning", text, Where(self.episode, feature=self.key), {"share": share})
        if self._means and np.max(self._means) < DARK:
            yield Finding("video.dark", "warning", "All pictures are black.", Where(self.episode, feature=self.key))


def _longest_run(flags: np.ndarray) -> tuple[int, int]:
    """First and one past the last position of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    runs = edges.reshape(-1, 2)
    return tuple(int(v) for v in runs[np.argmax(runs[:, 1] - runs[:, 0])]) if len(runs) else (0, 0)
