"""A step of reinforcement learning as one dict, and moving it between devices."""

from __future__ import annotations

from typing import Any, TypedDict

import torch


class Transition(TypedDict):
    """What happened in one step: tensors by name, `done` and `truncated` flags and anything else of the step."""

    state: dict[str, torch.Tensor]
    action: torch.Tensor
    reward: float
    next_state: dict[str, torch.Tensor]
    done: bool
    truncated: bool
    complementary_info: dict[str, Any] | None


def move_transition_to_device(transition: Transition, device: str | torch.device = "cpu") -> Transition:
    """Put every tensor of a transition on a device, in place; returns it.

    Numbers in `complementary_info` become tensors there.
    """
    for key in ("state", "next_state"):
        transition[key] = move_state_dict_to_device(transition[key], device)
    for key in ("action", "reward", "done", "truncated"):
        transition[key] = _moved(transition[key], device)
    if info := transition.get("complementary_info"):
        transition["complementary_info"] = {
            name: torch.tensor(value, device=device) if isinstance(value, bool | int | float) else _moved(value, device)
            for name, value in info.items()
        }
    return transition


def move_state_dict_to_device(state_dict: Any, device: str | torch.device = "cpu") -> Any:
    """The same nested dicts, lists and tuples with every tensor on a device."""
    if isinstance(state_dict, dict):
        return {key: move_state_dict_to_device(value, device) for key, value in state_dict.items()}
    if isinstance(state_dict, list | tuple):
        return type(state_dict)(move_state_dict_to_device(value, device) for value in state_dict)
    return _moved(state_dict, device)


def _moved(value: Any, device: str | torch.device) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(device, non_blocking=torch.device(device).type == "cuda")
