"""Actions on their way to the robot, as programs written for newer releases of LeRobot handle them.

`lerobot.common.player` is what this package itself uses.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from lerobot.common.policies.rtc.configuration_rtc import RTCConfig


class ActionQueue:
    """Chunks as the policy gave them, and as they are sent; safe between threads.

    With `cfg.enabled` a new chunk replaces the old one, else it is appended.
    """

    def __init__(self, cfg: RTCConfig):
        self.cfg = cfg
        self.lock = threading.Lock()
        self.queue: Tensor | None = None
        self.original_queue: Tensor | None = None
        self.last_index = 0

    def get(self) -> Tensor | None:
        """The next action (A,) as it is sent; None when there is none."""
        with self.lock:
            if self._left() == 0:
                return None
            self.last_index += 1
            return self.queue[self.last_index - 1].clone()

    def qsize(self) -> int:
        """How many are left."""
        with self.lock:
            return self._left()

    def empty(self) -> bool:
        """Whether none is left."""
        return self.qsize() == 0

    def get_action_index(self) -> int:
        """How many of the present chunk were taken."""
        return self.last_index

    def get_left_over(self) -> Tensor | None:
        """What is left, as the policy gave it: the next chunk's `prev_chunk_left_over`."""
        with self.lock:
            return None if self.original_queue is None else self.original_queue[self.last_index :]

    def merge(
        self,
        original_actions: Tensor,
        processed_actions: Tensor,
        real_delay: int,
        action_index_before_inference: int | None = 0,
    ) -> None:
        """Take a chunk (T, A): drop what `real_delay` made too old, never more than was really taken meanwhile."""
        with self.lock:
            if not self.cfg.enabled:
                self._append(original_actions, processed_actions)
                return
            drop = max(0, min(real_delay, len(processed_actions)))
            if self.queue is not None and action_index_before_inference is not None:
                drop = min(drop, max(0, self.last_index - action_index_before_inference))
            self._set(original_actions[drop:], processed_actions[drop:])

    def _left(self) -> int:
        return 0 if self.queue is None else len(self.queue) - self.last_index

    def _append(self, original: Tensor, processed: Tensor) -> None:
        if self._left():
            original = torch.cat([self.original_queue[self.last_index :], original])
            processed = torch.cat([self.queue[self.last_index :], processed])
        self._set(original, processed)

    def _set(self, original: Tensor, processed: Tensor) -> None:
        self.original_queue, self.queue, self.last_index = original.clone(), processed.clone(), 0
