"""Normalizing what goes into a policy and un-normalizing what comes out, with dataset statistics."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lerobot.common.constants import ACTION
from lerobot.common.processor.converters import ACTION_TENSOR, from_tensor_to_numpy, to_tensor
from lerobot.common.processor.core import EnvTransition, TransitionKey
from lerobot.common.processor.pipeline import DataProcessorPipeline
from lerobot.common.processor.registry import ProcessorStepRegistry
from lerobot.common.processor.steps import KeepsFeatures, ProcessorStep
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature

Stats = dict[str, dict[str, Any]]

# The statistics that a mode's affine map is made of.
NEEDED_STATS = {
    NormalizationMode.MEAN_STD: ("mean", "std"),
    NormalizationMode.MIN_MAX: ("min", "max"),
    NormalizationMode.QUANTILES: ("q01", "q99"),
    NormalizationMode.QUANTILE10: ("q10", "q90"),
}


@dataclass
class _StatisticsStep(KeepsFeatures, ProcessorStep):
    """Affine maps of observations and action by statistics; the subclasses say in which direction.

    `stats` maps a feature to its named statistics (arrays, tensors or lists, of the feature's shape; of a
    camera (C, 1, 1) or (C,)). Given at construction they win over the ones of a state file.
    `missing_stats="raise"`: using a feature that has a mode but no statistics is a ValueError; "pass": it is
    left as it is (LeRobot 0.4.4 does that). `normalize_observation_keys` limits observations to a set of
    names. Statistics are kept on `device` in `dtype` (float32) and are converted once for every device and
    dtype that a tensor comes in.
    """

    features: dict[str, PolicyFeature]
    norm_map: dict[FeatureType, NormalizationMode]
    stats: Stats | None = None
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None
    eps: float = 1e-8
    normalize_observation_keys: set[str] | None = None
    missing_stats: str = "raise"

    def __post_init__(self):
        if self.missing_stats not in ("raise", "pass"):
            raise ValueError(f"missing_stats must be 'raise' or 'pass', got {self.missing_stats!r}.")
        self.features = {name: _as_feature(f) for name, f in self.features.items()}
        self.norm_map = {FeatureType(t): NormalizationMode(m) for t, m in self.norm_map.items()}
        if self.normalize_observation_keys is not None:
            self.normalize_observation_keys = set(self.normalize_observation_keys)
        self.dtype = self.dtype or torch.float32
        self.stats = self.stats or {}
        self._stats_explicitly_provided = bool(self.stats)
        self._use(self.stats)

    @classmethod
    def from_lerobot_dataset(cls, dataset, features, norm_map, **kwargs):
        """A step with the statistics of a dataset."""
        return cls(features=features, norm_map=norm_map, stats=dataset.meta.stats, **kwargs)

    def set_stats(self, stats: Stats) -> None:
        """Replace the statistics; they now count as given explicitly."""
        self._stats_explicitly_provided = True
        self.stats = stats
        self._use(stats)

    def _use(self, stats: Stats) -> None:
        self._tensor_stats: dict[str, dict[str, Tensor]] = to_tensor(stats, dtype=self.dtype, device=self.device)
        self._prepared: dict[tuple, tuple[Tensor, Tensor]] = {}

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None):
        """Keep the statistics on another device or in another dtype, and return the step."""
        self.device, self.dtype = device or self.device, dtype or self.dtype
        self._use(self._tensor_stats)
        return self

    def get_config(self) -> dict[str, Any]:
        config = {
            "eps": self.eps,
            "features": {name: {"type": f.type.value, "shape": tuple(f.shape)} for name, f in self.features.items()},
            "norm_map": {kind.value: mode.value for kind, mode in self.norm_map.items()},
        }
        if self.normalize_observation_keys is not None:
            config["normalize_observation_keys"] = sorted(self.normalize_observation_keys)
        return config

    def state_dict(self) -> dict[str, Tensor]:
        """Every statistic of every feature, used or not, as `feature.statistic`."""
        return {f"{name}.{stat}": v.cpu() for name, stats in self._tensor_stats.items() for stat, v in stats.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take statistics from a state file, unless they were given at construction."""
        if self._stats_explicitly_provided:
            return
        stats: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            name, _, stat = key.rpartition(".")
            stats.setdefault(name, {})[stat] = value
        self._restore_underscores(stats)
        self._use(stats)
        self.stats = {k: {n: from_tensor_to_numpy(v) for n, v in values.items()} for k, values in stats.items()}

    def _restore_underscores(self, stats: Stats) -> None:
        """LeRobot's migration tool wrote dots for every underscore of a feature name; find such statistics
        again.
        """
        for name in [*self.features, ACTION]:
            dotted = name.replace("_", ".")
            if name not in stats and dotted in stats:
                stats[name] = stats[dotted]
                logging.warning(
                    "Statistics of feature '%s' stand under the wrong name '%s' in the checkpoint; they are used.",
                    name,
                    dotted,
                )

    def _change(self, transition: EnvTransition, inverse: bool) -> EnvTransition:
        transition = dict(transition)
        if (observation := transition.get(TransitionKey.OBSERVATION)) is not None:
            transition[TransitionKey.OBSERVATION] = self._change_observation(observation, inverse)
        if (action := transition.get(TransitionKey.ACTION)) is not None:
            if not isinstance(action, Tensor):
                raise ValueError(f"{ACTION_TENSOR}, got {type(action)} (in {type(self).__name__}).")
            transition[TransitionKey.ACTION] = self._map(action, ACTION, FeatureType.ACTION, inverse)
        return transition

    def _change_observation(self, observation: dict[str, Any], inverse: bool) -> dict[str, Any]:
        changed = dict(observation)
        chosen = self.normalize_observation_keys
        for name, feature in self.features.items():
            if feature.type is FeatureType.ACTION or name not in observation:
                continue
            if chosen is None or name in chosen:
                changed[name] = self._map(to_tensor(observation[name], dtype=None), name, feature.type, inverse)
        return changed

    def _map(self, x: Tensor, name: str, kind: FeatureType, inverse: bool) -> Tensor:
        mode = self.norm_map.get(kind, NormalizationMode.IDENTITY)
        if mode is NormalizationMode.IDENTITY:
            return x
        if self.missing_stats == "pass" and not self._tensor_stats.get(name):
            return x
        if not x.is_floating_point():
            if kind is FeatureType.VISUAL:
                raise ValueError(
                    f"Pictures of '{name}' are {x.dtype}, but {mode.value} expects float in [0, 1]: "
                    "call lerobot.common.processor.images_to_float on the batch first."
                )
            x = x.to(torch.float32)
        first, second = self._prepare(name, kind, mode, x.device, x.dtype)
        if any(n not in (1, m) for n, m in zip(first.shape[::-1], x.shape[::-1], strict=False)):
            raise ValueError(
                f"Feature '{name}' has shape {tuple(x.shape)}, its statistics {tuple(first.shape)}: "
                "they come from a dataset or checkpoint with other features."
            )
        return (_inverse if inverse else _forward)(x, first, second, mode, self.eps)

    def _prepare(self, name, kind, mode, device, dtype) -> tuple[Tensor, Tensor]:
        """(mean, std) or (low, high - low) of a feature on a device and in a dtype, converted only once."""
        key = (name, mode, device, dtype)
        if key not in self._prepared:
            first, second = (
                _broadcastable(self._stat(name, kind, mode, stat), kind).to(device, dtype)
                for stat in NEEDED_STATS[mode]
            )
            if mode is not NormalizationMode.MEAN_STD:
                # A constant component has no range; eps may be below what half precision can hold.
                smallest = max(self.eps, torch.finfo(dtype).smallest_normal)
                span = second - first
                second = span.masked_fill(span == 0, smallest)
            self._prepared[key] = (first, second)
        return self._prepared[key]

    def _stat(self, name: str, kind: FeatureType, mode: NormalizationMode, stat: str) -> Tensor:
        have = self._tensor_stats.get(name, {})
        if stat not in have:
            there = f"only {', '.join(have)}" if have else "none"
            raise ValueError(
                f"{mode.value} normalization mode requires {' and '.join(NEEDED_STATS[mode])} stats, but of feature "
                f"'{name}' ({kind.value}) there is {there}. Features with "
                f"statistics: {', '.join(self._tensor_stats) or 'none'}. Training takes them from the dataset "
                "(--dataset.root); to run a checkpoint give "
                f"overrides={{'{self._registry_name}': {{'stats': dataset.meta.stats}}}}, or set "
                f"normalization_mapping of {kind.value} to IDENTITY."
            )
        return have[stat]


