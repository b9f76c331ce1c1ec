"""SmolVLA's configuration: defaults, validation, presets, files."""

import json

import pytest

from lerobot.common.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.configs.policies import PreTrainedConfig

from .conftest import ARTIFACTS, tiny_config


def test_more_executed_than_predicted_steps_are_refused():
    with pytest.raises(ValueError, match="n_action_steps=60.*chunk_size=50"):
        SmolVLAConfig(n_action_steps=60)


def test_delta_joint_actions_are_refused():
    with pytest.raises(NotImplementedError):
        SmolVLAConfig(use_delta_joint_actions_aloha=True)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_is_from_0_to_1(share):
    with pytest.raises(ValueError, match="pure_noise_share=.*from 0 to 1"):
        SmolVLAConfig(pure_noise_share=share)


def test_empty_cameras_become_inputs_once():
    config = tiny_config(empty_cameras=2)
    config.validate_features()
    config.validate_features()
    assert list(config.image_features)[2:] == [f"observation.images.empty_camera_{i}" for i in range(2)]
    assert config.image_features["observation.images.empty_camera_1"].shape == (3, 480, 640)


def test_presets_and_frames_of_a_sample():
    config = SmolVLAConfig(device="cpu")
    optimizer, scheduler = config.get_optimizer_preset(), config.get_scheduler_preset()
    assert (optimizer.type, optimizer.lr, optimizer.betas, optimizer.eps) == (
        "adamw",
        1e-4,
        (0.9, 0.95),
        1e-8,
    )
    assert (optimizer.weight_decay, optimizer.grad_clip_norm) == (1e-10, 10)
    assert scheduler.type == "cosine_decay_with_warmup"
    assert (scheduler.num_warmup_steps, scheduler.num_decay_steps) == (1000, 30000)
    assert (scheduler.peak_lr, scheduler.decay_lr) == (1e-4, 2.5e-6)
    assert config.observation_delta_indices == [0]
    assert config.action_delta_indices == list(range(50))
    assert config.reward_delta_indices is None


@pytest.mark.parametrize("name", ["smolvla_default", "smolvla_special"])
def test_a_stored_configuration_is_written_back_unchanged(name, tmp_path):
    source = ARTIFACTS / name / "checkpoint"
    PreTrainedConfig.from_pretrained(source).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads((source / "config.json").read_text())
    assert not (tmp_path / "extras.json").exists()


def test_own_fields_stand_beside_the_configuration(tmp_path):
    config = tiny_config(draws_per_sample=2, optimizer_lr_vision=1e-5)
    config.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert not {"vlm_config", "draws_per_sample", "optimizer_lr_vision"} & set(stored)
    loaded = PreTrainedConfig.from_pretrained(tmp_path)
    assert (loaded.vlm_config, loaded.draws_per_sample) == (config.vlm_config, 2)
    assert loaded.optimizer_lr_vision == 1e-5
