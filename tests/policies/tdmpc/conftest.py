"""Tiny TD-MPC configurations and batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lerobot.common.policies.tdmpc.configuration_tdmpc import TDMPCConfig
from lerobot.common.policies.tdmpc.modeling_tdmpc import TDMPCPolicy
from lerobot.configs.types import FeatureType, PolicyFeature

TINY = {
    "device": "cpu",
    "horizon": 3,
    "image_encoder_hidden_dim": 4,
    "state_encoder_hidden_dim": 16,
    "latent_dim": 8,
    "mlp_dim": 16,
    "cem_iterations": 2,
    "n_gaussian_samples": 12,
    "n_pi_samples": 4,
    "n_elites": 5,
}


def config_of(image=None, state=4, env=None, image_key="observation.images.front", **changes) -> TDMPCConfig:
    """A tiny configuration; a size of None leaves the feature out."""
    inputs = {}
    if image:
        inputs[image_key] = PolicyFeature(FeatureType.VISUAL, image)
    if state:
        inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (state,))
    if env:
        inputs["observation.environment_state"] = PolicyFeature(FeatureType.ENV, (env,))
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (3,))}
    return TDMPCConfig(input_features=inputs, output_features=outputs, **{**TINY, **changes})


def seed(number: int) -> None:
    torch.manual_seed(number)
    np.random.seed(number)


def policy_of(config: TDMPCConfig) -> TDMPCPolicy:
    """With heads that have an opinion, unlike at the start of training."""
    seed(0)
    policy = TDMPCPolicy(config)
    for net in (policy.model._reward, *policy.model._Qs, *policy.model_target._Qs):
        torch.nn.init.normal_(net[-1].weight, std=0.3)
    return policy


def observation_of(config: TDMPCConfig, size: int = 2, lead: tuple = ()) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(size)
    shapes = {k: config.image_shapes.get(k, f.shape) for k, f in config.input_features.items()}
    return {k: torch.rand(size, *lead, *shape, generator=generator) for k, shape in shapes.items()}


def batch_of(config: TDMPCConfig, size: int = 3) -> dict[str, Tensor]:
    """A training batch whose last sample ends after its first transition."""
    horizon, generator = config.horizon, torch.Generator().manual_seed(100)
    steps = max(horizon, config.n_pi_steps)
    ends = torch.zeros(size, horizon + 1, dtype=torch.bool)
    ends[-1, 2:] = True
    observations = observation_of(config, size, (horizon + 1,))
    return {
        **observations,
        "action": torch.rand(size, steps, 3, generator=generator) * 2 - 1,
        "next.reward": torch.rand(size, horizon, generator=generator),
        **{f"{k}_is_pad": ends for k in observations},
        "action_is_pad": torch.cat([ends[:, :-1], ends[:, -1:].expand(-1, steps - horizon)], dim=1),
        "next.reward_is_pad": ends[:, :-1],
        "index": torch.arange(size),
    }


@pytest.fixture
def config() -> TDMPCConfig:
    return config_of()


@pytest.fixture
def policy(config) -> TDMPCPolicy:
    return policy_of(config)
