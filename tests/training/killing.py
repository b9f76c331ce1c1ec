"""The kill test: a run is killed (SIGKILL) at random moments until it is done, and must end as if nothing had happened.

    python -m tests.training.killing --kills=200 --policy=act

A run lives in a forked process, so that a life costs no imports. The process that forks has neither decoded nor encoded
a video: the threads of FFmpeg do not exist in a fork, and whoever waits for them there waits for ever. Moments are
random over the whole life: loading, training, saving, and the report at the end.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import select
import shutil
import signal
import subprocess
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
from tests.training.helpers import ROOT, losses, same, weights

LONGEST_LIFE_S = 120  # of a run of seconds; one that is still there hangs


def life(make, run: Path, log: Path, seconds: float | None, from_training: bool = False) -> bool:
    """Start or resume a run in a process of its own and kill it after `seconds` (None: not); whether it finished.

    With `from_training` the time counts from the first step on. Raises AssertionError, with the end of the log, if the
    run ended by itself and not well, or hangs.
    """
    read, write = os.pipe()  # a byte comes when training begins, the end when the process ends
    child = os.fork()
    if child == 0:
        os.close(read)
        _train(make, run, log, write)
    os.close(write)
    hangs_at = time.monotonic() + LONGEST_LIFE_S
    alive = not from_training or _said_something(read, hangs_at)
    deadline = min(hangs_at, time.monotonic() + (LONGEST_LIFE_S if seconds is None else seconds))
    while alive and time.monotonic() < deadline:
        alive = _said_something(read, deadline)
    if alive:
        os.kill(child, signal.SIGKILL)
    os.close(read)
    status = os.waitpid(child, 0)[1]
    assert time.monotonic() < hangs_at, f"A run hangs:\n{log.read_text()[-6000:]}"
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0, log.read_text()[-3000:]
    return True


def _said_something(pipe: int, deadline: float) -> bool:
    """Wait until `deadline` for a byte or the end of a pipe; False at its end."""
    readable = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]
    return not readable or bool(os.read(pipe, 1))


def _train(make, run: Path, log: Path, started: int) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.dump_traceback_later(LONGEST_LIFE_S - 10, file=sys.__stderr__)
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

    flags = argparse.ArgumentParser()
    flags.add_argument("--kills", type=int, default=200)
    flags.add_argument("--policy", default="act")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--longest", type=float, default=2.0, help="seconds of training before the latest kill")
    given = flags.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    dataset = folder / "tiny"
    recording = f"from tests.training.conftest import record_dataset; record_dataset({str(dataset)!r})"
    subprocess.run([sys.executable, "-c", recording], check=True, timeout=LONGEST_LIFE_S, cwd=ROOT)
    told = survive(lambda run: tiny_run(given.policy, dataset, run), folder, given.kills, given.seed, given.longest)
    print(f"{given.policy}: {told}; every one ended with the same weights and losses.", flush=True)
    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
