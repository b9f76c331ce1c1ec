"""The transition: the one dict that every processor step reads and returns."""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeAlias, TypedDict

import numpy as np
import torch


class TransitionKey(str, Enum):
    """Keys of a transition; members are strings, so `"observation"` and `TransitionKey.OBSERVATION` are one
    key.
    """

    OBSERVATION = "observation"
    ACTION = "action"
    REWARD = "reward"
    DONE = "done"
    TRUNCATED = "truncated"
    INFO = "info"
    COMPLEMENTARY_DATA = "complementary_data"


PolicyAction: TypeAlias = torch.Tensor  # (A,) or (B, ..., A)
RobotAction: TypeAlias = dict[str, Any]  # one entry per motor or per axis
EnvAction: TypeAlias = np.ndarray
RobotObservation: TypeAlias = dict[str, Any]


class EnvTransition(TypedDict):
    """One step of interaction, or one training batch, divided by role."""

    observation: RobotObservation | None
    action: PolicyAction | RobotAction | EnvAction | None
    reward: float | torch.Tensor
    done: bool | torch.Tensor
    truncated: bool | torch.Tensor
    info: dict[str, Any]
    complementary_data: dict[str, Any]
