"""Giving a single frame the leading batch axis that policies expect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from lerobot.common.constants import OBS_ENV_STATE, OBS_IMAGE, OBS_IMAGES, OBS_STATE, TASK
from lerobot.common.processor.core import EnvTransition, TransitionKey
from lerobot.common.processor.registry import ProcessorStepRegistry
from lerobot.common.processor.steps import (
    ComplementaryDataProcessorStep,
    KeepsFeatures,
    ObservationProcessorStep,
    PolicyActionProcessorStep,
    ProcessorStep,
)


def _with_batch_axis(value: Any, frame_ndim: int) -> Any:
    """A tensor of `frame_ndim` axes gets a leading one; anything else is returned as it is."""
    is_frame = isinstance(value, torch.Tensor) and value.ndim == frame_ndim
    return value.unsqueeze(0) if is_frame else value


def _frame_ndim(key: str) -> int | None:
    """Axes of one frame of an observation, None for keys that are left alone."""
    if key in (OBS_STATE, OBS_ENV_STATE):
        return 1
    return 3 if key == OBS_IMAGE or key.startswith(OBS_IMAGES + ".") else None


@ProcessorStepRegistry.register("to_batch_processor_action")
@dataclass
class AddBatchDimensionActionStep(KeepsFeatures, PolicyActionProcessorStep):
    """(A,) -> (1, A)."""

    def action(self, action: torch.Tensor) -> torch.Tensor:
        return _with_batch_axis(action, 1)


@ProcessorStepRegistry.register("to_batch_processor_observation")
@dataclass
class AddBatchDimensionObservationStep(KeepsFeatures, ObservationProcessorStep):
    """States (S,) -> (1, S), pictures (C, H, W) -> (1, C, H, W)."""

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        return {
            key: value if (ndim := _frame_ndim(key)) is None else _with_batch_axis(value, ndim)
            for key, value in observation.items()
        }


@ProcessorStepRegistry.register("to_batch_processor_complementary_data")
@dataclass
class AddBatchDimensionComplementaryDataStep(KeepsFeatures, ComplementaryDataProcessorStep):
    """A task string becomes a list of one, the 0-D index and task_index 1-D."""

    def complementary_data(self, complementary_data: dict[str, Any]) -> dict[str, Any]:
        if isinstance(task := complementary_data.get(TASK), str):
            complementary_data[TASK] = [task]
        for key in ("index", "task_index"):
            if key in complementary_data:
                complementary_data[key] = _with_batch_axis(complementary_data[key], 0)
        return complementary_data


@ProcessorStepRegistry.register("to_batch_processor")
@dataclass
class AddBatchDimensionProcessorStep(KeepsFeatures, ProcessorStep):
    """The three steps above, each where its part is there; batched data pass through unchanged."""

    to_batch_action_processor: AddBatchDimensionActionStep = field(default_factory=AddBatchDimensionActionStep)
    to_batch_observation_processor: AddBatchDimensionObservationStep = field(
        default_factory=AddBatchDimensionObservationStep
    )
    to_batch_complementary_data_processor: AddBatchDimensionComplementaryDataStep = field(
        default_factory=AddBatchDimensionComplementaryDataStep
    )

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        parts = {
            TransitionKey.ACTION: self.to_batch_action_processor,
            TransitionKey.OBSERVATION: self.to_batch_observation_processor,
            TransitionKey.COMPLEMENTARY_DATA: self.to_batch_complementary_data_processor,
        }
        for key, step in parts.items():
            if transition.get(key) is not None:
                transition = step(transition)
        return transition
