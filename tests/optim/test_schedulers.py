"""Learning-rate schedules and policy presets against tables of LeRobot 0.4.4."""

import json
from pathlib import Path

import pytest
import torch

import lerobot.common.policies  # noqa: F401  registers the policies
from lerobot.common.optim.schedulers import LRSchedulerConfig
from lerobot.configs.parser import decode
from lerobot.configs.policies import PreTrainedConfig

TABLES = Path(__file__).parents[1] / "artifacts" / "schedules"
SCHEDULES = json.loads((TABLES / "schedules.json").read_text())
PRESETS = json.loads((TABLES / "presets.json").read_text())


@pytest.mark.parametrize(
    "table",
    [t for t in SCHEDULES if "lr" in t],
    ids=lambda t: f"{t['type']}-{t['config'].get('name', '')}-{t['num_training_steps']}",
)
def test_rates_equal_the_table(table):
    config = decode(LRSchedulerConfig, {"type": table["type"], **table["config"]})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=table["base_lr"])
    (factor,) = config.build(optimizer, table["num_training_steps"]).lr_lambdas
    for step, rate in table["lr"]:
        assert factor(step) * table["base_lr"] == pytest.approx(rate, rel=1e-9, abs=1e-18), step


def test_scheduler_survives_a_round_trip(tmp_path):
    from lerobot.common.optim.schedulers import load_scheduler_state, save_scheduler_state

    def make():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        config = decode(LRSchedulerConfig, {"type": "diffuser", "num_warmup_steps": 3})
        return optimizer, config.build(optimizer, 20)

    optimizer, scheduler = make()
    for _ in range(7):
        optimizer.step()
        scheduler.step()
    save_scheduler_state(scheduler, tmp_path)
    other_optimizer, other = make()
    load_scheduler_state(other, tmp_path)
    optimizer.step(), scheduler.step()
    other_optimizer.step(), other.step()
    assert other.get_last_lr() == scheduler.get_last_lr()


@pytest.mark.parametrize("name", [n for n in PRESETS if n in PreTrainedConfig.get_known_choices()])
def test_policy_presets_equal_those_of_lerobot(name):
    config, expected = PreTrainedConfig.get_known_choices()[name](), PRESETS[name]
    optimizer = config.get_optimizer_preset()
    for key, value in expected["optimizer"].items():
        found = getattr(optimizer, key)
        assert (list(found) if isinstance(found, tuple) else found) == value, key
    scheduler = config.get_scheduler_preset()
    assert (scheduler and scheduler.type) == (expected["scheduler"] and expected["scheduler"]["type"])
    for key, value in (expected["scheduler"] or {}).items():
        assert getattr(scheduler, key) == value, key
    for key in ("observation_delta_indices", "action_delta_indices", "reward_delta_indices"):
        assert getattr(config, key) == expected[key], key
    assert {k: v.value for k, v in config.normalization_mapping.items()} == expected["normalization_mapping"]
