"""TD-MPC: plan a few steps ahead in a learned latent world model (Hansen et al. 2022, Feng et al. 2023)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lerobot.common.constants import ACTION, ACTION_IS_PAD, OBS_ENV_STATE, OBS_IMAGE, OBS_STATE, REWARD
from lerobot.common.policies.common.action_queue import ActionQueue
from lerobot.common.policies.common.inputs import MissingInputError, require_actions, require_inputs
from lerobot.common.policies.common.losses import masked_mean, zero_padding
from lerobot.common.policies.pretrained import PreTrainedPolicy
from lerobot.common.policies.tdmpc.configuration_tdmpc import TDMPCConfig
from lerobot.common.policies.tdmpc.planning import plan
from lerobot.common.policies.tdmpc.world_model import (
    TDMPCTOLD,
    TDMPCObservationEncoder,
    flatten_forward_unflatten,
    slow_copy,
    update_ema_parameters,
)

MAX_ADVANTAGE_WEIGHT = 100.0
REWARD_IS_PAD = f"{REWARD}_is_pad"


class TDMPCPolicy(PreTrainedPolicy):
    """TD-MPC as a policy: five losses over a short rollout for training, planned actions for control.

    Letters: B batch, H horizon, A action, E ensemble. Training tensors have time in front: (H, B, ...).
    """

    config_class = TDMPCConfig
    name = "tdmpc"
    recordable = ("_decide",)
    draws_layers = True  # members of the Q ensemble

    def __init__(self, config: TDMPCConfig, **kwargs):
        super().__init__(config)
        config.validate_features()
        self.model = TDMPCTOLD(config)
        self.model_target = slow_copy(self.model)
        self.reset()

    def get_optim_params(self):
        """All parameters; those of the slow target never get a gradient."""
        return self.parameters()

    def reset(self) -> None:
        """Forget queued actions and the plan that the next one would start from."""
        self._action_queue = ActionQueue(max(self.config.n_action_steps, self.config.n_action_repeats))
        self._previous_mean: Tensor | None = None

    def needs_observation(self) -> bool:
        """Whether the next `select_action` looks at its batch: not while planned actions are queued."""
        return self._action_queue.is_empty

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], **kwargs) -> Tensor:
        """Next action (B, A) in [-1, 1]. While actions are queued the observation is not looked at."""
        if self._action_queue.is_empty:
            chunk, self._previous_mean = self._decide(batch, self._previous_mean)
            repeats = self.config.n_action_repeats
            chunk = chunk[:, :1].expand(-1, repeats, -1) if repeats > 1 else chunk[:, : self.config.n_action_steps]
            self._action_queue.extend(chunk)
        return self._action_queue.pop()

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], **kwargs) -> Tensor:
        """Plan (B, H, A) in [-1, 1], or without planning (B, n_pi_steps, A); LeRobot has (H, B, A), (1, B, A).

        Queue and plan of `select_action` are neither used nor changed.
        """
        return self._decide(batch, None)[0]

    def _decide(self, batch: dict[str, Tensor], previous_mean: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Actions (B, T, A) in [-1, 1], and what the next plan starts from."""
        z = self.model.encode(self._current_frame(batch))
        if not self.config.use_mpc:
            return self.model.pi_steps(z).clamp(-1, 1), None
        actions, mean = plan(self.model, z, previous_mean)
        return actions.transpose(0, 1).clamp(-1, 1), mean

    def _current_frame(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The observations (B, ...); of several frames (B, H+1, ...) the first."""
        rank = {OBS_IMAGE: 4, OBS_STATE: 2, OBS_ENV_STATE: 2}
        return {k: v[:, 0] if v.dim() > rank[k] else v for k, v in self._observation(batch).items()}

    def _observation(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the encoder reads, the picture under `observation.image` whatever its camera is called."""
        require_inputs(self.config, batch, fixed_size=True)
        names = dict.fromkeys(self.config.image_features, OBS_IMAGE) | {k: k for k in (OBS_STATE, OBS_ENV_STATE)}
        return {name: batch[key] for key, name in names.items() if key in self.config.input_features}

    def update(self) -> None:
        """Let the slow target follow; called after every optimizer step."""
        update_ema_parameters(self.model_target, self.model, self.config.target_model_momentum)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of the losses of dynamics, reward, Q, V and policy network over the valid steps.

        batch: observations (B, H+1, ...), action (B, max(H, n_pi_steps), A) in [-1, 1], next.reward (B, H), and their
        `_is_pad`.
        """
        config, model = self.config, self.model
        obs, action, reward, obs_pad, pads = self._training_tensors(batch)
        first = {k: zero_padding(x[0], obs_pad[0]) for k, x in obs.items()}
        z, predicted_reward = self._roll_out(first, action)
        states = z[:-1]
        q, v = model.Qs(states, action).float(), model.V(states).float()
        with torch.no_grad():
            following = {k: x[1:] for k, x in obs.items()}
            next_z = zero_padding(self.model_target.encode(following), obs_pad[1:])
            q_target = reward + config.discount * zero_padding(model.V(model.encode(following)), obs_pad[1:])
            v_target = self.model_target.Qs(states, action, return_min=True)
            advantage = self.model_target.Qs(states, action, return_min=True) - v
            weight = (config.advantage_scaling * advantage).exp().clamp(max=MAX_ADVANTAGE_WEIGHT)
        imitation = (model.pi(states.detach()).float() - action).square().sum(-1)
        errors = {
            "consistency_loss": (z[1:].float() - next_z).square().mean(-1),
            "reward_loss": (predicted_reward.float() - reward).square(),
            "Q_value_loss": (q - q_target).square().sum(0),
            "V_value_loss": expectile_error(v_target - v, config.expectile_weight),
            "pi_loss": weight * imitation / config.horizon,  # a mean over the steps, where the others are sums
        }
        losses = {name: self._sum_of_means(error, pads, name) for name, error in errors.items()}
        if config.bc_coeff > 0:
            losses["bc_loss"] = self._imitation_loss(z[0], batch)
        loss = (
            config.consistency_coeff * losses["consistency_loss"]
            + config.reward_coeff * losses["reward_loss"]
            + config.value_coeff * (losses["Q_value_loss"] + losses["V_value_loss"])
            + config.pi_coeff * losses["pi_loss"]
            + config.bc_coeff * losses.get("bc_loss", 0.0)
        )
        numbers = {"Q": q.mean(), "V": v.mean(), **losses, "sum_loss": loss * config.horizon}
        return loss, {k: x.detach() for k, x in numbers.items()} | {"advantage": advantage[0].mean()}

    def _imitation_loss(self, z: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Mean absolute difference of the policy network's actions at z (B, Z) from the recorded ones."""
        recorded, is_pad = batch[ACTION][:, : self.config.n_pi_steps], self._imitation_pad(batch)
        error = (self.model.pi_steps(z).float() - zero_padding(recorded, is_pad)).abs()
        return masked_mean(error, is_pad, over_padding=self.config.loss_over_padding, steps="bc_loss")

    def _imitation_pad(self, batch: dict[str, Tensor]) -> Tensor:
        """Padding (B, K) of the recorded actions that the policy network imitates."""
        pads = _pads(batch, [ACTION_IS_PAD], batch[ACTION])[: self.config.n_pi_steps]
        return (pads | self._step_pads(batch)["obs"][:1]).T

    def _sum_of_means(self, errors: Tensor, pads: dict[str, Tensor], name: str) -> Tensor:
        """Errors (H, B) of one loss averaged over the valid ones, times H, a step weighted less than the one before."""
        config = self.config
        weights = config.temporal_decay_coeff ** torch.arange(config.horizon, device=errors.device)
        weighted, over = weights[:, None] * errors, config.loss_over_padding
        return config.horizon * masked_mean(weighted, pads[name], over_padding=over, steps=name)

    def _roll_out(self, first: dict[str, Tensor], action: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (H+1, B, Z) and rewards (H, B) that the model foresees from the first observation."""
        latents, rewards = [self.model.encode(first)], []
        for a in action:
            z, r = self.model.latent_dynamics_and_reward(latents[-1], a)
            latents.append(z)
            rewards.append(r)
        return torch.stack(latents), torch.stack(rewards)

    def _training_tensors(self, batch: dict[str, Tensor]) -> tuple[dict, Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Observations (H+1, B, ...), action (H, B, A), reward (H, B), padding of observations and of each loss."""
        if not isinstance(batch.get(REWARD), Tensor):
            raise MissingInputError(
                f"TD-MPC learns from '{REWARD}', which the batch lacks: train on a dataset that has it, or on "
                "successful demonstrations with --dataset.reward_at_end=N."
            )
        require_actions(self.config, batch, len(self.config.action_delta_indices), "horizon")
        horizon = self.config.horizon  # further actions are there for imitation only
        action, reward = batch[ACTION].transpose(0, 1)[:horizon], batch[REWARD].transpose(0, 1)
        obs = {k: v.transpose(0, 1) for k, v in self._observation(batch).items()}
        pads = self._step_pads(batch)
        if not self.config.loss_over_padding:
            action, reward = zero_padding(action, pads["action"]), zero_padding(reward, pads["reward"])
        if OBS_IMAGE in obs and self.config.max_random_shift_ratio > 0:
            ratio = self.config.max_random_shift_ratio
            obs[OBS_IMAGE] = flatten_forward_unflatten(lambda x: random_shifts_aug(x, ratio), obs[OBS_IMAGE])
        return obs, action, reward, pads["obs"], _loss_pads(pads)

    def step_masks(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Padding of every loss."""
        if not isinstance(batch.get(REWARD), Tensor):
            return {}
        more = {"bc_loss": self._imitation_pad(batch)} if self.config.bc_coeff > 0 else {}
        return _loss_pads(self._step_pads(batch)) | more

    def _step_pads(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Padding of actions (H, B), rewards (H, B) and observations (H+1, B)."""
        seen = [OBS_STATE, *self.config.image_features, OBS_ENV_STATE]
        observed = next(batch[k] for k in seen if k in batch)
        pads = {
            "action": _pads(batch, [ACTION_IS_PAD], batch[ACTION])[: self.config.horizon],
            "reward": _pads(batch, [REWARD_IS_PAD], batch[REWARD]),
            "obs": _pads(batch, [f"{k}_is_pad" for k in seen], observed),
        }
        if not self.config.loss_over_padding:
            pads["action"] = pads["action"].cumsum(0) > 0  # a rollout through a padded action leads nowhere
        return pads


def _loss_pads(pads: dict[str, Tensor]) -> dict[str, Tensor]:
    """Padding (H, B) of every loss."""
    obs, reward = pads["obs"], pads["reward"]
    start = pads["action"] | obs[:1]
    return {
        "consistency_loss": start | obs[1:],
        "reward_loss": start | reward,
        "Q_value_loss": start | obs[1:] | reward,
        "V_value_loss": start,
        "pi_loss": start,
    }


def _pads(batch: dict[str, Tensor], keys: list[str], values: Tensor) -> Tensor:
    """The first of the pad masks (B, T) that the batch has, time first; nothing is padded without one.

    values: (B, T, ...), what the mask is about.
    """
    found = next((batch[k] for k in keys if k in batch), None)
    return (values.new_zeros(values.shape[:2], dtype=torch.bool) if found is None else found).transpose(0, 1)


def expectile_error(difference: Tensor, weight: float) -> Tensor:
    """Squared errors of target - value, `weight` where the value is too low and 1 - weight where it is too high."""
    return torch.where(difference > 0, weight, 1 - weight) * difference.square()


def random_shifts_aug(x: Tensor, max_random_shift_ratio: float) -> Tensor:
    """Square pictures (N, C, n, n), each moved by its own whole pixels, its border repeated (Kostrikov et al. 2020).

    At most `max_random_shift_ratio` of the size in each direction. Draws from torch's generator of the device.
    """
    count, _, height, side = x.shape
    if height != side:
        raise AssertionError(f"Random shifts take square pictures, not {height}x{side}.")
    most = round(max_random_shift_ratio * side)
    shift = torch.randint(0, 2 * most + 1, (count, 1, 1, 2), device=x.device, dtype=x.dtype).long().view(count, 2)
    windows = F.pad(x, (most,) * 4, mode="replicate").unfold(2, side, 1).unfold(3, side, 1)  # (N, C, y, x, n, n)
    return windows[torch.arange(count, device=x.device), :, shift[:, 1], shift[:, 0]]


__all__ = [
    "TDMPCObservationEncoder",
    "TDMPCPolicy",
    "TDMPCTOLD",
    "expectile_error",
    "flatten_forward_unflatten",
    "random_shifts_aug",
    "update_ema_parameters",
]
