"""Flat batches <-> transitions, and values <-> tensors."""

import numpy as np
import pytest
import torch

from lerobot.common.processor import (
    TransitionKey,
    batch_to_transition,
    create_transition,
    from_tensor_to_numpy,
    observation_to_transition,
    policy_action_to_transition,
    robot_action_observation_to_transition,
    robot_action_to_transition,
    to_tensor,
    transition_to_batch,
    transition_to_observation,
    transition_to_policy_action,
    transition_to_robot_action,
)

BATCH = {
    "observation.state": torch.zeros(2, 3),
    "observation.images.top_is_pad": torch.zeros(2, 1, dtype=torch.bool),
    "action": torch.ones(2, 4),
    "action_is_pad": torch.zeros(2, 4, dtype=torch.bool),
    "next.reward": torch.tensor([1.0, 2.0]),
    "task": ["a", "b"],
    "index": torch.tensor([5, 6]),
    "task_index": torch.tensor([0, 1]),
    "frame_index": torch.tensor([0, 1]),
    "robot_type": "koch",
}


def test_a_batch_is_sorted_by_role():
    t = batch_to_transition(BATCH)
    assert set(t) == set(TransitionKey)
    assert set(t["observation"]) == {"observation.state", "observation.images.top_is_pad"}
    assert set(t["complementary_data"]) == {
        "observation.images.top_is_pad",
        "action_is_pad",
        "task",
        "index",
        "task_index",
    }
    assert t["action"] is BATCH["action"] and t["reward"] is BATCH["next.reward"]
    assert (t["done"], t["truncated"], t["info"]) == (False, False, {})


def test_a_batch_keeps_what_has_a_role_and_gains_defaults():
    batch = transition_to_batch(batch_to_transition(BATCH))
    assert set(batch) == set(BATCH) - {"frame_index", "robot_type"} | {"next.done", "next.truncated", "info"}
    assert all(batch[k] is BATCH[k] for k in set(batch) & set(BATCH))
    assert transition_to_batch(batch_to_transition({}))["action"] is None
    assert batch_to_transition({"task": "a"})["observation"] is None


def test_enum_members_and_strings_are_one_key():
    t = create_transition(reward=2.0)
    assert t[TransitionKey.REWARD] == t["reward"] == 2.0
    assert (t["observation"], t["action"], t["info"], t["complementary_data"]) == (None, None, {}, {})


@pytest.mark.parametrize(
    ("convert", "wrong"),
    [
        (batch_to_transition, [1]),
        (batch_to_transition, {"action": np.zeros(3)}),
        (policy_action_to_transition, np.zeros(3)),
        (transition_to_policy_action, create_transition(action={"a": 1})),
        (robot_action_to_transition, torch.zeros(1)),
        (transition_to_robot_action, create_transition(action=torch.zeros(1))),
        (observation_to_transition, None),
        (transition_to_observation, create_transition()),
        (robot_action_observation_to_transition, [{}, {}]),
        (robot_action_observation_to_transition, ({}, 3)),
    ],
)
def test_wrong_types_are_refused(convert, wrong):
    with pytest.raises(ValueError, match="should be a|must be a"):
        convert(wrong)


def test_action_and_observation_pairs():
    t = robot_action_observation_to_transition(({"a": 1}, None))
    assert t["action"] == {"a": 1} and t["observation"] is None
    assert transition_to_observation(observation_to_transition({"x": 1})) == {"x": 1}


def test_to_tensor_converts_numbers_arrays_lists_and_dicts():
    nested = to_tensor({"a": 1, "b": None, "c": {"d": np.arange(2)}, "e": {}})
    assert set(nested) == {"a", "c", "e"} and nested["e"] == {}
    assert nested["c"]["d"].dtype is torch.float32
    assert to_tensor(np.array(3)).shape == ()
    assert to_tensor(np.float64(2.5)).item() == 2.5
    assert to_tensor([1, 2], dtype=None).dtype is torch.int64
    assert to_tensor(np.zeros(2, np.uint8), dtype=None).dtype is torch.uint8
    assert to_tensor(torch.zeros(2), dtype=torch.float64).dtype is torch.float64
    for wrong in ("text", ["text"], object()):
        with pytest.raises(TypeError):
            to_tensor(wrong)


def test_to_tensor_of_an_array_does_not_share_its_memory():
    array = np.zeros(2, np.float32)
    tensor = to_tensor(array)
    array += 1
    assert tensor.sum() == 0


def test_from_tensor_to_numpy():
    assert from_tensor_to_numpy(torch.tensor([2.5])) == 2.5
    assert isinstance(from_tensor_to_numpy(torch.zeros(2)), np.ndarray)
    assert from_tensor_to_numpy("x") == "x"
