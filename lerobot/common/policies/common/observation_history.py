"""The last observations of an episode, for policies that look at more than one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import torch
from torch import Tensor

from lerobot.common.policies.common.inputs import MissingInputError
from lerobot.common.policies.utils import populate_queues
from lerobot.configs.types import PolicyFeature


class ObservationHistory:
    """Keeps the last `length` observations of each feature; the first one fills the whole history."""

    def __init__(self, features: dict[str, PolicyFeature], length: int):
        self.features, self.length = features, length
        self._queues: dict[str, deque[Tensor]] = {key: deque(maxlen=length) for key in features}

    @property
    def is_empty(self) -> bool:
        """Whether nothing was observed since the start of the episode."""
        return not any(self._queues.values())

    def append(self, batch: dict[str, Tensor]) -> None:
        """Add one observation, each feature (B, ...); a KeyError names a feature that the batch lacks."""
        self._require(batch)
        populate_queues(self._queues, batch)

    def window(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Observations (B, length, ...): those of the batch if it has a time axis, else those kept.

        While nothing is kept, the batch's one observation is repeated. ValueError for a time axis of another length.
        """
        if self.is_empty or self._have_time(batch):
            self._require(batch)
            return {key: self._stretched(key, batch[key]) for key in self.features}
        return {key: torch.stack(list(queue), dim=1) for key, queue in self._queues.items()}

    def _has_time(self, key: str, value: Tensor) -> bool:
        return value.dim() == len(self.features[key].shape) + 2

    def _have_time(self, batch: dict[str, Tensor]) -> bool:
        return any(key in batch and self._has_time(key, batch[key]) for key in self.features)

    def _stretched(self, key: str, value: Tensor) -> Tensor:
        if not self._has_time(key, value):
            return value.unsqueeze(1).repeat_interleave(self.length, dim=1)
        check_steps(key, value, self.length, "n_obs_steps")
        return value

    def _require(self, batch: Iterable[str]) -> None:
        if missing := [key for key in self.features if key not in batch]:
            raise MissingInputError(
                f"The observation lacks {missing}; the policy was trained with {list(self.features)}: rename with "
                "--rename_map."
            )


def training_windows(batch: dict[str, Tensor], features: dict[str, PolicyFeature], steps: int) -> dict[str, Tensor]:
    """Observations (B, steps, ...) of a training batch; datasets leave the time axis of a single frame out."""
    windows = {}
    for key, feature in features.items():
        value = batch[key]
        windows[key] = value.unsqueeze(1) if steps == 1 and value.dim() == len(feature.shape) + 1 else value
        check_steps(key, windows[key], steps, "n_obs_steps")
    return windows


def check_steps(key: str, value: Tensor, expected: int, field: str) -> None:
    """Raise ValueError unless `value` (B, T, ...) has as many steps as the configuration says."""
    if value.shape[1] != expected:
        raise ValueError(
            f"'{key}' has {value.shape[1]} steps, {field} asks for {expected}: the time windows of the dataset "
            "(delta_timestamps) come from another configuration."
        )
