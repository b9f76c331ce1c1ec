"""The kill test: a run is killed (SIGKILL) at random moments until it is done, and must end as if nothing had happened.

    python -m tests.training.killing --kills=200 --policy=act        prints one line per finished run, and the total

A run lives in a forked process, so that a life costs no imports. Moments are uniform over the whole life: loading,
training, saving, and the report at the end.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from lerobot.common.training.manifest import newest_whole_checkpoint
from lerobot.configs import parser
from lerobot.configs.train import TrainPipelineConfig
from lerobot.scripts.train import train
from tests.training.helpers import losses, same, weights


def life(make: Callable[[Path], TrainPipelineConfig], run: Path, log: Path, seconds: float | None) -> bool:
    """Start or resume a run in a process of its own and kill it after `seconds` (None: not); whether it finished.

    Raises AssertionError, with the end of the log, if it ended by itself and not well.
    """
    read, write = os.pipe()  # readable at its end, however that comes
    child = os.fork()
    if child == 0:
        os.close(read)
        _train(make, run, log)
    os.close(write)
    ended = bool(select.select([read], [], [], seconds)[0])
    os.close(read)
    if not ended:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0, log.read_text()[-3000:]
    return True


def _train(make, run: Path, log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        if newest_whole_checkpoint(run)[0] is None:
            shutil.rmtree(run, ignore_errors=True)  # killed before its first checkpoint: as if it had not begun
            train(make(run))
        else:
            train(parser.parse(TrainPipelineConfig, ["--resume=true", f"--output_dir={run}"]))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def survive(make: Callable[[Path], TrainPipelineConfig], folder: Path, kills: int, seed: int, longest: float) -> int:
    """Kill runs of `make` until `kills` kills have happened and the last run is done; returns the number of runs.

    Every run must end with the weights and losses of an uninterrupted one, bit for bit; else AssertionError.
    """
    draw, log, runs, done = random.Random(seed), folder / "log.txt", 0, 0
    assert life(make, folder / "whole", log, None)
    steps = make(folder / "whole").steps
    while done < kills:
        run = folder / f"run_{runs}"
        while not life(make, run, log, draw.uniform(0.0, longest) if done < kills else None):
            done += 1
        assert same(weights(folder / "whole", steps), weights(run, steps)), f"{run}: other weights"
        assert losses(folder / "whole") == losses(run), f"{run}: other losses"
        shutil.rmtree(run)
        runs += 1
    return runs


def tiny_run(name: str, dataset: Path, run: Path, **changes) -> TrainPipelineConfig:
    """A run of a tiny policy of any type that saves at almost every step."""
    from lerobot.configs.default import DatasetConfig
    from tests.policies.regression_table import ROWS, tiny_config

    policy = tiny_config(name, cameras=["laptop"], image_size=(42, 42))  # TD-MPC wants squares of at least 39
    settings = {
        "dataset": DatasetConfig(root=str(dataset), **ROWS[name].dataset),
        "policy": policy,
        "output_dir": run,
        "steps": 24,
        "batch_size": 4,
        "num_workers": 0,
        "log_freq": 1,
        "save_freq": 2,
        "save_total_limit": 3,
    }
    return TrainPipelineConfig(**{**settings, **changes})


def main() -> None:
    """Kill runs of one policy and print what happened."""
    import torch

    from tests.training.conftest import record_dataset

    flags = argparse.ArgumentParser()
    flags.add_argument("--kills", type=int, default=200)
    flags.add_argument("--policy", default="act")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--longest", type=float, default=3.0, help="seconds of the longest life that is killed")
    given = flags.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    dataset = record_dataset(folder / "tiny")
    runs = survive(lambda run: tiny_run(given.policy, dataset, run), folder, given.kills, given.seed, given.longest)
    print(f"{given.policy}: {given.kills} kills over {runs} runs, every one ended with the same weights and losses.")
    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
