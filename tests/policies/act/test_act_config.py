"""What an ACT configuration accepts, and its presets."""

import json

import pytest

from lerobot.common.policies.act.configuration_act import ACTConfig
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, PolicyFeature

from .conftest import config_of, policy_of


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"vision_backbone": "vgg16"}, ValueError, "vision_backbone='vgg16'.*ResNet"),
        ({"temporal_ensemble_coeff": 0.01, "n_action_steps": 2}, NotImplementedError, "n_action_steps=1"),
        ({"n_action_steps": 6}, ValueError, "n_action_steps=6.*chunk_size=5"),
        ({"n_obs_steps": 2}, ValueError, "n_obs_steps=2"),
        ({"dim_model": 18, "n_heads": 3}, ValueError, "dim_model=18.*of 4"),
        ({"n_heads": 3}, ValueError, "n_heads=3"),
        ({"backbone_norm": "layer"}, ValueError, "backbone_norm='layer'.*frozen, batch, group"),
        ({"backbone_layers": 5}, ValueError, "backbone_layers=5"),
        ({"replace_final_stride_with_dilation": True}, ValueError, "backbone_layers=4"),
        ({"pretrained_backbone_weights": "ResNet18_Weights.IMAGENET1K_V1"}, ValueError, "weights=null"),
    ],
)
def test_values_that_do_not_go_together_are_refused(changes, error, words):
    with pytest.raises(error, match=words):
        config_of(**changes)


def test_ensembling_with_one_action_step_is_accepted():
    assert config_of(temporal_ensemble_coeff=-0.1, n_action_steps=1).temporal_ensemble_coeff == -0.1


@pytest.mark.parametrize("activation", ["glu", "tanh"])
def test_unusable_activation_is_refused_at_construction(activation):
    with pytest.raises(RuntimeError, match=f"{activation}.*relu or gelu"):
        policy_of(config_of(feedforward_activation=activation))


def test_features_need_a_picture_or_environment_state():
    with pytest.raises(ValueError, match="picture or 'observation.environment_state'"):
        policy_of(config_of(cameras={}))


def test_features_need_an_action():
    config = config_of()
    config.output_features = {}
    with pytest.raises(ValueError, match="predicts 'action'"):
        config.validate_features()


def test_pictures_need_three_channels_in_front():
    with pytest.raises(ValueError, match=r"laptop.*\(480, 640, 3\)"):
        policy_of(config_of(cameras={"laptop": (480, 640, 3)}))


def test_environment_state_under_another_name_is_refused():
    config = config_of()
    config.input_features["observation.goal"] = PolicyFeature(FeatureType.ENV, (2,))
    with pytest.raises(ValueError, match="observation.goal.*observation.environment_state"):
        config.validate_features()


def test_presets():
    config = ACTConfig(device="cpu")
    optimizer = config.get_optimizer_preset()
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("adamw", 1e-5, 1e-4)
    assert (optimizer.betas, optimizer.eps, optimizer.grad_clip_norm) == ((0.9, 0.999), 1e-8, 10.0)
    assert config.get_scheduler_preset() is None
    assert config.action_delta_indices == list(range(100))
    assert config.observation_delta_indices is None and config.reward_delta_indices is None


def test_own_fields_stand_in_extras_only(tmp_path):
    config = config_of(loss_over_padding=True)
    config._save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert not {"backbone_width", "backbone_norm", "backbone_layers", "loss_over_padding"} & set(written)
    assert json.loads((tmp_path / "extras.json").read_text())["backbone_width"] == 8
    assert PreTrainedConfig.from_pretrained(tmp_path) == config


@pytest.mark.parametrize("value", ["true", "false", "1", "0"])
def test_dilation_is_read_as_bool_and_as_integer(tmp_path, value):
    (tmp_path / "config.json").write_text(
        '{"type": "act", "vision_backbone": "resnet50", "pretrained_backbone_weights": null, '
        f'"replace_final_stride_with_dilation": {value}}}'
    )
    config = PreTrainedConfig.from_pretrained(tmp_path)
    assert bool(config.replace_final_stride_with_dilation) == (value in ("true", "1"))
