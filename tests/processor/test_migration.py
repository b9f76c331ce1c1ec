"""Statistics inside the weights of legacy checkpoints."""

import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from lerobot.common.processor import (
    create_transition,
    make_default_pre_post_processors,
    statistics_from_legacy_state,
)
from lerobot.common.processor.migrate_policy_normalization import default_output, migrate
from lerobot.configs.types import FeatureType, PolicyFeature

CAMERA = "observation.images.wrist_left"


def legacy_state():
    """What LeRobot 0.1 puts into model.safetensors: every dot of a feature name became an underscore."""
    ones = torch.ones
    return {
        "model.layer.weight": ones(1),
        "normalize_inputs.buffer_observation_state.min": ones(2),
        "normalize_inputs.buffer_observation_state.max": ones(2) * 3,
        "normalize_inputs.buffer_observation_images_wrist_left.mean": ones(3, 1, 1) * 0.5,
        "normalize_inputs.buffer_observation_images_wrist_left.std": ones(3, 1, 1) * 0.25,
        "normalize_inputs.buffer_observation_environment_state.mean": ones(5),
        "normalize_targets.buffer_action.mean": ones(2) * 4,
        "normalize_targets.buffer_action.std": ones(2),
        "unnormalize_outputs.buffer_action.mean": ones(2) * 4,
        "unnormalize_outputs.buffer_action.std": ones(2),
    }


def test_features_with_underscores_get_their_statistics(config):
    stats, remaining = statistics_from_legacy_state(legacy_state(), config)
    assert list(remaining) == ["model.layer.weight"]
    assert set(stats) == {"observation.state", CAMERA, "observation.environment_state", "action"}
    assert set(stats["action"]) == {"mean", "std"} and stats[CAMERA]["std"].flatten()[0] == 0.25


def test_processors_built_from_them_compute(config, frame):
    stats, _ = statistics_from_legacy_state(legacy_state(), config)
    pre, post = make_default_pre_post_processors(config, stats)
    batch = pre(frame)
    assert batch["observation.state"].tolist() == [[-1.0, -2.0]]
    assert batch[CAMERA].unique().tolist() == pytest.approx([1.0])
    assert batch["observation.environment_state"].tolist() == [[0, 1, 2, 3, 4]], "ENV has no mode"
    assert post(torch.zeros(1, 2)).tolist() == [[4.0, 4.0]]


@pytest.mark.parametrize("lost", ["unnormalize_outputs", "normalize_targets"])
def test_action_statistics_are_found_in_either_module(config, lost):
    state = {k: v for k, v in legacy_state().items() if not k.startswith(lost)}
    assert set(statistics_from_legacy_state(state, config)[0]["action"]) == {"mean", "std"}


def test_unnormalize_outputs_counts_where_modules_differ(config):
    state = legacy_state() | {"normalize_targets.buffer_action.mean": torch.zeros(2)}
    assert statistics_from_legacy_state(state, config)[0]["action"]["mean"].tolist() == [4, 4]


def test_weights_without_statistics_are_returned_as_they_are(config):
    state = {"model.a": torch.ones(1), "model.normalize.weight": torch.ones(1)}
    stats, remaining = statistics_from_legacy_state(state, config)
    assert stats == {} and remaining == state


def test_statistics_of_compiled_models_are_found(config):
    state = {f"_orig_mod.{k}": v for k, v in legacy_state().items()}
    stats, remaining = statistics_from_legacy_state(state, config)
    assert "action" in stats and list(remaining) == ["_orig_mod.model.layer.weight"]


def test_statistics_that_were_never_set_are_left_out_and_then_missed(config, caplog):
    state = legacy_state() | {"normalize_inputs.buffer_observation_state.min": torch.full((2,), torch.inf)}
    with caplog.at_level(logging.WARNING):
        stats, _ = statistics_from_legacy_state(state, config)
    assert "observation.state" not in stats and "never set" in caplog.text
    pre, _ = make_default_pre_post_processors(config, stats)
    with pytest.raises(ValueError, match="requires .* stats, but of feature 'observation.state'"):
        pre({"observation.state": torch.zeros(1, 2)})


def test_statistics_of_unknown_features_are_reported(config, caplog):
    with caplog.at_level(logging.WARNING):
        statistics_from_legacy_state({"normalize_inputs.buffer_observation_foo.mean": torch.ones(1)}, config)
    assert "observation_foo" in caplog.text


