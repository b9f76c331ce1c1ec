"""One of several processes that train tiny policies on divided weights, each in one go and as a resumed run.

Run by the tests with the environment of `accelerate launch --use_fsdp`:

    python -m tests.training.divided DATASET FOLDER POLICY...

Policies that draw noise draw other noise in every process; here all draws are constants, so that the runs can be
compared with those of one process.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from lerobot.common.training.distributed import DistributedEngine
from lerobot.configs import parser
from lerobot.configs.train import TrainPipelineConfig
from lerobot.scripts.train import train
from tests.training.killing import tiny_run

STEPS, HALF = 4, 2


@contextmanager
def constant_draws():
    """Random numbers do not depend on how many are drawn."""
    stack = ExitStack()
    for name, draw in {
        "torch.normal": lambda mean, std, size, **more: torch.full(tuple(size), 0.3, **more),
        "torch.randn": lambda *size, **more: torch.full(size[0] if len(size) == 1 else size, 0.3, **more),
        "torch.randn_like": lambda x: torch.full_like(x, 0.3),
        "torch.randint": lambda low, high, size, **more: torch.full(tuple(size), (low + high) // 2, **more),
        "numpy.random.choice": lambda count, size: np.arange(size),
        "torch.distributions.Beta.sample": lambda self, shape: torch.full(tuple(shape), 0.5),
    }.items():
        stack.enter_context(patch(name, draw))
    with stack:
        yield


def run_of(name: str, dataset: Path, folder: Path, **changes) -> TrainPipelineConfig:
    """A short run of a tiny policy with averaged weights."""
    settings = {"steps": STEPS, "save_freq": HALF, "save_total_limit": 0, "batch_size": 8, "ema_decay": 0.9}
    return tiny_run(name, dataset, folder, **{**settings, **changes})


def train_quietly(cfg: TrainPipelineConfig) -> None:
    """Train with constant draws."""
    with constant_draws():
        train(cfg)


def main() -> None:
    """Train every policy in one go, and from half of it on."""
    dataset, folder, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    sys.argv[1:] = []
    torch.set_num_threads(1)
    with patch.object(DistributedEngine, "close", lambda self: None):  # the processes train one run after another
        for name in names:
            whole, half = folder / name, folder / f"{name}_resumed"
            train_quietly(run_of(name, dataset, whole, batch_size=4))
            torch.distributed.barrier()
            if torch.distributed.get_rank() == 0:
                part = f"checkpoints/{HALF:06d}"
                shutil.copytree(whole / part, half / part)
                shutil.copy(whole / "metrics.jsonl", half)
            torch.distributed.barrier()
            train_quietly(parser.parse(TrainPipelineConfig, ["--resume=true", f"--output_dir={half}"]))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
