"""Several processes train what one process trains."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from lerobot.common.policies.common.losses import STEPS, masked_mean, shared_denominators
from lerobot.common.training.data import BatchPlan
from lerobot.common.training.ema import WeightAverage
from lerobot.configs import parser
from lerobot.configs.train import TrainPipelineConfig
from lerobot.scripts.train import train
from tests.training.divided import constant_draws, run_of, train_quietly
from tests.training.helpers import losses, same, side_by_side, weights


def launch(cfg):
    """Train `cfg` in two processes."""
    command = ["lerobot/scripts/train.py", "--resume=true", f"--output_dir={cfg.output_dir}"]
    if not cfg.resume:
        file = cfg.output_dir.with_name("launch.json")
        file.write_text(json.dumps(cfg.to_dict()))
        command[1:] = [f"--config_path={file}"]
    side_by_side(command)


def deterministic(make_config, **changes):
    """A policy without random draws, whose batches have padded steps; the last batch of an epoch is short."""
    cfg = make_config(batch_size=8, **changes)
    cfg.policy.use_vae, cfg.policy.dropout = False, 0.0
    return cfg


def close(a, b):
    # The bias of attention keys has no gradient but rounding errors, which Adam makes as large as any other.
    allowed = {name: 1e-5 if name.endswith("in_proj_bias") else 2e-6 for name in a}
    return all((a[k].double() - b[k].double()).abs().max() < allowed[k] for k in a)


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


def test_losses_with_masks_of_their_own_are_divided_exactly(dataset_root, tmp_path):
    train_quietly(run_of("tdmpc", dataset_root, tmp_path / "one"))
    train_quietly(run_of("tdmpc", dataset_root, tmp_path / "pieces", batch_size=2, gradient_accumulation_steps=4))
    assert close(weights(tmp_path / "one", 4), weights(tmp_path / "pieces", 4))


SLOW = ("act", "act_dinov2", "diffusion", "smolvla", "tdmpc")


@pytest.mark.parametrize("names", [("pi0",), pytest.param(SLOW, marks=pytest.mark.slow)], ids=" ".join)
def test_divided_weights_are_those_of_one_process_which_may_take_over(names, dataset_root, tmp_path):
    side_by_side(["-m", "tests.training.divided", dataset_root, tmp_path / "two", *names], ACCELERATE_USE_FSDP="true")
    state = "checkpoints/000004/training_state"
    for name in names:
        one, two, resumed = tmp_path / name, tmp_path / "two" / name, tmp_path / "two" / f"{name}_resumed"
        train_quietly(run_of(name, dataset_root, one))
        assert losses(two) == pytest.approx(losses(one), rel=1e-5)
        assert same(weights(two, 4), weights(resumed, 4))
        for file in ("optimizer_state.safetensors", "trained_weights.safetensors"):
            tensors = [load_file(run / state / file) for run in (one, two, resumed)]
            assert close(tensors[0], tensors[1]) and same(tensors[1], tensors[2]), f"{name}: {file}"
        groups = [json.loads((run / state / "optimizer_param_groups.json").read_text()) for run in (one, two)]
        assert groups[0] == groups[1]
    shutil.rmtree(two / "checkpoints" / "000004")
    with constant_draws():
        train(parser.parse(TrainPipelineConfig, ["--resume=true", f"--output_dir={two}", "--batch_size=8"]))
    assert close(weights(one, 4), weights(two, 4))


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
        with shared_denominators({STEPS: float(share)}):
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
