"""Several processes train what one process trains."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
import torch

from lerobot.common.policies.common.losses import masked_mean, shared_denominator
from lerobot.common.training.data import BatchPlan
from lerobot.common.training.ema import WeightAverage
from lerobot.scripts.train import train
from tests.training.helpers import ROOT, losses, weights


def launch(cfg, processes=2, **environment):
    """Train `cfg` in several processes (as `accelerate launch` and torchrun start them) that talk through gloo."""
    file = cfg.output_dir.with_name("launch.json")
    file.write_text(json.dumps(cfg.to_dict()))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "lerobot/scripts/train.py", f"--config_path={file}"]
    if cfg.resume:
        command = [sys.executable, "lerobot/scripts/train.py", "--resume=true", f"--output_dir={cfg.output_dir}"]
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
            command,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]
    output = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * processes, "\n".join(output)


def deterministic(make_config, **changes):
    """A policy without random draws, whose batches have padded steps; the last batch of an epoch is short."""
    cfg = make_config(batch_size=8, **changes)
    cfg.policy.use_vae, cfg.policy.dropout = False, 0.0
    return cfg


def close(a, b):
    return max((a[k].double() - b[k].double()).abs().max() for k in a) < 2e-6


def test_two_processes_and_two_micro_batches_are_one_process(make_config, tmp_path):
    train(deterministic(make_config, output_dir=tmp_path / "one", steps=6))
    two = deterministic(make_config, output_dir=tmp_path / "two", steps=6)
    two.batch_size, two.num_workers = 4, 0
    launch(two)
    pieces = deterministic(make_config, output_dir=tmp_path / "pieces", steps=6)
    pieces.batch_size, pieces.gradient_accumulation_steps = 2, 4
    train(pieces)
    expected = weights(tmp_path / "one", 6)
    for name in ("two", "pieces"):
        assert close(expected, weights(tmp_path / name, 6)), name
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


def test_two_processes_continue_what_one_began_and_write_once(make_config, tmp_path):
    cfg = deterministic(make_config, output_dir=tmp_path / "run", steps=4, ema_decay=0.9)
    train(cfg)
    expected = weights(cfg.output_dir, 4)
    shutil.rmtree(cfg.output_dir / "checkpoints" / "000004")
    state = cfg.output_dir / "checkpoints" / "000002" / "pretrained_model" / "train_config.json"
    config = json.loads(state.read_text()) | {"batch_size": 4}
    state.write_text(json.dumps(config))
    (cfg.output_dir / "checkpoints" / "000002" / "manifest.json").unlink()
    cfg.resume = True
    launch(cfg)
    assert close(expected, weights(cfg.output_dir, 4))
    assert len(losses(cfg.output_dir)) == 4
    step = json.loads((cfg.output_dir / "checkpoints/000004/training_state/training_step.json").read_text())
    assert step["num_processes"] == 2


def test_frames_of_a_step_do_not_depend_on_the_division():
    one, many = BatchPlan(37, 8), BatchPlan(37, 2, processes=2, accumulation=2)
    for step in range(12):
        assert one.position(step) == many.position(step)
        assert sum(one.sizes(step)) == sum(many.sizes(step))
        assert max(many.sizes(step)) - min(many.sizes(step)) <= 1
    assert one.sizes(4) == [5] and many.sizes(4) == [2, 1, 1, 1]


def test_pieces_with_their_ratio_have_the_mean_of_the_whole():
    values, is_pad = torch.randn(4, 5, 3), torch.rand(4, 5) < 0.4
    whole = masked_mean(values, is_pad)
    parts = 0.0
    for part in (slice(0, 1), slice(1, 4)):
        share = (~is_pad).float().mean() / (~is_pad[part]).float().mean()
        with shared_denominator(float(share)):
            parts = parts + masked_mean(values[part], is_pad[part]) * len(values[part]) / 4
    torch.testing.assert_close(parts, whole)


def test_the_average_follows_the_weights_and_gives_them_back():
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(module.weight)
    average = WeightAverage(module, 0.5)
    torch.nn.init.constant_(module.weight, 3.0)
    average.update(step=91)  # decay 0.5: later than the ramp
    with average.applied():
        assert module.weight.item() == 2.0
    assert module.weight.item() == 3.0
