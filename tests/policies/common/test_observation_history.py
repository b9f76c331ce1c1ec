"""The window of past observations."""

import pytest
import torch

from lerobot.common.policies.common.observation_history import ObservationHistory
from lerobot.configs.types import FeatureType, PolicyFeature

FEATURES = {"observation.state": PolicyFeature(FeatureType.STATE, (1,))}


def at(*values) -> dict:
    return {"observation.state": torch.tensor(values, dtype=torch.float32).view(1, len(values), 1).squeeze(1)}


def seen(history, batch=None) -> list:
    return history.window(batch or at(-1.0))["observation.state"].flatten().tolist()


def test_the_first_observation_fills_the_history():
    history = ObservationHistory(FEATURES, 3)
    for value, expected in ((1.0, [1, 1, 1]), (2.0, [1, 1, 2]), (3.0, [1, 2, 3]), (4.0, [2, 3, 4])):
        history.append(at(value))
        assert seen(history) == expected


def test_without_a_past_the_present_is_repeated_and_not_remembered():
    history = ObservationHistory(FEATURES, 2)
    assert seen(history, at(5.0)) == [5, 5] and history.is_empty


def test_a_batch_with_a_time_axis_is_used_as_it_is():
    history = ObservationHistory(FEATURES, 2)
    history.append(at(1.0))
    assert seen(history, at(7.0, 8.0)) == [7, 8]


def test_a_time_axis_of_another_length_is_refused():
    with pytest.raises(ValueError, match="observation.state' has 3 steps, n_obs_steps asks for 2"):
        ObservationHistory(FEATURES, 2).window(at(1.0, 2.0, 3.0))


def test_a_missing_feature_is_named():
    with pytest.raises(KeyError, match="observation.state"):
        ObservationHistory(FEATURES, 2).append({"observation.image": torch.zeros(1)})
