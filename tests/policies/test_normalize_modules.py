"""The normalization modules of the legacy layout."""

import pytest
import torch

from lerobot.common.policies.normalize import Normalize, Unnormalize
from lerobot.common.processor import NormalizerProcessorStep, create_transition
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature

FEATURES = {
    "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
    "observation.images.top": PolicyFeature(FeatureType.VISUAL, (3, 4, 5)),
}
MODES = {"STATE": NormalizationMode.MIN_MAX, "VISUAL": NormalizationMode.MEAN_STD}
STATS = {
    "observation.state": {"min": torch.tensor([-90.0, 0.0]), "max": torch.tensor([90.0, 10.0])},
    "observation.images.top": {"mean": torch.full((3, 1, 1), 0.5), "std": torch.full((3, 1, 1), 0.2)},
}


def test_they_agree_with_the_processors_and_undo_each_other():
    batch = {"observation.state": torch.rand(2, 2), "observation.images.top": torch.rand(2, 3, 4, 5), "task": "x"}
    normalized = Normalize(FEATURES, MODES, STATS)(batch)
    step = NormalizerProcessorStep(FEATURES, MODES, STATS)
    observation = {k: v for k, v in batch.items() if k != "task"}
    for name, value in step(create_transition(observation))["observation"].items():
        torch.testing.assert_close(normalized[name], value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            Unnormalize(FEATURES, MODES, STATS)(normalized)[name], batch[name], rtol=1e-5, atol=1e-5
        )
    assert normalized["task"] == "x"


def test_statistics_are_frozen_parameters_under_the_legacy_names():
    module = Normalize(FEATURES, MODES, STATS)
    assert sorted(module.state_dict()) == [
        "buffer_observation_images_top.mean",
        "buffer_observation_images_top.std",
        "buffer_observation_state.max",
        "buffer_observation_state.min",
    ]
    assert not any(p.requires_grad for p in module.parameters())
    empty = Normalize(FEATURES, MODES)
    with pytest.raises(AssertionError, match="infinity"):
        empty({"observation.state": torch.zeros(1, 2)})
    empty.load_state_dict(module.state_dict())
    assert empty({"observation.state": torch.zeros(1, 2)})["observation.state"].tolist()[0][1] == -1
