"""What a run needs, from a few real steps."""

from types import SimpleNamespace

import pytest
import torch

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.training.estimate import Estimate, Outlook, duration, estimate
from lerobot.scripts.train import train


def make_estimate(**changes):
    settings = {"batch_size": 8, "steps": 7200, "update_s": 0.5, "load_s": 0.25, "workers": 0, "peak": 3 * 2**30}
    settings |= {"per_sample": 2**27, "memory": 10 * 2**30, "checkpoint": 2**30, "checkpoints": 2, "store": 0}
    return Estimate(**{**settings, **changes})


def test_loading_adds_to_a_step_only_without_workers():
    assert make_estimate().step_s == 0.75
    assert make_estimate(workers=2).step_s == 0.5
    assert "7200 steps in 1 h 30 min" in str(make_estimate())


def test_a_step_has_all_its_micro_batches(make_config, monkeypatch):
    monkeypatch.setattr("lerobot.common.training.estimate._step", lambda *_: 0.5)
    monkeypatch.setattr("lerobot.common.training.estimate._loading", lambda *_: 0.25)
    cfg = make_config(estimate=True, gradient_accumulation_steps=4, batch_size=2)
    cfg.validate()
    engine, policy = SimpleNamespace(device=torch.device("cpu"), world_size=1), torch.nn.Linear(2, 2)
    policy.frozen_feature_modes = tuple
    found = estimate(cfg, LeRobotDataset(root=cfg.dataset.root), None, lambda batch: batch, None, policy, None, engine)
    assert found.step_s == 3.0 and "2.7 samples/s" in str(found)


def test_largest_batch_fills_nine_tenths_of_the_memory():
    assert make_estimate().largest_batch == 56  # 2 GiB are fixed, 7 GiB are left at 128 MiB each
    assert make_estimate(per_sample=0.0).largest_batch is None
    assert "about 56 would fit" in str(make_estimate())


@pytest.mark.parametrize(
    ("load", "workers", "flag"), [(0.1, 0, "computing"), (0.4, 0, "--num_workers=4"), (0.6, 2, "raise --num_workers")]
)
def test_bottleneck_names_the_flag_that_helps(load, workers, flag):
    assert flag in make_estimate(load_s=load, workers=workers).bottleneck


@pytest.mark.parametrize(("seconds", "text"), [(59, "59 s"), (61, "1 min 1 s"), (5400, "1 h 30 min")])
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_a_run_that_only_estimates_writes_nothing(make_config, capsys):
    cfg = make_config(estimate=True)
    assert train(cfg) is None
    text = capsys.readouterr().out
    assert all(word in text for word in ("Speed", "One step", "Bound by", "Memory", "--batch_size=4", "checkpoint"))
    assert not cfg.output_dir.exists()


def test_outlook_speaks_once(caplog):
    outlook = Outlook(first_step=100, steps=1000)
    with caplog.at_level("INFO"):
        for step in range(101, 130):
            outlook(step, 0.0)
    (message,) = [r.getMessage() for r in caplog.records]
    assert "0 % of the time waiting" in message and "remaining 889 steps" in message


def test_outlook_tells_memory_disk_and_the_flags_that_help(make_config, caplog):
    cfg = make_config(steps=14)
    with caplog.at_level("INFO"):
        train(cfg)
    (line,) = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Memory: peak")]
    assert "checkpoints of" in line and "GiB" in line


def test_computing_names_what_would_be_cheaper():
    assert make_estimate(advice="--policy.use_amp=true").bottleneck == "computing: --policy.use_amp=true"
