"""Between the flat batches and tensors that callers hold and the transitions that steps work on."""

from __future__ import annotations

from numbers import Number
from typing import Any

import numpy as np
import torch

from lerobot.common.constants import ACTION, DONE, INFO, OBS_PREFIX, REWARD, SUBTASK, TASK, TRUNCATED
from lerobot.common.processor.core import EnvTransition, PolicyAction, TransitionKey

# What the errors demand, in the terms of the type aliases.
TRANSITION_DICT = "Transition should be a EnvTransition type (dict)"
ACTION_TENSOR = "Action should be a PolicyAction type (tensor)"
ACTION_DICT = "Action should be a RobotAction type (dict)"
OBSERVATION_DICT = "Observation should be a RobotObservation type (dict)"
# What a batch holds beside observations, actions and outcomes, and what steps may need.
COMPLEMENTARY_KEYS = (TASK, SUBTASK, "index", "task_index", "episode_index")
PAD_MARKER = "_is_pad"
# Part of a transition, its key in a batch, its value where the batch has none.
OUTCOMES = (
    (TransitionKey.REWARD, REWARD, 0.0),
    (TransitionKey.DONE, DONE, False),
    (TransitionKey.TRUNCATED, TRUNCATED, False),
)


def create_transition(
    observation: dict[str, Any] | None = None,
    action: Any = None,
    reward: Any = 0.0,
    done: Any = False,
    truncated: Any = False,
    info: dict[str, Any] | None = None,
    complementary_data: dict[str, Any] | None = None,
) -> EnvTransition:
    """A transition with all seven keys."""
    parts = (observation, action, reward, done, truncated, info or {}, complementary_data or {})
    return dict(zip(TransitionKey, parts, strict=True))


def batch_to_transition(batch: dict[str, Any]) -> EnvTransition:
    """Sort the keys of a flat batch by role; keys without a role (frame_index, robot_type...) are dropped.

    Raises ValueError if `batch` is not a dict or its action is not a tensor.
    """
    _require(batch, dict, "EnvTransition must be a dictionary")
    action = batch.get(ACTION)
    if action is not None:
        _require(action, torch.Tensor, ACTION_TENSOR)
    return create_transition(
        observation={k: v for k, v in batch.items() if k.startswith(OBS_PREFIX)} or None,
        action=action,
        **{part.value: batch.get(key, default) for part, key, default in OUTCOMES},
        info=batch.get(INFO),
        complementary_data={k: v for k, v in batch.items() if PAD_MARKER in k or k in COMPLEMENTARY_KEYS},
    )


def transition_to_batch(transition: EnvTransition) -> dict[str, Any]:
    """The flat batch of a transition; action (perhaps None), outcomes and info are always there."""
    _require(transition, dict, TRANSITION_DICT)
    return {
        ACTION: transition.get(TransitionKey.ACTION),
        **{key: transition.get(part, default) for part, key, default in OUTCOMES},
        INFO: transition.get(TransitionKey.INFO, {}),
        **(transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}),
        **(transition.get(TransitionKey.OBSERVATION) or {}),
    }


def policy_action_to_transition(action: PolicyAction) -> EnvTransition:
    """A transition that holds only a policy's action tensor."""
    return create_transition(action=_require(action, torch.Tensor, ACTION_TENSOR))


def transition_to_policy_action(transition: EnvTransition) -> PolicyAction:
    """The action tensor of a transition."""
    transition = _require(transition, dict, TRANSITION_DICT)
    return _require(transition.get(TransitionKey.ACTION), torch.Tensor, ACTION_TENSOR)


def robot_action_to_transition(action: dict[str, Any]) -> EnvTransition:
    """A transition that holds only a robot's action dict."""
    return create_transition(action=_require(action, dict, ACTION_DICT))


def transition_to_robot_action(transition: EnvTransition) -> dict[str, Any]:
    """The action dict of a transition."""
    transition = _require(transition, dict, TRANSITION_DICT)
    return _require(transition.get(TransitionKey.ACTION), dict, ACTION_DICT)


def observation_to_transition(observation: dict[str, Any]) -> EnvTransition:
    """A transition that holds only an observation."""
    return create_transition(observation=_require(observation, dict, OBSERVATION_DICT))


def transition_to_observation(transition: EnvTransition) -> dict[str, Any]:
    """The observation of a transition."""
    transition = _require(transition, dict, TRANSITION_DICT)
    return _require(transition.get(TransitionKey.OBSERVATION), dict, OBSERVATION_DICT)


def robot_action_observation_to_transition(action_observation: tuple[dict | None, dict | None]) -> EnvTransition:
    """A transition from `(action, observation)`; either may be None."""
    pair = _require(
        action_observation, tuple, "action_observation should be a tuple type with an action and observation"
    )
    action, observation = pair
    for part, what in ((action, ACTION_DICT), (observation, OBSERVATION_DICT)):
        if part is not None:
            _require(part, dict, what)
    return create_transition(observation=observation, action=action)


def identity_transition(transition: EnvTransition) -> EnvTransition:
    """The transition itself."""
    return transition


def to_tensor(value: Any, *, dtype: torch.dtype | None = torch.float32, device=None) -> Any:
    """Turn numbers, arrays, lists and (recursively, without their None entries) dicts of these into tensors.

    `dtype=None` keeps the dtype. Raises TypeError for anything else.
    """
    if isinstance(value, dict):
        return {k: to_tensor(v, dtype=dtype, device=device) for k, v in value.items() if v is not None}
    if isinstance(value, torch.Tensor):
        return value.to(device=device, dtype=dtype)
    if isinstance(value, (np.ndarray, np.generic)):
        return torch.from_numpy(np.array(value)).to(device=device, dtype=dtype)
    if isinstance(value, (Number, list, tuple)):
        try:
            return torch.tensor(value, dtype=dtype, device=device)
        except ValueError as e:
            raise TypeError(f"Cannot make a tensor of {value!r}: {e}") from e
    raise TypeError(f"Unsupported type for tensor conversion: {type(value)}; expected numbers, arrays, lists or dicts.")


def from_tensor_to_numpy(x: Any) -> Any:
    """A tensor as a Python number if it has one element, else as an array; other values as they are."""
    if not isinstance(x, torch.Tensor):
        return x
    return x.item() if x.numel() == 1 else x.detach().cpu().numpy()


def _require(value: Any, kind: type, demand: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{demand}, got {type(value)}.")
    return value
