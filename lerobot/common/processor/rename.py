"""Renaming observations, so that a checkpoint meets the names it was trained with."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from lerobot.common.processor.registry import ProcessorStepRegistry
from lerobot.common.processor.steps import Features, ObservationProcessorStep
from lerobot.configs.types import PipelineFeatureType


@ProcessorStepRegistry.register("rename_observations_processor")
@dataclass
class RenameObservationsProcessorStep(ObservationProcessorStep):
    """Gives the observations in `rename_map` (old name -> new name) their new name; order and other names
    stay.
    """

    rename_map: dict[str, str] = field(default_factory=dict)

    def _rename(self, named: dict[str, Any]) -> dict[str, Any]:
        return {self.rename_map.get(name, name): value for name, value in named.items()}

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        return self._rename(observation) if self.rename_map else observation

    def get_config(self) -> dict[str, Any]:
        return {"rename_map": self.rename_map}

    def transform_features(self, features: Features) -> Features:
        seen = PipelineFeatureType.OBSERVATION
        return {side: self._rename(named) if side is seen else named for side, named in features.items()}


def rename_stats(stats: dict[str, dict[str, Any]], rename_map: dict[str, str]) -> dict[str, dict[str, Any]]:
    """A deep copy of statistics with features renamed; a feature whose statistics are None gets an empty
    dict.
    """
    return {rename_map.get(name, name): copy.deepcopy(value or {}) for name, value in (stats or {}).items()}
