"""What a Diffusion configuration accepts, and its presets."""

import json

import pytest

from lerobot.common.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, PolicyFeature

from .conftest import config_of, policy_of


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"vision_backbone": "vgg16"}, "vision_backbone='vgg16'.*ResNet"),
        ({"backbone_layers": 5}, "backbone_layers=5"),
        ({"prediction_type": "velocity"}, "prediction_type='velocity'.*epsilon, sample"),
        ({"noise_scheduler_type": "PNDM"}, "noise_scheduler_type='PNDM'.*DDPM, DDIM"),
        ({"horizon": 10}, r"horizon=10.*down_dims\) = 4.*nearest is 8"),
        ({"n_action_steps": 8}, "n_action_steps=8: expected 1 to 7.*horizon=8.*n_obs_steps=2"),
        ({"kernel_size": 4}, "kernel_size=4.*odd"),
        ({"n_groups": 5}, r"\[16, 32\].*n_groups=5"),
        ({"down_dims": (12, 32)}, r"down_dims=\(12, 32\).*8"),
        ({"diffusion_step_embed_dim": 2}, "diffusion_step_embed_dim=2"),
        ({"resize_shape": (20, 20), "crop_ratio": 0.0}, "crop_ratio=0.0"),
    ],
)
def test_values_that_do_not_go_together_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        config_of(**changes)


@pytest.mark.parametrize(
    "features, words",
    [
        ({"cameras": {}}, "picture or 'observation.environment_state'"),
        ({"state": None}, "needs 'observation.state'"),
        ({"cameras": {"a": (3, 30, 60)}}, r"crop_shape=\(32, 36\) is larger than 'observation.images.a' with 30x60"),
        ({"cameras": {"a": (3, 40, 48), "b": (3, 48, 40)}}, "cameras of one size.*image_size"),
        ({"cameras": {"a": (40, 48, 3)}}, r"\(40, 48, 3\); 'diffusion' takes pictures \(3, H, W\)"),
        ({"pretrained_backbone_weights": "ResNet18_Weights.IMAGENET1K_V1"}, "use_group_norm=false"),
        (
            {"pretrained_backbone_weights": "DEFAULT", "use_group_norm": False},
            "backbone_width=16.*pretrained_backbone_weights=null",
        ),
    ],
)
def test_features_that_cannot_be_used_are_refused(features, words):
    with pytest.raises(ValueError, match=words):
        policy_of(config_of(**features))


def test_the_crop_is_held_against_the_resized_picture():
    config_of(cameras={"a": (3, 20, 20)}, image_size=(40, 40)).validate_features()
    with pytest.raises(ValueError, match="20x20"):
        config_of(cameras={"a": (3, 60, 60)}, image_size=(20, 20)).validate_features()


@pytest.mark.parametrize("ratio, crop", [(1.0, None), (0.75, (30, 37))])
def test_resizing_inside_the_network_decides_the_crop(ratio, crop):
    assert config_of(resize_shape=(40, 50), crop_ratio=ratio).crop_shape == crop


def test_environment_state_under_another_name_is_refused():
    config = config_of()
    config.input_features["observation.goal"] = PolicyFeature(FeatureType.ENV, (2,))
    with pytest.raises(ValueError, match="observation.goal.*observation.environment_state"):
        config.validate_features()


def test_presets():
    config = DiffusionConfig(device="cpu")
    optimizer, scheduler = config.get_optimizer_preset(), config.get_scheduler_preset()
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("adam", 1e-4, 1e-6)
    assert (optimizer.betas, optimizer.eps, optimizer.grad_clip_norm) == ((0.95, 0.999), 1e-8, 10.0)
    assert (scheduler.type, scheduler.name, scheduler.num_warmup_steps) == ("diffuser", "cosine", 500)
    assert config.observation_delta_indices == [-1, 0]
    assert config.action_delta_indices == list(range(-1, 15))
    assert config.reward_delta_indices is None and config.drop_n_last_frames == 7


def test_own_fields_stand_in_extras_only(tmp_path):
    config = config_of(loss_over_padding=True)
    config._save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert not {"backbone_width", "backbone_layers", "loss_over_padding", "cameras", "image_size"} & set(written)
    assert PreTrainedConfig.from_pretrained(tmp_path) == config
