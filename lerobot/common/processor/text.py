"""What is done to the task sentence before it is tokenized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lerobot.common.constants import OBS_STATE, TASK
from lerobot.common.processor.core import EnvTransition, TransitionKey
from lerobot.common.processor.registry import ProcessorStepRegistry
from lerobot.common.processor.steps import (
    ComplementaryDataProcessorStep,
    KeepsFeatures,
    ProcessorStep,
)


def ending_in_newline(text: str) -> str:
    """`text` with a newline at its end if there is none."""
    return text if text.endswith("\n") else text + "\n"


class _NewLineStep(KeepsFeatures, ComplementaryDataProcessorStep):
    """Ends the task, or each task of a list, with a newline; other types of task are left alone."""

    def complementary_data(self, complementary_data: dict[str, Any]) -> dict[str, Any]:
        task = complementary_data.get(TASK)
        if isinstance(task, str):
            complementary_data[TASK] = ending_in_newline(task)
        elif isinstance(task, list) and all(isinstance(t, str) for t in task):
            complementary_data[TASK] = [ending_in_newline(t) for t in task]
        return complementary_data


@ProcessorStepRegistry.register("smolvla_new_line_processor")
class NewLineTaskProcessorStep(_NewLineStep):
    """SmolVLA's prompt ends with a newline."""


@ProcessorStepRegistry.register("pi0_new_line_processor")
class Pi0NewLineProcessor(_NewLineStep):
    """pi0's prompt ends with a newline."""


SmolVLANewLineProcessor = NewLineTaskProcessorStep


@ProcessorStepRegistry.register("pi05_prepare_state_tokenizer_processor_step")
@dataclass
class Pi05PrepareStateTokenizerProcessorStep(KeepsFeatures, ProcessorStep):
    """Writes the normalized state into pi0.5's prompt, as one of 256 integers for each of `max_state_dim`
    values.
    """

    max_state_dim: int = 32
    task_key: str = TASK

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        state = (transition.get(TransitionKey.OBSERVATION) or {}).get(OBS_STATE)
        if state is None:
            raise ValueError(f"pi0.5 writes the state into its prompt, but the observation has no '{OBS_STATE}'.")
        data = transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}
        tasks = data.get(self.task_key)
        if tasks is None:
            raise ValueError(f"pi0.5 needs a task, but the complementary data have no '{self.task_key}'.")
        tasks = [tasks] if isinstance(tasks, str) else tasks
        prompts = [_prompt(t, s) for t, s in zip(tasks, self._bins(state), strict=True)]
        return {**transition, TransitionKey.COMPLEMENTARY_DATA: {**data, self.task_key: prompts}}

    def _bins(self, state: torch.Tensor) -> np.ndarray:
        """(B, S) in [-1, 1] -> (B, max_state_dim) integers; 255 marks the last of 256 equal bins, -1 what is
        below.
        """
        padded = np.zeros((state.shape[0], self.max_state_dim), dtype=np.float32)
        padded[:, : state.shape[-1]] = state.detach().float().cpu().numpy()
        left_edges = np.linspace(-1, 1, 257)[:-1]
        return np.digitize(padded, left_edges) - 1


def _prompt(task: str, bins: np.ndarray) -> str:
    sentence = task.strip().replace("_", " ").replace("\n", " ")
    return f"Task: {sentence}, State: {' '.join(map(str, bins))};\nAction: "
