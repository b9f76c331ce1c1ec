"""Films of episodes: all cameras side by side under a caption, h264 in mp4."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from lerobot.common.constants import TASK
from lerobot.common.envs.utils import add_envs_task

PICTURE_HEIGHT = 240
BAR_HEIGHT = 24
GAP = 4  # between pictures
MOST_FPS = 15  # enough to see what the arm does, and half the pictures to draw
DARK, GREEN, WHITE = (32, 32, 32), (20, 120, 50), (255, 255, 255)


class VideoFile:
    """An h264 mp4 that is written frame by frame and appears under its name only when it is complete."""

    def __init__(self, folder: str | Path, name: str, fps: float):
        self.folder, self.fps = Path(folder), fps
        self.folder.mkdir(parents=True, exist_ok=True)
        self._partial = self.folder / f".{name}.part"
        self._container = av.open(str(self._partial), "w", format="mp4")
        self._stream = None

    def add(self, frame: np.ndarray) -> None:
        """Append one uint8 RGB frame (H, W, 3) with even H and W, the same for all frames."""
        if self._stream is None:
            options = {"preset": "veryfast", "crf": "26"}
            self._stream = self._container.add_stream("h264", rate=round(self.fps), options=options)
            self._stream.height, self._stream.width = frame.shape[:2]
            self._stream.pix_fmt = "yuv420p"
            # The encoder runs beside the simulation, one core is all it may take.
            self._stream.thread_count = 1
        for packet in self._stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")):
            self._container.mux(packet)

    def close(self, name: str) -> str:
        """Finish the file as `folder/name` and return that path."""
        with self._container:
            for packet in self._stream.encode() if self._stream else ():
                self._container.mux(packet)
        path = self.folder / name
        os.replace(self._partial, path)
        return str(path)

    def discard(self) -> None:
        """Drop what was written."""
        self._container.close()
        self._partial.unlink(missing_ok=True)


def write_video(video_path: str | Path, stacked_frames: Sequence[np.ndarray], fps: float) -> None:
    """Write uint8 RGB frames (T, H, W, 3) as an mp4."""
    path = Path(video_path)
    film = VideoFile(path.parent, path.name, fps)
    for frame in stacked_frames:
        film.add(np.asarray(frame)[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2])
    film.close(path.name)


def animated_gif(path: str | Path, fps: float = 5, width: int = 320) -> tuple[bytes, int, int]:
    """A video as a small animated GIF: its bytes, height and width."""
    from PIL import Image

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stride = max(1, round(float(stream.average_rate) / fps))
        frames = [frame.to_image() for i, frame in enumerate(container.decode(stream)) if i % stride == 0]
    height = round(frames[0].height * width / frames[0].width)
    small = [frame.resize((width, height), Image.Resampling.BILINEAR) for frame in frames]
    buffer = io.BytesIO()
    small[0].save(buffer, "GIF", save_all=True, append_images=small[1:], duration=round(1000 / fps), loop=0)
    return buffer.getvalue(), height, width


def discard_partial(folder: str | Path | None) -> None:
    """Remove what processes that were ended left of unfinished videos in a folder."""
    for path in Path(folder).glob(".*.part") if folder is not None else ():
        path.unlink()


class EpisodeVideos:
    """The hook of `rollout` that films the first copies of a vector environment.

    `eval_episode_<n>_seed<seed>_<success|failure>.mp4` in `folder`; `seeds` has one entry per filmed copy. An
    environment that shows no pictures in its observation is filmed through `render`.
    """

    def __init__(self, env, folder: str | Path, first_episode: int, seeds: Sequence[int | None]):
        self.env, self.seeds, self.first_episode = env, list(seeds), first_episode
        fps = env.metadata.get("render_fps", MOST_FPS)
        self.stride = max(1, round(fps / MOST_FPS))
        self._names = [self._name(i) for i in range(len(self.seeds))]
        self._files = [VideoFile(folder, name, fps / self.stride) for name in self._names]
        self._succeeded = [False] * len(self.seeds)
        self.paths: list[str | None] = [None] * len(self.seeds)

    def _name(self, index: int) -> str:
        seed = self.seeds[index]
        return f"eval_episode_{self.first_episode + index}" + ("" if seed is None else f"_seed{seed}")

    def wants(self, step: int) -> bool:
        """Whether a picture of this step becomes a frame."""
        return step % self.stride == 0 and None in self.paths

    def __call__(self, step: int, observation: dict, info: dict, success: np.ndarray, done: np.ndarray) -> None:
        """Take the state after `step` steps; `success` and `done` are bool (B,)."""
        if step == 0:
            self._tasks = add_envs_task(self.env, {})[TASK]
        rendered = None
        for i, file in enumerate(self._files):
            if self.paths[i] is not None or not (self.wants(step) or done[i]):
                continue
            self._succeeded[i] |= bool(success[i])
            pictures = pictures_of(observation, info, i)
            if not pictures:
                rendered = rendered or self.env.call("render")
                pictures = [rendered[i]]
            file.add(compose_frame(pictures, self._caption(i, step, done[i]), self._succeeded[i]))
            if done[i]:
                outcome = "success" if self._succeeded[i] else "failure"
                self.paths[i] = file.close(f"{self._names[i]}_{outcome}.mp4")

    def _caption(self, index: int, step: int, done: bool) -> str:
        outcome = "success" if self._succeeded[index] else "failure" if done else ""
        seed = "" if self.seeds[index] is None else f"seed {self.seeds[index]}   "
        return f"{seed}step {step:03d}   {outcome:<7}   {self._tasks[index]}"

    def discard(self) -> None:
        """Drop the films of episodes that did not end."""
        for file, path in zip(self._files, self.paths, strict=True):
            if path is None:
                file.discard()


def pictures_of(observation: dict[str, Any], info: dict[str, Any], index: int) -> list[np.ndarray]:
    """The cameras' pictures (H, W, 3) of one copy of a vector environment, empty if it shows none.

    A copy that has just ended and started anew shows its last picture, not the next episode's first.
    """
    final = info.get("final_obs", info.get("final_observation"))
    if final is not None and final[index] is not None:
        pixels, pick = final[index].get("pixels"), slice(None)
    else:
        pixels, pick = observation.get("pixels"), index
    if pixels is None:
        return []
    return [picture[pick] for picture in (pixels.values() if isinstance(pixels, dict) else [pixels])]


def compose_frame(pictures: Sequence[np.ndarray], caption: str, success: bool = False) -> np.ndarray:
    """Pictures (H, W, 3) side by side under a bar with a caption, which turns green on success; sides are
    even.
    """
    gap = np.full((PICTURE_HEIGHT, GAP, 3), DARK, np.uint8)
    row = np.hstack([part for picture in pictures for part in (gap, _to_height(picture, PICTURE_HEIGHT))][1:])
    bar = np.full((BAR_HEIGHT, row.shape[1], 3), GREEN if success else DARK, np.uint8)
    cv2.putText(bar, caption, (8, BAR_HEIGHT - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.45, WHITE, 1, cv2.LINE_AA)
    return np.vstack([bar, row])


def _to_height(picture: np.ndarray, height: int) -> np.ndarray:
    width = max(2, round(picture.shape[1] * height / picture.shape[0] / 2) * 2)
    how = cv2.INTER_AREA if height < picture.shape[0] else cv2.INTER_NEAREST
    return cv2.resize(picture, (width, height), interpolation=how)
