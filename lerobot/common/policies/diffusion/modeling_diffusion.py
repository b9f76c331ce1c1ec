"""Diffusion Policy: a sequence of actions is denoised, conditioned on the last observations (Chi et al. 2023).

Letters: B batch, O observation steps, H horizon, N executed steps, A action, S state, K keypoints, G condition.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from lerobot.common.constants import ACTION, ACTION_IS_PAD, OBS_ENV_STATE, OBS_STATE
from lerobot.common.policies.common.action_queue import ActionQueue
from lerobot.common.policies.common.inputs import require_actions, require_inputs
from lerobot.common.policies.common.losses import masked_mean, repeat_into_padding
from lerobot.common.policies.common.noise_scheduler import NoiseScheduler
from lerobot.common.policies.common.observation_history import ObservationHistory, training_windows
from lerobot.common.policies.common.rgb_encoder import RgbEncoder as DiffusionRgbEncoder
from lerobot.common.policies.common.rgb_encoder import SpatialSoftmax
from lerobot.common.policies.common.vision_options import check_weights, takes_one_size
from lerobot.common.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.common.policies.diffusion.unet import (
    DiffusionConditionalResidualBlock1d,
    DiffusionConditionalUnet1d,
    DiffusionConv1dBlock,
    DiffusionSinusoidalPosEmb,
)
from lerobot.common.policies.pretrained import PreTrainedPolicy
from lerobot.common.policies.utils import eval_mode, get_device_from_parameters, get_dtype_from_parameters

__all__ = [
    "DiffusionConditionalResidualBlock1d",
    "DiffusionConditionalUnet1d",
    "DiffusionConv1dBlock",
    "DiffusionModel",
    "DiffusionPolicy",
    "DiffusionRgbEncoder",
    "DiffusionSinusoidalPosEmb",
    "SpatialSoftmax",
]


class DiffusionPolicy(PreTrainedPolicy):
    """Diffusion Policy: loss for training, queued actions for control."""

    config_class = DiffusionConfig
    name = "diffusion"
    recordable = ("diffusion.generate_actions",)

    def __init__(self, config: DiffusionConfig, **kwargs):
        super().__init__(config)
        config.validate_features()
        check_weights(config)
        self.diffusion = DiffusionModel(config)
        self.reset()

    @classmethod
    def config_for_loading(cls, config: DiffusionConfig) -> DiffusionConfig:
        """Without pretrained backbone weights: the checkpoint brings its own."""
        return dataclasses.replace(config, pretrained_backbone_weights=None)

    def noise_shape(self) -> tuple[int, int]:
        return self.config.horizon, self.config.action_feature.shape[0]

    def get_optim_params(self) -> list[nn.Parameter]:
        """Every parameter, in one group."""
        return list(self.diffusion.parameters())

    def reset(self) -> None:
        """Forget queued actions and past observations."""
        self._action_queue = ActionQueue(self.config.n_action_steps)
        self._history = ObservationHistory(self.config.input_features, self.config.n_obs_steps)

    def needs_observation(self) -> bool:
        """Whether a coming prediction sees the batch of the next `select_action`.

        With more queued actions than remembered observations, this one is forgotten before the next prediction.
        """
        return len(self._action_queue) < self.config.n_obs_steps

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], noise: Tensor | None = None) -> Tensor:
        """Next action (B, A), normalized. Every call is remembered as an observation."""
        require_inputs(self.config, batch, fixed_size=takes_one_size(self.config))
        self._history.append(batch)
        if self._action_queue.is_empty:
            self._action_queue.extend(self.predict_action_chunk(batch, noise=noise))
        return self._action_queue.pop()

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], noise: Tensor | None = None, **kwargs) -> Tensor:
        """Chunk (B, N, A) from the present frame on, normalized; queue and history stay as they are.

        Observations with a time axis (B, O, ...) are used as they are; otherwise those that `select_action` was given,
        or if there were none the one in `batch`. noise: (B, H, A) to start from instead of a draw.
        """
        with eval_mode(self):
            return self.diffusion.generate_actions(self._history.window(batch), noise)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, None]:
        """Squared error of the predicted noise (or sample), averaged over valid steps."""
        return self.diffusion.compute_loss(batch), None


class DiffusionModel(nn.Module):
    """Observation encoder, U-Net and noise schedule."""

    def __init__(self, config: DiffusionConfig):
        super().__init__()
        self.config = config
        cameras = len(config.image_features)
        width = config.robot_state_feature.shape[0]
        if config.env_state_feature:
            width += config.env_state_feature.shape[0]
        if cameras:
            width += cameras * 2 * config.spatial_softmax_num_keypoints
            if config.use_separate_rgb_encoder_per_camera:
                self.rgb_encoder = nn.ModuleList(DiffusionRgbEncoder(config) for _ in range(cameras))
            else:
                self.rgb_encoder = DiffusionRgbEncoder(config)
        self.unet = DiffusionConditionalUnet1d(config, global_cond_dim=width * config.n_obs_steps)
        if config.compile_model:
            self.unet.compile(mode=config.compile_mode)
        self.noise_scheduler = NoiseScheduler(
            config.noise_scheduler_type,
            config.num_train_timesteps,
            config.beta_start,
            config.beta_end,
            config.beta_schedule,
            config.clip_sample,
            config.clip_sample_range,
            config.prediction_type,
        )

    def compute_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Loss of a batch of observations (B, O, ...), action (B, H, A) and action_is_pad bool (B, H)."""
        config = self.config
        require_inputs(config, batch, fixed_size=takes_one_size(config))
        require_actions(config, batch, config.horizon, "horizon")
        observations = training_windows(batch, config.input_features, config.n_obs_steps)
        is_pad, actions = batch.get(ACTION_IS_PAD), batch[ACTION]
        if config.loss_over_padding:
            is_pad = is_pad if config.do_mask_loss_for_padding else None
        else:
            actions = repeat_into_padding(actions, is_pad)
        condition, draws = self._encode(observations), config.draws_per_sample
        if draws > 1:
            condition, actions = condition.repeat(draws, 1), actions.repeat(draws, 1, 1)
            is_pad = None if is_pad is None else is_pad.repeat(draws, 1)
        noise = torch.randn(actions.shape, dtype=actions.dtype, device=actions.device)
        timesteps = torch.randint(0, config.num_train_timesteps, (len(actions),), device=actions.device)
        predicted = self.unet(self.noise_scheduler.add_noise(actions, noise, timesteps), timesteps, condition)
        target = noise if config.prediction_type == "epsilon" else actions
        error = (predicted - target).square()
        return masked_mean(error, is_pad, over_padding=config.loss_over_padding)

    def generate_actions(self, observations: dict[str, Tensor], noise: Tensor | None = None) -> Tensor:
        """Actions (B, N, A) from the present frame on, given observations (B, O, ...)."""
        config = self.config
        condition = self._encode(observations)
        if noise is None:
            shape = (len(condition), config.horizon, config.action_feature.shape[0])
            device = get_device_from_parameters(self)
            noise = torch.randn(shape, dtype=get_dtype_from_parameters(self), device=device)
        actions = self.noise_scheduler.sample(
            lambda x, timesteps: self.unet(x, timesteps, condition), noise, config.num_inference_steps
        )
        now = config.n_obs_steps - 1
        return actions[:, now : now + config.n_action_steps]

    def _encode(self, batch: dict[str, Tensor]) -> Tensor:
        """The condition (B, G): per step state, picture features, environment state; steps one after another."""
        features = [batch[OBS_STATE]]
        if self.config.image_features:
            features.append(self._encode_pictures(batch))
        if self.config.env_state_feature:
            features.append(batch[OBS_ENV_STATE])
        return torch.cat(features, dim=-1).flatten(1)

    def _encode_pictures(self, batch: dict[str, Tensor]) -> Tensor:
        """Features (B, O, cameras * 2K) of pictures (B, O, 3, H, W), camera after camera."""
        pictures = [batch[key] for key in self.config.image_features]
        size = pictures[0].shape[:2]
        if self.config.use_separate_rgb_encoder_per_camera:
            parts = [e(p.flatten(0, 1)) for e, p in zip(self.rgb_encoder, pictures, strict=True)]
            return torch.cat([part.unflatten(0, size) for part in parts], dim=-1)
        stacked = torch.stack(pictures, dim=2)  # (B, O, cameras, 3, H, W)
        return self.rgb_encoder(stacked.flatten(0, 2)).reshape(*size, -1)
