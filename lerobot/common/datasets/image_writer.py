"""Pictures of an image dataset: conversion to uint8 RGB and PNG files written by background threads."""

from __future__ import annotations

import functools
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from typing import Any

import cv2
import numpy as np

# Of 0 to 9, as LeRobot has it for frames of a recording: higher costs much time for little space.
PNG_COMPRESSION = 1
STALL_S = 120  # a background thread that finishes nothing for so long is taken for stuck


def to_rgb_uint8(image: Any) -> np.ndarray:
    """A picture (PIL; array HWC or CHW, uint8 or float in [0, 1]) as uint8 RGB (H, W, 3), contiguous.

    Floats become x * 255 truncated, as LeRobot does. ValueError for floats outside [0, 1] or other shapes.
    """
    if hasattr(image, "convert"):
        return np.asarray(image.convert("RGB"))
    if image.ndim != 3:
        raise ValueError(f"A picture needs three dimensions; found shape {image.shape}.")
    if image.shape[0] == 3:
        image = image.transpose(1, 2, 0)
    if image.shape[2] != 3:
        raise ValueError(f"A picture needs three channels; found shape {image.shape}.")
    if image.dtype != np.uint8:
        if image.min() < 0 or image.max() > 1:
            raise ValueError(
                f"A picture of dtype {image.dtype} must lie in [0, 1]; found {image.min()} to {image.max()}. "
                "Give uint8 for values of 0 to 255."
            )
        image = (image * 255).astype(np.uint8)
    return np.ascontiguousarray(image)


def image_array_to_png(image: np.ndarray, compress_level: int = PNG_COMPRESSION) -> bytes:
    """uint8 RGB (H, W, 3) -> a PNG file."""
    done, data = cv2.imencode(
        ".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, compress_level]
    )
    if not done:
        raise ValueError(f"PNG encoding failed for a picture of shape {image.shape}, dtype {image.dtype}.")
    return data.tobytes()


def write_image(image: Any, fpath: str | Path, compress_level: int = PNG_COMPRESSION) -> None:
    """Write a picture as PNG; errors are raised."""
    Path(fpath).parent.mkdir(parents=True, exist_ok=True)
    Path(fpath).write_bytes(image_array_to_png(to_rgb_uint8(image), compress_level))


def image_array_to_pil_image(image_array: np.ndarray, range_check: bool = True) -> Any:
    """An array, as `to_rgb_uint8` takes it, as a PIL picture; floats are not checked without `range_check`."""
    from PIL import Image

    if not range_check and image_array.dtype != np.uint8:
        image_array = np.clip(image_array, 0, 1)
    return Image.fromarray(to_rgb_uint8(image_array))


def worker_thread_loop(queue: Queue) -> None:
    """Write the queued (picture, path[, compression]) to files until None comes."""
    while (job := queue.get()) is not None:
        write_image(*job)
        queue.task_done()
    queue.task_done()


def worker_process(queue: Queue, num_threads: int) -> None:
    """`worker_thread_loop` in that many threads; returns when each one got its None."""
    threads = [Thread(target=worker_thread_loop, args=(queue,), daemon=True) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class AsyncImageWriter:
    """Threads that write pictures to PNG files; the first error is raised by `wait_until_done` and `stop`.

    RuntimeError from any call if nothing was written for STALL_S seconds. `num_processes` of LeRobot's signature
    counts as that many times the threads: PNG encoding releases the GIL.
    """

    def __init__(self, num_processes: int = 0, num_threads: int = 1):
        total = max(1, num_processes) * num_threads
        if total <= 0:
            raise ValueError(f"An image writer needs at least one thread; found {num_threads}.")
        self.queue: Queue = Queue(maxsize=16 * total)  # bounds memory: adding waits when the threads fall behind
        self._errors: list[BaseException] = []
        self._threads = [Thread(target=self._work, daemon=True) for _ in range(total)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while (job := self.queue.get()) is not None:
            try:
                write_image(*job)
            except Exception as e:  # handed to the thread that waits
                self._errors.append(e)
            self.queue.task_done()
        self.queue.task_done()

    def save_image(self, image: Any, fpath: str | Path, compress_level: int = PNG_COMPRESSION) -> None:
        """Queue one picture; the array must not be changed afterwards."""
        self._put((image, Path(fpath), compress_level))

    def _put(self, job: tuple | None) -> None:
        try:
            self.queue.put(job, timeout=STALL_S)
        except Full:
            self._stuck()

    def _stuck(self) -> None:
        raise RuntimeError(
            f"Writing pictures made no progress for {STALL_S} s ({self.queue.unfinished_tasks} wait): is the disk "
            "still there? In a forked process, open the dataset anew: it has no threads of its parent."
        )

    def wait_until_done(self) -> None:
        """Return when everything queued is on disk; raises the first error that happened."""
        with self.queue.all_tasks_done:
            while (waiting := self.queue.unfinished_tasks) > 0:
                self.queue.all_tasks_done.wait(STALL_S)
                if self.queue.unfinished_tasks == waiting:
                    self._stuck()
        if self._errors:
            raise self._errors.pop(0)

    def stop(self) -> None:
        """End the threads after what is queued; may be called again."""
        for _ in self._threads:
            self._put(None)
        for thread in self._threads:
            thread.join(STALL_S)
        self._threads = []
        self.wait_until_done()


def safe_stop_image_writer(func):
    """Decorator: if the function fails, the image writer of its keyword `dataset` is stopped first."""

    @functools.wraps(func)
    def wrapper(*args, **kwargs):
        try:
            return func(*args, **kwargs)
        except BaseException:
            dataset = kwargs.get("dataset")
            if dataset is not None and getattr(dataset, "image_writer", None) is not None:
                dataset.image_writer.stop()
            raise

    return wrapper
