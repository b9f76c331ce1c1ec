"""Aloha's units and those that pi0's base model was trained with, outside of the normalization."""

from __future__ import annotations

import torch

from lerobot.common.constants import OBS_STATE
from lerobot.common.processor.core import EnvTransition, TransitionKey
from lerobot.common.processor.registry import ProcessorStepRegistry
from lerobot.common.processor.steps import KeepsFeatures, PolicyActionProcessorStep, ProcessorStep
from lerobot.common.utils import aloha


@ProcessorStepRegistry.register("aloha_to_pi0_processor")
class AlohaInputsProcessorStep(KeepsFeatures, ProcessorStep):
    """State, and recorded actions where there are some, of 14 joints in raw Aloha units -> pi0's units."""

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        observation = dict(transition[TransitionKey.OBSERVATION])
        observation[OBS_STATE] = aloha.decode_state(observation[OBS_STATE])
        action = transition.get(TransitionKey.ACTION)
        if action is not None:
            action = aloha.encode_actions_inv(action)
        return {**transition, TransitionKey.OBSERVATION: observation, TransitionKey.ACTION: action}


@ProcessorStepRegistry.register("pi0_to_aloha_processor")
class AlohaActionsProcessorStep(KeepsFeatures, PolicyActionProcessorStep):
    """Unnormalized actions `(..., 14)` in pi0's units -> Aloha's commands."""

    def action(self, action: torch.Tensor) -> torch.Tensor:
        return aloha.encode_actions(action)