@ProcessorStepRegistry.register("normalizer_processor")
@dataclass
class NormalizerProcessorStep(_StatisticsStep):
    """Maps raw observations and actions to normalized ones."""

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        return self._change(transition, inverse=False)


@ProcessorStepRegistry.register("unnormalizer_processor")
@dataclass
class UnnormalizerProcessorStep(_StatisticsStep):
    """Maps normalized observations and actions back to raw ones."""

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        return self._change(transition, inverse=True)


def _forward(x: Tensor, first: Tensor, second: Tensor, mode: NormalizationMode, eps: float) -> Tensor:
    out = x - first  # the one new tensor: pictures are large
    if mode is NormalizationMode.MEAN_STD:
        return out.div_(second + eps)
    return out.mul_(2).div_(second).sub_(1)


def _inverse(x: Tensor, first: Tensor, second: Tensor, mode: NormalizationMode, eps: float) -> Tensor:
    if mode is NormalizationMode.MEAN_STD:
        return (x * second).add_(first)
    return (x + 1).mul_(second).div_(2).add_(first)


def _broadcastable(stat: Tensor, kind: FeatureType) -> Tensor:
    """Statistics of a camera as (C, 1, 1), also where they were stored flat."""
    return stat.reshape(-1, 1, 1) if kind is FeatureType.VISUAL and stat.ndim == 1 else stat


def _as_feature(feature: PolicyFeature | dict[str, Any]) -> PolicyFeature:
    if isinstance(feature, dict):
        feature = PolicyFeature(**feature)
    return PolicyFeature(FeatureType(feature.type), tuple(feature.shape))


def hotswap_stats(policy_processor: DataProcessorPipeline, stats: Stats) -> DataProcessorPipeline:
    """A copy of a pipeline whose normalizers and unnormalizers have other statistics."""
    pipeline = copy.deepcopy(policy_processor)
    for step in pipeline.steps:
        if isinstance(step, _StatisticsStep):
            step.set_stats(stats)
    return pipeline
