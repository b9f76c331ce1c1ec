"""One thread beside the control loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any


class Background:
    """Computes one thing after the other in a thread that, unlike an executor's, keeps no program from its end."""

    def __init__(self, name: str):
        self._jobs: SimpleQueue = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, compute: Callable, *arguments: Any) -> Future:
        """Begin, after what was submitted before; the future has what `compute` returns or raises."""
        future: Future = Future()
        self._jobs.put((future, compute, arguments))
        return future

    def close(self, wait_s: float = 0.0) -> bool:
        """End after what is being computed, for which this waits at most `wait_s`; whether it has ended."""
        self._jobs.put(None)
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, compute, arguments = job
            try:
                future.set_result(compute(*arguments))
            except BaseException as e:
                future.set_exception(e)