def multi_dataset_state(*datasets):
    return {
        f"{module}.{d}_buffer_{feature}.{stat}": torch.full((2,), float(i))
        for i, d in enumerate(datasets)
        for module, feature in (("normalize_inputs", "observation_state"), ("unnormalize_outputs", "action"))
        for stat in ("mean", "std", "min", "max")
    }


def test_statistics_of_one_named_dataset_are_used(config):
    stats, remaining = statistics_from_legacy_state(multi_dataset_state("so100"), config)
    assert set(stats) == {"observation.state", "action"} and remaining == {}


def test_statistics_of_several_datasets_are_not_chosen_silently(config, caplog):
    state = multi_dataset_state("so100", "so100-red", "so100-blue")
    with caplog.at_level(logging.WARNING):
        stats, remaining = statistics_from_legacy_state(state, config)
    assert "so100, so100-blue, so100-red" in caplog.text and remaining == {}
    assert "so100-red.buffer.action" in stats and "action" not in stats
    _, post = make_default_pre_post_processors(config, stats)
    with pytest.raises(ValueError, match="so100-red.buffer.action"):
        post(torch.zeros(1, 2))
    chosen, _ = statistics_from_legacy_state(state, config, dataset="so100-red")
    assert chosen["action"]["mean"].tolist() == [1, 1]
    with pytest.raises(ValueError, match="no statistics of 'so101', only of so100"):
        statistics_from_legacy_state(state, config, dataset="so101")


def test_the_published_smolvla_base_state_normalizes_nothing_silently_no_more(config):
    """Its processor files hold statistics under so100.buffer.action and the like, which match no feature."""
    _, post = make_default_pre_post_processors(config)
    names = ("so100.buffer.action", "so100-red.buffer.action")
    post[0].load_state_dict({f"{n}.{stat}": torch.ones(2) for n in names for stat in ("mean", "std")})
    with pytest.raises(ValueError, match="'action'.*so100.buffer.action"):
        post[0](create_transition(action=torch.zeros(1, 2)))


def legacy_act_checkpoint(folder):
    """A small ACT as LeRobot 0.1 saved it: statistics in model.safetensors, no processor files."""
    from lerobot.common.policies.act.configuration_act import ACTConfig
    from lerobot.common.policies.act.modeling_act import ACTPolicy

    state, action = PolicyFeature(FeatureType.STATE, (2,)), PolicyFeature(FeatureType.ACTION, (2,))
    features = {
        "observation.state": state,
        "observation.environment_state": PolicyFeature(FeatureType.ENV, (5,)),
    }
    layers = {"n_encoder_layers": 1, "n_vae_encoder_layers": 1}
    sizes = {"dim_model": 16, "n_heads": 2, "dim_feedforward": 16, "latent_dim": 4, "chunk_size": 4}
    policy = ACTPolicy(
        ACTConfig(
            input_features=features,
            output_features={"action": action},
            device="cpu",
            n_action_steps=4,
            **layers,
            **sizes,
        )
    )
    policy.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    means = {f"normalize_inputs.buffer_observation_state.{s}": torch.full((2,), 2.0) for s in ("mean", "std")}
    actions = {f"unnormalize_outputs.buffer_action.{s}": torch.full((2,), 5.0) for s in ("mean", "std")}
    save_file({**weights, **means, **actions}, folder / "model.safetensors")
    return policy


def test_the_migration_command_writes_a_checkpoint_with_processors(tmp_path):
    from lerobot.common.policies.factory import make_pre_post_processors

    policy = legacy_act_checkpoint(tmp_path / "old")
    folder = migrate(str(tmp_path / "old"))
    assert folder == tmp_path / "old_migrated"
    weights = load_file(folder / "model.safetensors")
    assert not any("buffer_" in key for key in weights)
    assert all(torch.equal(weights[k], v) for k, v in policy.state_dict().items())
    pre, post = make_pre_post_processors(policy.config, folder)
    batch = pre({"observation.state": torch.tensor([4.0, 2.0]), "observation.environment_state": torch.ones(5)})
    assert batch["observation.state"].tolist() == [[1.0, 0.0]]
    assert batch["observation.environment_state"].tolist() == [[1.0] * 5]
    assert post(torch.ones(1, 2)).tolist() == [[10.0, 10.0]]


def test_a_hub_checkpoint_is_migrated_into_the_working_directory():
    assert str(default_output("someone/old_act")) == "someone_old_act_migrated"
