"""A resumed run is the run it would have been, or is refused before its first step."""

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.transforms import ImageTransformsConfig
from lerobot.common.optim.optimizers import AdamWConfig
from lerobot.common.optim.schedulers import DiffuserSchedulerConfig
from lerobot.configs import parser
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.scripts.train import train
from tests.policies.regression_table import ROWS
from tests.training.helpers import ROOT, losses, same, weights
from tests.training.killing import tiny_run


def resumed(run, *flags):
    return parser.parse(TrainPipelineConfig, ["--resume=true", f"--output_dir={run}", *flags])


def both_ways(make_config, tmp_path, **changes):
    """Six steps in one go, and three steps and a resume."""
    train(make_config(output_dir=tmp_path / "whole", steps=6, save_freq=3, **changes))
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "000003", tmp_path / "half" / "checkpoints" / "000003")
    shutil.copy(tmp_path / "whole" / "metrics.jsonl", tmp_path / "half")
    train(resumed(tmp_path / "half"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "half")
    assert same(weights(tmp_path / "whole", 6), weights(tmp_path / "half", 6))
    for name in ("optimizer_state.safetensors", "rng_state.safetensors"):
        paths = [tmp_path / run / "checkpoints/000006/training_state" / name for run in ("whole", "half")]
        assert same(load_file(paths[0]), load_file(paths[1]))


def test_with_augmentation_workers_average_and_accumulation(make_config, tmp_path, dataset_root):
    augmented = DatasetConfig(root=str(dataset_root), image_transforms=ImageTransformsConfig(enable=True))
    both_ways(
        make_config, tmp_path, dataset=augmented, num_workers=2, ema_decay=0.9, gradient_accumulation_steps=2,
        batch_size=5, dataloader_multiprocessing_context="fork",
    )  # fmt: skip
    average, trained = weights(tmp_path / "half", 6), tmp_path / "half/checkpoints/000006/training_state"
    assert not same(average, load_file(trained / "trained_weights.safetensors"))


def test_with_validation_amp_and_a_drawn_seed(make_config, tmp_path, dataset_root):
    held = DatasetConfig(root=str(dataset_root), eval_split=0.34)
    policy = make_config().policy
    policy.use_amp = True
    both_ways(make_config, tmp_path, dataset=held, eval_steps=2, seed=None, policy=policy)


def test_validation_does_not_touch_the_training(make_config, tmp_path, dataset_root):
    held = DatasetConfig(root=str(dataset_root), eval_split=0.34)
    train(make_config(output_dir=tmp_path / "without", dataset=held))
    train(make_config(output_dir=tmp_path / "with", dataset=dataclasses.replace(held), eval_steps=1))
    assert losses(tmp_path / "with") == losses(tmp_path / "without")


def test_a_run_that_was_moved_continues_where_it_is(make_config, tmp_path):
    cfg = make_config(steps=2)
    train(cfg)
    shutil.move(cfg.output_dir, tmp_path / "moved")
    config = tmp_path / "moved/checkpoints/last/pretrained_model/train_config.json"
    train(parser.parse(TrainPipelineConfig, ["--resume=true", f"--config_path={config}", "--steps=3"]))
    assert (tmp_path / "moved/checkpoints/000003").is_dir() and not cfg.output_dir.exists()


def test_the_folder_of_another_run_is_refused(make_config, tmp_path):
    for name in ("a", "b"):
        train(make_config(output_dir=tmp_path / name, steps=2))
    config = tmp_path / "a/checkpoints/000002"
    flags = ["--resume=true", f"--config_path={config}", f"--output_dir={tmp_path / 'b'}"]
    with pytest.raises(FileExistsError, match="another run"):
        train(parser.parse(TrainPipelineConfig, flags))


def test_another_dataset_is_refused(make_config, tmp_path, dataset_root):
    cfg = make_config(steps=2)
    train(cfg)
    copy = tmp_path / "grown"
    shutil.copytree(dataset_root, copy)
    dataset = LeRobotDataset("grown", root=copy)
    frame = {k: v.numpy() for k, v in dataset[0].items() if k in ("observation.state", "action")}
    picture = torch.zeros(48, 64, 3, dtype=torch.uint8).numpy()
    for _ in range(12):
        dataset.add_frame({**frame, "observation.images.laptop": picture, "task": "Pick up the red cube."})
    dataset.save_episode()
    with pytest.raises(ValueError, match="frames, episodes, fingerprint changed"):
        train(resumed(cfg.output_dir, f"--dataset.root={copy}"))
    shutil.copytree(dataset_root, tmp_path / "elsewhere")
    train(resumed(cfg.output_dir, f"--dataset.root={tmp_path / 'elsewhere'}", "--steps=3"))


def test_another_global_batch_is_refused_and_another_division_of_it_is_not(make_config):
    cfg = make_config(steps=2)
    train(cfg)
    with pytest.raises(ValueError, match="= 4 frames per step, now 1 processes x 1 micro-batches x 8 = 8"):
        train(resumed(cfg.output_dir, "--batch_size=8"))
    train(resumed(cfg.output_dir, "--batch_size=2", "--gradient_accumulation_steps=2", "--steps=3"))


def test_flags_that_would_make_it_another_run_are_refused(make_config, caplog):
    cfg = make_config(steps=4)
    train(cfg)
    for flags, told in {
        ("--seed=7",): "began with seed 1000",
        ("--steps=3",): "has 4 steps already",
        ("--policy.path=elsewhere",): "starts a new run, --resume=true continues one",
    }.items():
        config = cfg.output_dir / "checkpoints/last/pretrained_model"
        flags = ["--resume=true", f"--config_path={config}", *flags]
        if "policy.path" in flags[-1]:
            flags[-1] = f"--policy.path={config}"
        with pytest.raises(ValueError, match=told):
            train(parser.parse(TrainPipelineConfig, flags))
    train(resumed(cfg.output_dir, "--seed=1000"))


def test_a_stretched_schedule_is_told(make_config, caplog):
    scheduler = DiffuserSchedulerConfig(num_warmup_steps=1)
    cfg = make_config(steps=4, use_policy_training_preset=False, optimizer=AdamWConfig(), scheduler=scheduler)
    train(cfg)
    half = cfg.output_dir / "checkpoints/000002"
    train(parser.parse(TrainPipelineConfig, ["--resume=true", f"--config_path={half}", "--steps=8"]))
    assert "--steps=8 instead of 4 stretches the schedule" in caplog.text


def as_legacy(checkpoint):
    """Turn a checkpoint into the layout of LeRobot 0.1: statistics inside the weights, no files of ours."""
    model, state = checkpoint / "pretrained_model", checkpoint / "training_state"
    stats = load_file(model / "policy_preprocessor_step_3_normalizer_processor.safetensors")
    tensors = load_file(model / "model.safetensors")
    for module, keys in {
        "normalize_inputs": ("observation.state", "observation.images.laptop"),
        "normalize_targets": ("action",),
        "unnormalize_outputs": ("action",),
    }.items():
        for key in keys:
            for name in ("mean", "std"):
                tensors[f"{module}.buffer_{key.replace('.', '_')}.{name}"] = stats[f"{key}.{name}"].clone()
    save_file(tensors, model / "model.safetensors")
    for file in [*model.glob("policy_*"), model / "training_record.json", checkpoint / "manifest.json"]:
        file.unlink()
    step = json.loads((state / "training_step.json").read_text())["step"]
    (state / "training_step.json").write_text(json.dumps({"step": step}))
    config = json.loads((model / "train_config.json").read_text())
    new = ("ema_decay", "eval_steps", "save_total_limit", "trackio", "gradient_accumulation_steps", "tensorboard")
    kept = {k: v for k, v in config.items() if k not in new}
    (model / "train_config.json").write_text(json.dumps({**kept, "offline": False}))


def test_a_legacy_checkpoint_continues_with_its_own_statistics(make_config):
    cfg = make_config()
    train(cfg)
    expected = weights(cfg.output_dir, 4)
    as_legacy(cfg.output_dir / "checkpoints" / "000002")
    shutil.rmtree(cfg.output_dir / "checkpoints" / "000004")
    (cfg.output_dir / "checkpoints" / "last").unlink()
    train(resumed(cfg.output_dir))
    assert same(weights(cfg.output_dir, 4), expected)


def test_weights_without_a_training_state_are_refused(make_config):
    cfg = make_config(steps=2)
    train(cfg)
    folder = cfg.output_dir / "checkpoints" / "000002"
    shutil.rmtree(folder / "training_state")
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match="training_step.json is absent"):
        train(parser.parse(TrainPipelineConfig, ["--resume=true", f"--config_path={folder}"]))


# Two that change more than weights while training; the others take longer.
QUICK = ("tdmpc", "vqbet")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in sorted(ROWS)])
def test_every_policy_resumes_to_the_same_bits(name, dataset_root, tmp_path):
    whole = tiny_run(name, dataset_root, tmp_path / "whole", steps=6, save_freq=3, save_total_limit=0)
    train(whole)
    shutil.copytree(tmp_path / "whole/checkpoints/000003", tmp_path / "half/checkpoints/000003")
    shutil.copy(tmp_path / "whole/metrics.jsonl", tmp_path / "half")
    train(resumed(tmp_path / "half"))
    assert same(weights(tmp_path / "whole", 6), weights(tmp_path / "half", 6))
    assert losses(tmp_path / "whole") == losses(tmp_path / "half")


@pytest.mark.slow
def test_a_run_that_is_killed_ends_as_if_it_had_not_been():
    command = [sys.executable, "-m", "tests.training.killing", "--kills=4", "--seed=3", "--longest=0.5"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=1200)
    assert done.returncode == 0, done.stderr[-6000:]
    assert "4 kills" in done.stdout
