"""Training runs: what they write, how they resume, what they refuse."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.evaluation.plots import comparable_loss
from lerobot.common.training.data import make_plan, split_episodes
from lerobot.common.training.metrics import read_lines, require_finite
from lerobot.common.training.smoke import first_episodes, smoke
from lerobot.common.utils.logging_utils import AverageMeter, MetricsTracker
from lerobot.configs import parser
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.scripts.train import train
from tests.training.conftest import record_dataset

FILES = {
    "pretrained_model/camera_reference/laptop.png",
    "manifest.json",
    "pretrained_model/training_record.json",
    "pretrained_model/config.json",
    "pretrained_model/extras.json",
    "pretrained_model/model.safetensors",
    "pretrained_model/train_config.json",
    "pretrained_model/policy_preprocessor.json",
    "pretrained_model/policy_preprocessor_step_3_normalizer_processor.safetensors",
    "pretrained_model/policy_postprocessor.json",
    "pretrained_model/policy_postprocessor_step_0_unnormalizer_processor.safetensors",
    "training_state/training_step.json",
    "training_state/rng_state.safetensors",
    "training_state/optimizer_state.safetensors",
    "training_state/optimizer_param_groups.json",
}


def weights(run, step):
    return load_file(run / "checkpoints" / f"{step:06d}" / "pretrained_model" / "model.safetensors")


def losses(run):
    return [row["loss"] for row in read_lines(run / "metrics.jsonl")]


def test_a_run_writes_checkpoints_metrics_and_a_summary(make_config):
    cfg = make_config()
    train(cfg)
    folder = cfg.output_dir / "checkpoints" / "000002"
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == FILES
    assert (cfg.output_dir / "checkpoints" / "last").readlink().name == "000004"
    assert len(losses(cfg.output_dir)) == 4
    assert json.loads((cfg.output_dir / "summary.json").read_text())["steps"] == 4
    assert (cfg.output_dir / "curves.png").stat().st_size > 1000


@pytest.mark.parametrize("workers", [0, 1])
def test_two_steps_and_a_resume_are_the_same_run_as_four(make_config, tmp_path, workers):
    whole = make_config(num_workers=workers, output_dir=tmp_path / "whole")
    train(whole)
    train(make_config(num_workers=workers, steps=2, output_dir=tmp_path / "halves"))
    arguments = ["--resume=true", f"--output_dir={tmp_path / 'halves'}", "--steps=4"]
    train(parser.parse(TrainPipelineConfig, arguments))
    expected, found = weights(whole.output_dir, 4), weights(tmp_path / "halves", 4)
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    assert losses(whole.output_dir) == losses(tmp_path / "halves")


def test_a_resume_by_config_path_takes_that_checkpoint(make_config):
    cfg = make_config()
    train(cfg)
    first = weights(cfg.output_dir, 4)
    file = cfg.output_dir / "checkpoints" / "000002" / "pretrained_model" / "train_config.json"
    train(parser.parse(TrainPipelineConfig, ["--resume=true", f"--config_path={file}"]))
    assert all(torch.equal(v, weights(cfg.output_dir, 4)[k]) for k, v in first.items())


def test_an_existing_output_folder_is_refused_and_untouched(make_config):
    cfg = make_config()
    cfg.output_dir.mkdir()
    (cfg.output_dir / "mine").write_text("keep")
    with pytest.raises(FileExistsError, match="--resume=true"):
        train(cfg)
    assert [p.name for p in cfg.output_dir.iterdir()] == ["mine"]


def test_a_missing_dataset_leaves_no_output_folder(make_config, tmp_path):
    cfg = make_config(dataset=DatasetConfig(root=str(tmp_path / "nothing")))
    with pytest.raises(FileNotFoundError, match="--dataset.root"):
        train(cfg)
    assert not cfg.output_dir.exists()


def test_held_out_episodes_are_not_trained_on_and_are_reported(make_config, dataset_root):
    cfg = make_config(dataset=DatasetConfig(root=str(dataset_root), eval_split=0.34), batch_size=100, steps=1)
    train(cfg)
    summary = json.loads((cfg.output_dir / "summary.json").read_text())
    assert summary["held_out_error"]["episodes"] == [2]
    assert np.isfinite(summary["held_out_error"]["overall"])


def test_a_log_line_holds_the_mean_of_what_the_policy_reported_since_the_last(make_config, dataset_root):
    dataset = DatasetConfig(root=str(dataset_root), eval_split=0.34)
    for every in (1, 2):
        cfg = make_config(dataset=dataset, log_freq=every, eval_steps=4, save_freq=4)
        cfg.output_dir = cfg.output_dir.with_name(f"every{every}")
        train(cfg)
    one, two = (read_lines(cfg.output_dir.with_name(f"every{n}") / "metrics.jsonl") for n in (1, 2))
    for name in ("loss", "l1_loss", "kld_loss"):
        steps, means = ([row[name] for row in rows if name in row] for rows in (one, two))
        assert len(set(steps)) == 4
        assert means == pytest.approx([(steps[0] + steps[1]) / 2, (steps[2] + steps[3]) / 2], rel=1e-6)
    held_out = two[-1]
    assert held_out["eval/l1_loss"] == held_out["eval/loss"] and "eval/kld_loss" not in held_out
    assert comparable_loss(two) == ("l1_loss", "l1_loss (loss without kld_loss)")


def test_statistics_of_a_fine_tune_come_from_the_new_dataset(make_config, tmp_path):
    cfg = make_config(steps=1)
    train(cfg)
    folder = cfg.output_dir / "checkpoints" / "last" / "pretrained_model"
    file = folder / "policy_preprocessor_step_3_normalizer_processor.safetensors"
    from safetensors.torch import save_file

    stats = load_file(file)
    expected = stats["action.mean"].clone()
    save_file({**stats, "action.mean": expected + 5}, file)
    flags = [f"--policy.path={folder}", f"--dataset.root={cfg.dataset.root}", "--steps=1", "--num_workers=0"]
    tuned = parser.parse(TrainPipelineConfig, [*flags, f"--output_dir={tmp_path / 'tuned'}"])
    train(tuned)
    saved = tmp_path / "tuned/checkpoints/last/pretrained_model" / file.name
    assert torch.equal(load_file(saved)["action.mean"], expected)


def test_a_loss_that_is_not_finite_stops_before_anything_is_saved(make_config, monkeypatch):
    from lerobot.common.policies.act.modeling_act import ACTPolicy

    forward = ACTPolicy.forward
    monkeypatch.setattr(ACTPolicy, "forward", lambda self, batch: (forward(self, batch)[0] * float("nan"), {}))
    cfg = make_config()
    with pytest.raises(ValueError, match="loss became nan"):
        train(cfg)
    assert not (cfg.output_dir / "checkpoints").exists()


def test_the_smoke_run_resumes_to_the_same_losses_and_checks_the_plan(make_config, capsys, caplog):
    cfg = make_config(steps=300, save_freq=100, save_total_limit=1)  # a limit must not delete what it resumes from
    cfg.typed_flags["policy.path"] = "lerobot/smolvla_base"  # what koch_train_smolvla.sh types where there is a GPU
    cfg.eval_steps, cfg.dataset.eval_split = 100, 0.34
    smoke(cfg, train)
    assert "Smoke run passed" in capsys.readouterr().out
    assert "plan.save_freq" not in caplog.text


def test_a_smoke_run_takes_as_many_episodes_as_there_are(make_config, tmp_path):
    cfg = make_config()
    assert first_episodes(cfg) == [0, 1]
    cfg.dataset.root = str(record_dataset(tmp_path / "one", episodes=1))
    assert first_episodes(cfg) == [0]


def test_a_split_that_holds_no_episode_out_is_told(make_config, caplog):
    cfg = make_config(dataset=DatasetConfig(root=make_config().dataset.root, eval_split=0.1))
    assert split_episodes(cfg) == (None, []) and "--dataset.eval_split=0.1 of 3 episodes" in caplog.text
    cfg.eval_steps = 2
    with pytest.raises(ValueError, match="--eval_steps=2"):
        split_episodes(cfg)


def test_episodes_too_short_for_the_policy_are_told_before_training(make_config):
    cfg = make_config()
    cfg.policy.drop_n_last_frames = 12
    with pytest.raises(ValueError, match="--policy.drop_n_last_frames=12"):
        make_plan(LeRobotDataset(root=cfg.dataset.root), cfg)


def test_a_gradient_that_is_no_number_stops_before_anything_is_saved():
    tracker = MetricsTracker(1, 1, 1, {"loss": AverageMeter("loss"), "grad_norm": AverageMeter("grdn")})
    tracker.loss, tracker.grad_norm = 1.0, float("inf")
    with pytest.raises(ValueError, match="gradient became inf before step 3"):
        require_finite(tracker, 3)
    require_finite(tracker, 3, scaled=True)  # such a step is skipped


def test_cameras_are_renamed_to_those_of_the_checkpoint(make_config, tmp_path):
    cfg = make_config(steps=1)
    train(cfg)
    folder = cfg.output_dir / "checkpoints" / "last" / "pretrained_model"
    rename = '--rename_map={"observation.images.laptop": "observation.images.camera1"}'
    flags = [f"--dataset.root={cfg.dataset.root}", "--steps=1", "--num_workers=0", rename]
    tuned = [f"--policy.path={folder}", f"--output_dir={tmp_path / 'tuned'}"]
    train(parser.parse(TrainPipelineConfig, flags + tuned))
    saved = tmp_path / "tuned/checkpoints/last/pretrained_model"
    assert "observation.images.camera1" in json.loads((saved / "config.json").read_text())["input_features"]
    steps = json.loads((saved / "policy_preprocessor.json").read_text())["steps"]
    assert steps[0]["config"]["rename_map"] == {"observation.images.laptop": "observation.images.camera1"}
    with pytest.raises(ValueError, match="--policy.path"):
        train(parser.parse(TrainPipelineConfig, [*flags, "--policy.type=act"]))
