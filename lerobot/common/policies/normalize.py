"""Normalization as modules, for scripts of the legacy layout; the policies here are normalized by processors.

`Normalize(features, norm_map, stats)(batch)` and `Unnormalize(...)(batch)` keep their statistics as parameters
`buffer_<feature with underscores>.<statistic>`, as checkpoints of LeRobot 0.1-0.3 do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lerobot.common.processor.normalize import NEEDED_STATS
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature

EPS = 1e-8


class _Normalization(nn.Module):
    def __init__(
        self,
        features: Mapping[str, PolicyFeature],
        norm_map: Mapping[str, NormalizationMode],
        stats: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        super().__init__()
        self.features, self.norm_map, self.stats = features, norm_map, stats
        self.modes = {name: self._mode(feature) for name, feature in features.items()}
        for name, mode in self.modes.items():
            if mode is not NormalizationMode.IDENTITY:
                self.register_module(_buffer(name), self._statistics(name, mode))

    def _mode(self, feature: PolicyFeature) -> NormalizationMode:
        modes = {FeatureType(kind): NormalizationMode(mode) for kind, mode in self.norm_map.items()}
        return modes.get(feature.type, NormalizationMode.IDENTITY)

    def _statistics(self, name: str, mode: NormalizationMode) -> nn.ParameterDict:
        feature = self.features[name]
        shape = (feature.shape[0], 1, 1) if feature.type is FeatureType.VISUAL else feature.shape
        values = {}
        for stat in NEEDED_STATS[mode]:
            given = (self.stats or {}).get(name, {}).get(stat)
            value = (
                torch.full(shape, torch.inf) if given is None else torch.as_tensor(given, dtype=torch.float32).clone()
            )
            values[stat] = nn.Parameter(value, requires_grad=False)
        return nn.ParameterDict(values)

    def _apply_to(self, batch: Mapping[str, Tensor], inverse: bool) -> dict[str, Tensor]:
        changed = dict(batch)
        for name, mode in self.modes.items():
            if name not in batch or mode is NormalizationMode.IDENTITY:
                continue
            statistics = self.get_submodule(_buffer(name))
            first, second = (statistics[stat] for stat in NEEDED_STATS[mode])
            if torch.isinf(first).any() or torch.isinf(second).any():
                raise AssertionError(f"A statistic of '{name}' is infinity: give stats, or load them with the weights.")
            scale = second if mode is NormalizationMode.MEAN_STD else second - first
            x = batch[name]
            if mode is NormalizationMode.MEAN_STD:
                changed[name] = x * scale + first if inverse else (x - first) / (scale + EPS)
            else:
                changed[name] = (x + 1) / 2 * scale + first if inverse else (x - first) / (scale + EPS) * 2 - 1
        return changed


class Normalize(_Normalization):
    """Raw to normalized, with the legacy formulas (1e-8 is added to every range and deviation)."""

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A copy of the batch with its features normalized; AssertionError where statistics were never set."""
        return self._apply_to(batch, inverse=False)


class Unnormalize(_Normalization):
    """Normalized to raw."""

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A copy of the batch with its features in raw units; AssertionError where statistics were never set."""
        return self._apply_to(batch, inverse=True)


def _buffer(name: str) -> str:
    return "buffer_" + name.replace(".", "_")
