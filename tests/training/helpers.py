"""What several tests of training runs look at, and the kill test."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from lerobot.common.training.metrics import read_lines

ROOT = Path(__file__).parents[2]


def side_by_side(command: list, processes: int = 2, **environment: str) -> None:
    """Run a Python command in several processes, as `accelerate launch` and torchrun start them; gloo connects them."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    shared = {
        **os.environ,
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "ACCELERATE_USE_CPU": "true",
        **environment,
    }
    runs = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        output = [run.communicate(timeout=900)[0] for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert [run.returncode for run in runs] == [0] * processes, "\n".join(output)


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    """The weights that a run saved after `step`."""
    return load_file(Path(run) / "checkpoints" / f"{step:06d}" / "pretrained_model" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def losses(run: Path) -> list[float]:
    """Every logged loss."""
    return [row["loss"] for row in read_lines(Path(run) / "metrics.jsonl") if "loss" in row]
