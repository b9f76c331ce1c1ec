"""Actions that were planned and not yet executed."""

from __future__ import annotations

from collections import deque

from torch import Tensor


class ActionQueue:
    """Hands out a predicted chunk one action at a time.

    maxlen: actions kept of a chunk (`n_action_steps`); later ones of the chunk are dropped.
    """

    def __init__(self, maxlen: int):
        self.maxlen = maxlen
        self._actions: deque[Tensor] = deque(maxlen=maxlen)

    def __len__(self) -> int:
        return len(self._actions)

    @property
    def is_empty(self) -> bool:
        """Whether a new chunk has to be planned."""
        return not self._actions

    def reset(self) -> None:
        """Forget what is queued."""
        self._actions.clear()

    def extend(self, chunk: Tensor) -> None:
        """Append the first `maxlen` actions of a chunk (B, T, A)."""
        self._actions.extend(chunk[:, : self.maxlen].transpose(0, 1))

    def pop(self) -> Tensor:
        """Remove and return the next action (B, A); IndexError when the queue is empty."""
        return self._actions.popleft()
