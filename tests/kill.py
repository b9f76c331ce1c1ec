"""Killing a Python program at a random moment, for every test that claims a kill does no harm."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

START_S = 120  # until the awaited lines are printed
REPO = Path(__file__).parents[1]


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
