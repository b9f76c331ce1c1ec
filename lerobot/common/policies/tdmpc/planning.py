"""Planning in the latent world model by the cross-entropy method (model predictive path integral, TD-MPC alg. 1)."""

from __future__ import annotations

import torch
from torch import Tensor

from lerobot.common.policies.tdmpc.world_model import TDMPCTOLD


@torch.no_grad()
def plan(model: TDMPCTOLD, z: Tensor, previous_mean: Tensor | None) -> tuple[Tensor, Tensor]:
    """An action sequence (H, B, A) from latent z (B, Z), and the mean (H, B, A) that the next plan starts from.

    previous_mean: that of the last plan, shifted by one step, or None. The sequence is one of the elites of the last
    iteration, drawn by their weights, not their mean.
    """
    config = model.config
    pi_actions = policy_trajectories(model, z)
    horizon, _, batch, width = pi_actions.shape
    mean = z.new_zeros(horizon, batch, width)
    if previous_mean is not None:
        mean[:-1] = previous_mean[1:]
    std = torch.full_like(mean, config.max_std)
    for _ in range(config.cem_iterations):
        noise = torch.randn(horizon, config.n_gaussian_samples, batch, width, device=z.device)
        gaussian = (mean[:, None] + std[:, None] * noise).clamp(-1, 1)
        candidates = torch.cat([gaussian, pi_actions], dim=1)
        value = estimate_value(model, z, candidates).nan_to_num(0)
        elites = value.topk(config.n_elites, dim=0).indices
        elite_value, elite_actions = value.gather(0, elites), candidates.take_along_dim(elites[None, ..., None], dim=1)
        score = (config.elite_weighting_temperature * (elite_value - elite_value.amax(dim=0))).exp()
        score = score / score.sum(dim=0)
        weights = score[None, ..., None]
        new_mean = (weights * elite_actions).sum(dim=1)
        new_std = (weights * (elite_actions - new_mean[:, None]).square()).sum(dim=1).sqrt()
        momentum = config.gaussian_mean_momentum
        mean = momentum * mean + (1 - momentum) * new_mean
        std = new_std.clamp(config.min_std, config.max_std)
    chosen = torch.multinomial(score.T, 1)[:, 0]
    return elite_actions[:, chosen, torch.arange(batch, device=z.device)], mean


def policy_trajectories(model: TDMPCTOLD, z: Tensor) -> Tensor:
    """What the policy network would do: (H, n_pi_samples, B, A) from z (B, Z), with noise, not clipped."""
    config = model.config
    z = z.expand(config.n_pi_samples, *z.shape)
    actions = []
    for step in range(config.horizon):
        actions.append(model.pi(z, config.min_std))
        if step < config.horizon - 1:
            z = model.latent_dynamics(z, actions[-1])
    return torch.stack(actions)


def estimate_value(model: TDMPCTOLD, z: Tensor, actions: Tensor) -> Tensor:
    """Discounted return (N, B) of action sequences (H, N, B, A) from z (B, Z), less where the Q ensemble disagrees."""
    config = model.config
    doubt = config.uncertainty_regularizer_coeff
    z = z.expand(actions.shape[1], *z.shape)
    total, discount = 0, 1.0
    for action in actions:
        regret = doubt * model.Qs(z, action).std(dim=0) if doubt > 0 else 0
        z, reward = model.latent_dynamics_and_reward(z, action)
        total = total + discount * (reward - regret)
        discount *= config.discount
    q = model.Qs(z, model.pi(z, config.min_std))
    pair = q[torch.randint(0, len(q), (2,)).tolist()] if len(q) > 2 else q  # drawn on the host: no device has to wait
    total = total + discount * pair.amin(dim=0)
    return total - discount * doubt * q.std(dim=0) if doubt > 0 else total
