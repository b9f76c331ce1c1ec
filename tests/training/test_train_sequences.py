"""Training runs of policies that look at several observations: Diffusion, and VQ-BeT with its two phases."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lerobot.common.policies import DiffusionConfig, VQBeTConfig
from lerobot.configs import parser
from lerobot.configs.train import TrainPipelineConfig
from lerobot.scripts.train import train

VISION = {"crop_shape": (40, 56), "spatial_softmax_num_keypoints": 4, "backbone_width": 16, "backbone_layers": 1}


def diffusion(**changes) -> DiffusionConfig:
    small = {"horizon": 8, "n_action_steps": 4, "down_dims": (8, 16), "diffusion_step_embed_dim": 8}
    schedule = {"scheduler_name": "constant", "drop_n_last_frames": 3, "num_train_timesteps": 8}
    return DiffusionConfig(device="cpu", **{**VISION, **small, **schedule, **changes})


def vqbet(**changes) -> VQBeTConfig:
    small = {"n_obs_steps": 3, "n_action_pred_token": 2, "action_chunk_size": 3, "gpt_block_size": 16}
    gpt = {"gpt_input_dim": 16, "gpt_output_dim": 16, "gpt_hidden_dim": 16, "gpt_n_layer": 1, "gpt_n_head": 2}
    codes = {"vqvae_n_embed": 4, "vqvae_embedding_dim": 8, "vqvae_enc_hidden_dim": 8, "n_vqvae_training_steps": 3}
    return VQBeTConfig(device="cpu", **{**VISION, **small, **gpt, **codes, **changes})


def weights(run) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "last" / "pretrained_model" / "model.safetensors")


def rows(run) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("policy", [diffusion, vqbet])
def test_a_run_resumed_halfway_is_the_same_run(make_config, policy):
    cfg = make_config(policy=policy())
    train(cfg)
    expected, losses = weights(cfg.output_dir), [row["loss"] for row in rows(cfg.output_dir)]
    file = cfg.output_dir / "checkpoints" / "000002" / "pretrained_model" / "train_config.json"
    train(parser.parse(TrainPipelineConfig, ["--resume=true", f"--config_path={file}"]))
    assert all(torch.equal(v, weights(cfg.output_dir)[k]) for k, v in expected.items())
    assert [row["loss"] for row in rows(cfg.output_dir)] == losses


@pytest.mark.parametrize("policy", [diffusion, vqbet])
def test_one_observation_step_trains(make_config, policy):
    cfg = make_config(policy=policy(n_obs_steps=1), steps=4, save_freq=0)
    train(cfg)
    assert len(rows(cfg.output_dir)) == 4


def test_vqbet_reports_the_numbers_of_its_phase(make_config):
    cfg = make_config(policy=vqbet())
    train(cfg)
    phases = ["recon_l1_error" in row for row in rows(cfg.output_dir)]
    assert phases == [True, True, True, False]
    assert "equal_primary_code_rate" in rows(cfg.output_dir)[-1]


def test_presets_of_optimizer_and_schedule_are_used(make_config):
    cfg = make_config(policy=vqbet(), steps=1)
    train(cfg)
    state = cfg.output_dir / "checkpoints" / "last" / "training_state"
    groups = json.loads((state / "optimizer_param_groups.json").read_text())
    assert [(g["initial_lr"], g["weight_decay"]) for g in groups] == [(1e-4, 1e-6), (1e-3, 1e-4), (1e-4, 0.0)]


@pytest.mark.parametrize("policy", [diffusion, vqbet])
def test_a_picture_smaller_than_the_crop_is_refused_by_name(make_config, policy):
    with pytest.raises(ValueError, match="crop_shape=.*observation.images.laptop.*48x64"):
        train(make_config(policy=policy(crop_shape=(84, 84))))
