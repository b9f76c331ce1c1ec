"""An iterator that remembers what it has given and can look at what comes next."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class LookBackError(Exception):
    """Asked for an item that is no longer remembered, or was never given."""


class LookAheadError(Exception):
    """Asked for an item after the last one, or further ahead than agreed."""


class Backtrackable(Generic[T]):
    """Iterates over `iterable`, holding the last `history` items and up to `lookahead` of the next ones.

    Both are at least 1 (ValueError).
    """

    __slots__ = ("_source", "_past", "_ahead", "_steps_back", "_lookahead")

    def __init__(self, iterable: Iterable[T], *, history: int = 1, lookahead: int = 0):
        if history < 1:
            raise ValueError(f"history={history}: expected at least 1 item to go back to.")
        if lookahead < 1:
            raise ValueError(f"lookahead={lookahead}: expected at least 1 item to look ahead.")
        self._source: Iterator[T] = iter(iterable)
        self._past: deque[T] = deque(maxlen=history)  # ends with the item given last, before any steps back
        self._ahead: deque[T] = deque()
        self._steps_back, self._lookahead = 0, lookahead

    def __iter__(self) -> Backtrackable[T]:
        return self

    def __next__(self) -> T:
        if self._steps_back:
            self._steps_back -= 1
            return self._past[-1 - self._steps_back]
        self._past.append(self._ahead.popleft() if self._ahead else next(self._source))
        return self._past[-1]

    def prev(self) -> T:
        """Take back the item given last and return it, so that it comes again; LookBackError at the oldest one."""
        if len(self._past) - self._steps_back < 2:
            raise LookBackError("There is no remembered item before the one given last.")
        self._steps_back += 1
        return self._past[-self._steps_back]

    def peek_back(self, n: int = 1) -> T:
        """The item `n` before the one given last; LookBackError if it is not remembered."""
        if not self.can_peek_back(n):
            raise LookBackError(f"{n} items back: {max(0, len(self._past) - 1 - self._steps_back)} are remembered.")
        return self._past[-1 - n - self._steps_back]

    def peek_ahead(self, n: int = 1) -> T:
        """The item `n` after the one given last; LookAheadError after the end or beyond `lookahead`."""
        if n < 1 or n > self._lookahead:
            raise LookAheadError(f"{n} items ahead: expected 1 to lookahead={self._lookahead}.")
        if n <= self._steps_back:
            return self._past[n - 1 - self._steps_back]
        n -= self._steps_back
        while len(self._ahead) < n:
            try:
                self._ahead.append(next(self._source))
            except StopIteration as e:
                raise LookAheadError(f"{n} items ahead: the last one is {len(self._ahead)} ahead.") from e
        return self._ahead[n - 1]

    def history(self) -> list[T]:
        """The remembered items up to the one given last, oldest first."""
        past = list(self._past)
        return past[: len(past) - self._steps_back]

    def can_peek_back(self, steps: int = 1) -> bool:
        """Whether `peek_back(steps)` gives an item."""
        return 0 <= steps and steps + self._steps_back < len(self._past)

    def can_peek_ahead(self, steps: int = 1) -> bool:
        """Whether `peek_ahead(steps)` gives an item."""
        try:
            self.peek_ahead(steps)
        except LookAheadError:
            return False
        return True
