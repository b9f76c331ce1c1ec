"""Killing a Python program at a random moment, for every test that claims a kill does no harm."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

START_S = 300  # until the awaited lines are printed
REPO = Path(__file__).parents[1]


_FILE_OPERATIONS = {"os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "open"}
_watch = None  # what is called before each of them: (event, its arguments)


def _audit(event: str, arguments: tuple) -> None:
    if _watch is not None and event in _FILE_OPERATIONS:
        _watch(event, arguments)


@contextlib.contextmanager
def states_on_the_way(root: Path, copies: Path):
    """Copy `root` to `copies`/0, 1, ... before every file operation below it, so as a kill there would leave it.

    Yields the list of copies, which is complete at the end. Needs no process, and no luck.
    """
    global _watch
    states, lock = [], threading.RLock()

    def watch(event: str, arguments: tuple) -> None:
        global _watch
        reads = event == "open" and isinstance(arguments[1], str) and not set(arguments[1]) & set("wax+")
        if reads or not str(arguments[0]).startswith(str(root)):
            return
        with lock:
            _watch = None  # copying is a file operation, too
            states.append(copies / str(len(states)))
            shutil.copytree(root, states[-1])
            _watch = watch

    if not getattr(sys, "_file_operations_are_watched", False):  # a hook cannot be taken back
        sys.addaudithook(_audit)
        sys._file_operations_are_watched = True
    _watch = watch
    try:
        yield states
    finally:
        _watch = None


def run_and_kill(program: str, *args, after_lines: int = 0, within_s: float = 1.0, seed: int = 0) -> list[str]:
    """Run `program` (Python source) and kill -9 it; returns the lines that it had printed, flushed.

    The moment is drawn from [0, within_s] seconds after its `after_lines`-th line, as a function of `seed`.
    AssertionError if it fails by itself; a program that ends before is fine.
    """
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, args)]
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    start = threading.Timer(START_S, process.send_signal, [signal.SIGKILL])  # or a reader would wait for ever
    start.start()
    lines = [process.stdout.readline() for _ in range(after_lines)]
    start.cancel()
    assert all(lines), f"The program printed {lines} in {START_S} s and ended."
    timer = threading.Timer(random.Random(seed).uniform(0, within_s), process.send_signal, [signal.SIGKILL])
    timer.start()
    rest, errors = process.communicate(timeout=START_S)
    timer.cancel()
    assert process.returncode in (0, -signal.SIGKILL), errors
    return [line.rstrip("\n") for line in "".join([*lines, rest]).splitlines(keepends=True) if line.endswith("\n")]
