"""The kill test: a run is killed (SIGKILL) at random moments until it is done, and must end as if nothing had happened.

    python -m tests.training.killing --kills=200 --policy=act

A run lives in a forked process, so that a life costs no imports. Moments are random over the whole life: loading,
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
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import lerobot.scripts.train as script
from lerobot.common.training.manifest import newest_whole_checkpoint
from lerobot.configs import parser
from lerobot.configs.train import TrainPipelineConfig
from tests.training.helpers import losses, same, weights


def life(make, run: Path, log: Path, seconds: float | None, from_training: bool = False) -> bool:
    """Start or resume a run in a process of its own and kill it after `seconds` (None: not); whether it finished.

    With `from_training` the time counts from the first step on. Raises AssertionError, with the end of the log, if the
    run ended by itself and not well.
    """
    read, write = os.pipe()  # a byte comes when training begins, the end when the process ends
    child = os.fork()
    if child == 0:
        os.close(read)
        _train(make, run, log, write)
    os.close(write)
    alive = not from_training or bool(os.read(read, 1))
    deadline = None if seconds is None else time.monotonic() + seconds
    while alive:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([read], [], [], left)[0]:
            os.kill(child, signal.SIGKILL)
            break
        alive = bool(os.read(read, 1))
    os.close(read)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0, log.read_text()[-3000:]
    return True


def _train(make, run: Path, log: Path, started: int) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    describe = script.describe
    script.describe = lambda *arguments: (describe(*arguments), os.write(started, b"1"))
    try:
        if newest_whole_checkpoint(run)[0] is None:
            shutil.rmtree(run, ignore_errors=True)  # killed before its first checkpoint: as if it had not begun
            script.train(make(run))
        else:
            script.train(parser.parse(TrainPipelineConfig, ["--resume=true", f"--output_dir={run}"]))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def survive(make: Callable[[Path], TrainPipelineConfig], folder: Path, kills: int, seed: int, longest: float) -> str:
    """Kill runs of `make` until `kills` kills have happened and the last run is done; returns what happened.

    One kill in four comes while the run is being set up, the others up to `longest` seconds into training. Every run
    must end with the weights and losses of an uninterrupted one, bit for bit; else AssertionError.
    """
    draw, log, runs, done, saving = random.Random(seed), folder / "log.txt", 0, 0, 0
    assert life(make, folder / "whole", log, None)
    steps = make(folder / "whole").steps
    while done < kills:
        run = folder / f"run_{runs}"
        while not life(make, run, log, _moment(draw, longest) if done < kills else None, draw.random() < 0.75):
            done += 1
            saving += any(run.glob("checkpoints/.*.part"))
        assert same(weights(folder / "whole", steps), weights(run, steps)), f"{run}: other weights"
        assert losses(folder / "whole") == losses(run), f"{run}: other losses"
        shutil.rmtree(run)
        runs += 1
    return f"{done} kills, {saving} of them while saving, over {runs} runs"


def _moment(draw: random.Random, longest: float) -> float:
    """Seconds to live; one life in eight is long enough for the report at the end."""
    return draw.uniform(0, longest) * (10 if draw.random() < 0.125 else 1)


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
    flags.add_argument("--longest", type=float, default=2.0, help="seconds of training before the latest kill")
    given = flags.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    dataset = record_dataset(folder / "tiny")
    told = survive(lambda run: tiny_run(given.policy, dataset, run), folder, given.kills, given.seed, given.longest)
    print(f"{given.policy}: {told}; every one ended with the same weights and losses.", flush=True)
    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
