"""Statistics in, normalized values out: golden numbers, missing statistics, saved state."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lerobot.common.processor import (
    DataProcessorPipeline,
    NormalizerProcessorStep,
    UnnormalizerProcessorStep,
    create_transition,
    hotswap_stats,
)
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature

GOLDEN = load_file(Path(__file__).parents[1] / "artifacts" / "normalizer" / "tensors.safetensors")
KINDS = {
    "observation.state": FeatureType.STATE,
    "observation.environment_state": FeatureType.ENV,
    "observation.images.cam": FeatureType.VISUAL,
    "action": FeatureType.ACTION,
}
STATE = {"observation.state": PolicyFeature(FeatureType.STATE, (2,))}
MEAN_STD = {"STATE": "MEAN_STD", "VISUAL": "MEAN_STD", "ACTION": "MEAN_STD"}


def golden_stats():
    stats = {}
    for key, value in GOLDEN.items():
        if key.startswith("stats."):
            feature, _, stat = key.removeprefix("stats.").rpartition(".")
            stats.setdefault(feature, {})[stat] = value
    return stats


def observe(step, **observation):
    named = {f"observation.{k}": v for k, v in observation.items()}
    return step(create_transition(observation=named))["observation"]


@pytest.mark.parametrize("mode", list(NormalizationMode))
@pytest.mark.parametrize(
    ("step_class", "direction"), [(NormalizerProcessorStep, "norm"), (UnnormalizerProcessorStep, "unnorm")]
)
def test_values_are_those_of_lerobot_0_4_4(mode, step_class, direction):
    features = {name: PolicyFeature(kind, (1,)) for name, kind in KINDS.items()}
    step = step_class(features, dict.fromkeys(FeatureType, mode), golden_stats())
    inputs = {k.removeprefix("in."): v for k, v in GOLDEN.items() if k.startswith("in.")}
    before = {k: v.clone() for k, v in inputs.items()}
    action = inputs.pop("action")
    out = step(create_transition(observation=inputs, action=action))
    for name, value in {**out["observation"], "action": out["action"]}.items():
        torch.testing.assert_close(value, GOLDEN[f"{direction}.{mode.value}.{name}"], rtol=1e-6, atol=1e-6)
    for name, value in {**inputs, "action": action}.items():
        assert torch.equal(value, before[name]), f"the input {name} was changed in place"


@pytest.mark.parametrize("mode", [m for m in NormalizationMode if m is not NormalizationMode.IDENTITY])
def test_the_unnormalizer_inverts_the_normalizer(mode):
    args = (STATE, {FeatureType.STATE: mode})
    stats = {"observation.state": dict(zip(("mean", "min", "q01", "q10"), [[1.0, -3.0]] * 4, strict=True))}
    stats["observation.state"] |= dict(zip(("std", "max", "q99", "q90"), [[2.0, 5.0]] * 4, strict=True))
    x = torch.tensor([[0.5, 1.5], [7.0, -9.0]])
    there = observe(NormalizerProcessorStep(*args, stats), state=x)
    back = observe(UnnormalizerProcessorStep(*args, stats), state=there["observation.state"])
    torch.testing.assert_close(back["observation.state"], x)


def test_a_constant_component_normalizes_to_minus_one_in_every_float_type():
    stats = {"observation.state": {"min": [3.0, 0.0], "max": [3.0, 1.0]}}
    step = NormalizerProcessorStep(STATE, {"STATE": "MIN_MAX"}, stats)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        out = observe(step, state=torch.tensor([[3.0, 1.0]], dtype=dtype))["observation.state"]
        assert out.dtype is dtype and out.tolist() == [[-1.0, 1.0]]


def test_statistics_are_converted_once_per_dtype():
    step = NormalizerProcessorStep(STATE, MEAN_STD, {"observation.state": {"mean": [0.0, 1], "std": [1, 2]}})
    observe(step, state=torch.zeros(1, 2))
    prepared = dict(step._prepared)
    observe(step, state=torch.zeros(3, 2))
    assert all(step._prepared[k] is v for k, v in prepared.items()) and len(step._prepared) == 1
    observe(step, state=torch.zeros(3, 2, dtype=torch.bfloat16))
    assert len(step._prepared) == 2


def test_missing_statistics_raise_and_name_the_fix(stats):
    step = NormalizerProcessorStep(STATE, MEAN_STD)  # may be built and loaded
    with pytest.raises(ValueError) as e:
        observe(step, state=torch.zeros(1, 2))
    for word in (
        "observation.state",
        "MEAN_STD",
        "mean and std",
        "--dataset.root",
        "normalizer_processor",
        "stats",
    ):
        assert word in str(e.value)
    step = NormalizerProcessorStep(STATE, {"STATE": "QUANTILES"}, stats)
    with pytest.raises(ValueError, match="q01 and q99 stats, but .* there is only min, max, count"):
        observe(step, state=torch.zeros(1, 2))


def test_missing_action_statistics_raise_even_if_action_is_no_feature():
    step = UnnormalizerProcessorStep({}, {"ACTION": "MEAN_STD"}, {"observation.state": {"mean": [0.0]}})
    with pytest.raises(ValueError, match="'action'.*Features with statistics: observation.state"):
        step(create_transition(action=torch.zeros(1, 2)))
    assert step(create_transition())["action"] is None


def test_missing_statistics_pass_if_asked_for():
    step = NormalizerProcessorStep(STATE, MEAN_STD, missing_stats="pass")
    x = torch.ones(1, 2)
    assert observe(step, state=x)["observation.state"] is x
    assert "missing_stats" not in step.get_config()
    with pytest.raises(ValueError, match="missing_stats"):
        NormalizerProcessorStep(STATE, MEAN_STD, missing_stats="ignore")


def test_only_chosen_observations_are_normalized_but_the_action_always(stats):
    features = {**STATE, "observation.b": PolicyFeature(FeatureType.STATE, (2,))}
    both = {"observation.state": {"mean": [1.0, 1], "std": [2, 2]}, "action": {"mean": [1.0], "std": [2.0]}}
    step = NormalizerProcessorStep(
        features, MEAN_STD, {**both, "observation.b": both["observation.state"]},
        normalize_observation_keys={"observation.b"},
    )  # fmt: skip
    out = step(
        create_transition({"observation.state": torch.ones(1, 2), "observation.b": torch.ones(1, 2)}, torch.ones(1, 1))
    )
    assert out["observation"]["observation.state"].tolist() == [[1, 1]]
    assert out["observation"]["observation.b"].tolist() == [[0, 0]]
    assert out["action"].tolist() == [[0]]
    assert step.get_config()["normalize_observation_keys"] == ["observation.b"]


def test_flat_camera_statistics_are_per_channel():
    features = {"observation.image": PolicyFeature(FeatureType.VISUAL, (3, 2, 3))}
    flat = {"observation.image": {"mean": np.array([0.0, 1, 2]), "std": np.ones(3)}}
    out = observe(NormalizerProcessorStep(features, MEAN_STD, flat), image=torch.zeros(1, 3, 2, 3))
    assert out["observation.image"][0, :, 0, 0].tolist() == pytest.approx([0, -1, -2])


def test_byte_pictures_and_foreign_shapes_are_refused():
    features = {"observation.image": PolicyFeature(FeatureType.VISUAL, (3, 2, 3)), **STATE}
    stats = {
        "observation.image": {"mean": [0.0], "std": [1.0]},
        "observation.state": {"mean": [0.0] * 7, "std": [1] * 7},
    }
    step = NormalizerProcessorStep(features, MEAN_STD, stats)
    with pytest.raises(ValueError, match="images_to_float"):
        observe(step, image=torch.zeros(1, 3, 2, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"'observation.state' has shape \(1, 2\), its statistics \(7,\)"):
        observe(step, state=torch.zeros(1, 2))


def test_integers_are_normalized_as_floats():
    step = NormalizerProcessorStep(STATE, MEAN_STD, {"observation.state": {"mean": [0.5, 0.5], "std": [2, 2]}})
    assert observe(step, state=torch.ones(1, 2, dtype=torch.int64))["observation.state"].tolist() == [[0.25, 0.25]]


def test_a_non_tensor_action_is_refused():
    with pytest.raises(ValueError, match="should be a PolicyAction"):
        NormalizerProcessorStep(STATE, MEAN_STD)(create_transition(action={"a": 1}))


def test_the_configuration_survives_json_and_the_state_keeps_every_statistic(stats):
    features = {**STATE, "action": PolicyFeature(FeatureType.ACTION, (2,))}
    step = NormalizerProcessorStep(features, {"STATE": "MIN_MAX", "ACTION": "MEAN_STD"}, stats)
    loaded = NormalizerProcessorStep(**json.loads(json.dumps(step.get_config())))
    loaded.load_state_dict(step.state_dict())
    assert loaded.get_config() == step.get_config()
    assert loaded.features == features
    state = loaded.state_dict()
    assert set(state) >= {"timestamp.mean", "observation.state.count", "action.std"}
    assert all(v.dtype is torch.float32 for v in state.values())
    assert state["timestamp.mean"].shape == (1,)
    x = torch.tensor([[1.0, 2.0]])
    assert torch.equal(observe(loaded, state=x)["observation.state"], observe(step, state=x)["observation.state"])


def test_statistics_given_explicitly_win_over_the_file():
    given = {"observation.state": {"mean": [0.0, 0], "std": [1.0, 1]}}
    step = NormalizerProcessorStep(STATE, MEAN_STD, given)
    step.load_state_dict({"observation.state.mean": torch.full((2,), 9.0)})
    assert step.state_dict()["observation.state.mean"].tolist() == [0, 0]


def test_names_whose_underscores_were_turned_into_dots_are_found_with_a_warning(caplog):
    camera = "observation.images.wrist_left"
    features = {camera: PolicyFeature(FeatureType.VISUAL, (3, 2, 3))}
    step = NormalizerProcessorStep(features, MEAN_STD)
    with caplog.at_level(logging.WARNING):
        step.load_state_dict({"observation.images.wrist.left.mean": torch.ones(3, 1, 1),
                              "observation.images.wrist.left.std": torch.ones(3, 1, 1)})  # fmt: skip
    assert camera in caplog.text
    assert step(create_transition({camera: torch.ones(1, 3, 2, 3)}))["observation"][camera].abs().max() == 0


def test_hotswap_gives_a_copy_with_other_statistics(stats):
    old = {"action": {"mean": [1.0], "std": [1.0]}}
    pipeline = DataProcessorPipeline([UnnormalizerProcessorStep({}, MEAN_STD, old)])
    swapped = hotswap_stats(pipeline, {"action": {"mean": [5.0], "std": [1.0]}})
    action = torch.zeros(1, 1)
    assert pipeline.process_action(action).item() == 1
    assert swapped.process_action(action).item() == 5


def test_moving_the_step_changes_the_stored_precision():
    step = NormalizerProcessorStep(STATE, MEAN_STD, {"observation.state": {"mean": [0.0, 0], "std": [1, 1]}})
    assert step.to(dtype=torch.bfloat16) is step
    assert step.state_dict()["observation.state.mean"].dtype is torch.bfloat16
