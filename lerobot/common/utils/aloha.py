"""Signs and gripper units that pi0's base model was trained with, for 14-dimensional Aloha data."""

from __future__ import annotations

import torch
from torch import Tensor

FLIPPED_JOINTS = (1, 2, 8, 9)
GRIPPERS = (6, 13)


def normalize(x, min_val: float, max_val: float):
    """Map [min_val, max_val] to [0, 1]."""
    return (x - min_val) / (max_val - min_val)


def unnormalize(x, min_val: float, max_val: float):
    """Map [0, 1] to [min_val, max_val]."""
    return x * (max_val - min_val) + min_val


def safe_arcsin(value: Tensor) -> Tensor:
    """Arcsine of the value cut to [-1, 1]."""
    return torch.arcsin(torch.clamp(value, -1.0, 1.0))


def aloha_gripper_to_angular(value: Tensor) -> Tensor:
    """Aloha's gripper opening (0 to 1, linear) as pi0's angle (0 to 1), by the geometry of the crank."""
    arm, rod = 0.022, 0.036  # metres
    opening = unnormalize(value, 0.01844, 0.05800)
    angle = safe_arcsin((arm**2 + opening**2 - rod**2) / (2 * arm * opening))
    return normalize(angle, 0.4, 1.5)


def aloha_gripper_from_angular(value: Tensor) -> Tensor:
    """pi0's gripper angle (0 to 1) in the range of Aloha's gripper commands."""
    return normalize(unnormalize(value, 0.4, 1.5), -0.6213, 1.4910)


def aloha_gripper_from_angular_inv(value: Tensor) -> Tensor:
    """The inverse of `aloha_gripper_from_angular`."""
    return normalize(unnormalize(value, -0.6213, 1.4910), 0.4, 1.5)


def _convert(vector: Tensor, gripper) -> Tensor:
    signs = torch.ones(vector.shape[-1], dtype=vector.dtype, device=vector.device)
    signs[list(FLIPPED_JOINTS)] = -1
    vector = vector * signs
    vector[..., GRIPPERS] = gripper(vector[..., GRIPPERS])
    return vector


def decode_state(state: Tensor) -> Tensor:
    """Aloha's state `(..., 14)` as pi0 reads it."""
    return _convert(state, aloha_gripper_to_angular)


def encode_actions(actions: Tensor) -> Tensor:
    """Predicted actions `(..., 14)` as Aloha executes them."""
    return _convert(actions, aloha_gripper_from_angular)


def encode_actions_inv(actions: Tensor) -> Tensor:
    """Recorded actions `(..., 14)` as pi0 predicts them."""
    return _convert(actions, aloha_gripper_from_angular_inv)
