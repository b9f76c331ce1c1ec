"""The networks of TD-MPC: encoder, latent dynamics, reward, policy, Q ensemble and V."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from lerobot.common.constants import OBS_ENV_STATE, OBS_IMAGE, OBS_STATE
from lerobot.common.policies.common.resnet import fast_layout
from lerobot.common.policies.tdmpc.configuration_tdmpc import IMAGE_KERNELS, TDMPCConfig, image_map_size


class TDMPCTOLD(nn.Module):
    """Task-oriented latent dynamics (Hansen et al. 2022) with the V function and Q ensemble of FOWM.

    Letters: B batch, Z latent, A action, E ensemble; leading axes (...) are free. Actions are in [-1, 1].
    """

    def __init__(self, config: TDMPCConfig):
        super().__init__()
        self.config = config
        latent, width, action = config.latent_dim, config.mlp_dim, config.action_feature.shape[0]
        self._encoder = TDMPCObservationEncoder(config)
        self._dynamics = nn.Sequential(*_trunk(latent + action, width), nn.Linear(width, latent), *_bound(latent))
        self._reward = nn.Sequential(*_trunk(latent + action, width), nn.Linear(width, 1))
        self._pi = nn.Sequential(*_trunk(latent, width), nn.Linear(width, config.n_pi_steps * action))
        self._Qs = nn.ModuleList(_value_net(latent + action, width) for _ in range(config.q_ensemble_size))
        self._V = _value_net(latent, width)
        self._initialize()

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                gain = 1.0 if isinstance(module, nn.Linear) else nn.init.calculate_gain("relu")
                nn.init.orthogonal_(module.weight, gain)
                nn.init.zeros_(module.bias)
        for net in (self._reward, *self._Qs):  # a start without opinion
            nn.init.zeros_(net[-1].weight)

    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        """Latent (..., Z) in [0, 1] of observations (..., feature shape)."""
        return self._encoder(obs)

    def latent_dynamics_and_reward(self, z: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Next latent (..., Z) and reward (...) of action a (..., A)."""
        x = torch.cat([z, a], dim=-1)
        return self._dynamics(x), self._reward(x).squeeze(-1)

    def latent_dynamics(self, z: Tensor, a: Tensor) -> Tensor:
        """Next latent (..., Z)."""
        return self._dynamics(torch.cat([z, a], dim=-1))

    def pi(self, z: Tensor, std: float = 0.0) -> Tensor:
        """Action (..., A) of the policy network; noise of `std` on top may leave [-1, 1]."""
        action = self.pi_steps(z)[..., 0, :]
        return action + torch.randn_like(action) * std if std > 0 else action

    def pi_steps(self, z: Tensor) -> Tensor:
        """All actions (..., n_pi_steps, A) of the policy network, in [-1, 1]."""
        return torch.tanh(self._pi(z)).unflatten(-1, (self.config.n_pi_steps, -1))

    def V(self, z: Tensor) -> Tensor:
        """Value (...) of a latent."""
        return self._V(z).squeeze(-1)

    def Qs(self, z: Tensor, a: Tensor, return_min: bool = False) -> Tensor:
        """Values (E, ...) of an action; with `return_min` the smaller (...) of two members drawn with replacement.

        The draw is from numpy's global generator, as in LeRobot. Up to two members are all compared, without a draw.
        """
        x = torch.cat([z, a], dim=-1)
        members = self._Qs
        if return_min and len(members) > 2:
            members = [self._Qs[i] for i in np.random.choice(len(members), size=2)]
        values = torch.stack([q(x).squeeze(-1) for q in members])
        return values.amin(dim=0) if return_min else values


class TDMPCObservationEncoder(nn.Module):
    """Picture, environment state and state each to a latent in [0, 1]; the mean of those there are."""

    def __init__(self, config: TDMPCConfig):
        super().__init__()
        self.config = config
        latent, hidden = config.latent_dim, config.state_encoder_hidden_dim
        if config.image_features:
            ((channels, side, _),) = config.image_shapes.values()
            self.image_enc_layers = _image_net(channels, config.image_encoder_hidden_dim, side, latent)
        if state := config.robot_state_feature:
            self.state_enc_layers = _vector_net(state.shape[0], hidden, latent)
        if env := config.env_state_feature:
            self.env_state_enc_layers = _vector_net(env.shape[0], hidden, latent)

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        """Observations (..., feature shape), the picture under `observation.image` -> (..., Z)."""
        latents = []
        if self.config.image_features:
            latents.append(flatten_forward_unflatten(self.image_enc_layers, obs[OBS_IMAGE]))
        if self.config.env_state_feature:
            latents.append(self.env_state_enc_layers(obs[OBS_ENV_STATE]))
        if self.config.robot_state_feature:
            latents.append(self.state_enc_layers(obs[OBS_STATE]))
        return torch.stack(latents).mean(dim=0)


def flatten_forward_unflatten(module: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    """Apply a network, or a function, of (N, C, H, W) to pictures (..., C, H, W)."""
    flat = pictures.flatten(0, -4)
    if isinstance(module, nn.Module):
        flat = fast_layout(flat, next(part.out_channels for part in module.modules() if isinstance(part, nn.Conv2d)))
    return module(flat).unflatten(0, pictures.shape[:-3])


def slow_copy(model: TDMPCTOLD) -> TDMPCTOLD:
    """A copy that no gradient changes."""
    return copy.deepcopy(model).requires_grad_(False)


@torch.no_grad()
def update_ema_parameters(ema_net: nn.Module, net: nn.Module, alpha: float) -> None:
    """Move each parameter of `ema_net` to alpha * itself + (1 - alpha) * that of `net`; frozen ones are copied."""
    for slow, parameter in zip(ema_net.parameters(), net.parameters(), strict=True):
        share = alpha if parameter.requires_grad else 0.0
        slow.mul_(share).add_(parameter, alpha=1 - share)


def _trunk(inside: int, width: int) -> list[nn.Module]:
    return [
        *(nn.Linear(inside, width), nn.LayerNorm(width), nn.Mish()),
        *(nn.Linear(width, width), nn.LayerNorm(width), nn.Mish()),
    ]


def _bound(latent: int) -> list[nn.Module]:
    return [nn.LayerNorm(latent), nn.Sigmoid()]


def _value_net(inside: int, width: int) -> nn.Sequential:
    first = (nn.Linear(inside, width), nn.LayerNorm(width), nn.Tanh())
    return nn.Sequential(*first, nn.Linear(width, width), nn.ELU(), nn.Linear(width, 1))


def _vector_net(inside: int, hidden: int, latent: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inside, hidden), nn.ELU(), nn.Linear(hidden, latent), *_bound(latent))


def _image_net(channels: int, hidden: int, side: int, latent: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for kernel in IMAGE_KERNELS:
        layers += [nn.Conv2d(channels, hidden, kernel, stride=2), nn.ReLU(inplace=True)]
        channels = hidden
    flat = hidden * image_map_size(side) ** 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, latent), *_bound(latent))
