"""What a VQ-BeT configuration accepts, and its presets."""

import logging

import pytest

from lerobot.common.policies.vqbet.configuration_vqbet import VQBeTConfig
from lerobot.configs.policies import PreTrainedConfig

from .conftest import config_of, policy_of


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"vision_backbone": "vgg16"}, "vision_backbone='vgg16'.*ResNet"),
        ({"gpt_n_head": 5}, "gpt_hidden_dim=24.*gpt_n_head=5"),
        ({"action_chunk_size": 0}, "action_chunk_size=0"),
    ],
)
def test_values_that_do_not_go_together_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        config_of(**changes)


@pytest.mark.parametrize(
    "features, words",
    [
        ({"cameras": {}}, "exactly one camera, found 0"),
        ({"cameras": {"a": (3, 40, 48), "b": (3, 40, 48)}}, r"found 2.*--policy.cameras=\[NAME\]"),
        ({"state": None}, "needs 'observation.state'"),
        ({"cameras": {"a": (3, 30, 60)}}, r"crop_shape=\(32, 36\) is larger than 'observation.images.a'"),
        ({"gpt_block_size": 9}, "gpt_block_size=9.*10 tokens"),
        ({"pretrained_backbone_weights": "ResNet18_Weights.IMAGENET1K_V1"}, "use_group_norm=false"),
    ],
)
def test_features_that_cannot_be_used_are_refused(features, words):
    with pytest.raises(ValueError, match=words):
        policy_of(config_of(**features))


def test_mps_is_refused():
    config = config_of()
    config.device = "mps"
    with pytest.raises(NotImplementedError, match="--policy.device=cpu"):
        policy_of(config)


def test_presets():
    config = VQBeTConfig(device="cpu")
    optimizer, scheduler = config.get_optimizer_preset(), config.get_scheduler_preset()
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("adam", 1e-4, 1e-6)
    assert (optimizer.betas, optimizer.eps, optimizer.grad_clip_norm) == ((0.95, 0.999), 1e-8, 10.0)
    assert (scheduler.type, scheduler.num_warmup_steps, scheduler.num_vqvae_training_steps) == ("vqbet", 500, 20000)
    assert config.observation_delta_indices == list(range(-4, 1))
    assert config.action_delta_indices == list(range(-4, 7)) and config.reward_delta_indices is None


def test_a_configuration_of_0_1_0_with_its_unused_field_is_read(tmp_path, caplog):
    (tmp_path / "config.json").write_text('{"type": "vqbet", "mlp_hidden_dim": 1024, "gpt_n_layer": 3}')
    assert PreTrainedConfig.from_pretrained(tmp_path).gpt_n_layer == 3
    assert "mlp_hidden_dim" in caplog.text


@pytest.mark.parametrize("steps, done, warned", [(20, 0, True), (21, 0, False), (15, 5, True), (5, 20, False)])
def test_a_run_that_ends_in_the_first_phase_is_warned_of(steps, done, warned, caplog):
    config = config_of(n_vqvae_training_steps=20, n_vqvae_steps_done=done)
    with caplog.at_level(logging.WARNING):
        config.warn_of_short_training(steps)
    assert ("--policy.n_vqvae_training_steps" in caplog.text) == warned
