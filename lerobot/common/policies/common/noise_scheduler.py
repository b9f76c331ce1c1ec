"""Noise schedules of diffusion models and their samplers: DDPM (Ho et al. 2020) and DDIM (Song et al. 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SAMPLERS = ("DDPM", "DDIM")
PREDICTION_TYPES = ("epsilon", "sample")
MAX_BETA = 0.999


class NoiseScheduler:
    """Adds noise to clean samples and removes it step by step.

    kind: one of SAMPLERS. Timesteps count from 0 (almost clean) to num_train_timesteps - 1 (almost noise).
    prediction_type: what the network gives, the noise (epsilon) or the clean sample. Each estimate of the clean
    sample is clipped to +-clip_sample_range if clip_sample. NotImplementedError for an unknown beta_schedule.
    """

    def __init__(
        self,
        kind: str = "DDPM",
        num_train_timesteps: int = 100,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        beta_schedule: str = "squaredcos_cap_v2",
        clip_sample: bool = True,
        clip_sample_range: float = 1.0,
        prediction_type: str = "epsilon",
    ):
        self.kind, self.num_train_timesteps, self.prediction_type = kind, num_train_timesteps, prediction_type
        self.clip_range = clip_sample_range if clip_sample else None
        self.betas = make_betas(beta_schedule, num_train_timesteps, beta_start, beta_end, kind)
        self.alphas_cumprod = (1 - self.betas).cumprod(0)  # float32 (T,), on the CPU: `step` reads single numbers
        self._on_device = self.alphas_cumprod  # where `add_noise` looks them up

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """sqrt(abar_t) clean + sqrt(1 - abar_t) noise; clean and noise (B, ...), timesteps int64 (B,)."""
        if self._on_device.device != clean.device:
            self._on_device = self.alphas_cumprod.to(clean.device)
        kept = self._on_device.to(clean.dtype)[timesteps].view(-1, *[1] * (clean.dim() - 1))
        return kept.sqrt() * clean + (1 - kept).sqrt() * noise

    def timesteps(self, num_inference_steps: int | None = None) -> list[int]:
        """The timesteps to visit, evenly spaced and ending at 0; ValueError for more than were trained."""
        count = num_inference_steps or self.num_train_timesteps
        if count > self.num_train_timesteps:
            raise ValueError(
                f"num_inference_steps={count} is more than num_train_timesteps={self.num_train_timesteps}: "
                "lower --policy.num_inference_steps."
            )
        return [i * self._stride(count) for i in reversed(range(count))]

    def _stride(self, count: int) -> int:
        return self.num_train_timesteps // count

    def sample(self, network, noise: Tensor, num_inference_steps: int | None = None) -> Tensor:
        """Turn noise (B, ...) into a sample; network(x, timesteps int64 (B,)) is called once per timestep."""
        timesteps = self.timesteps(num_inference_steps)
        x, stride = noise, self._stride(len(timesteps))
        for t in timesteps:
            predicted = network(x, torch.full((len(x),), t, dtype=torch.long, device=x.device))
            x = self.step(predicted.to(x.dtype), t, x, t - stride)
        return x

    def step(self, predicted: Tensor, t: int, x: Tensor, previous: int) -> Tensor:
        """From timestep `t` to `previous` (negative: clean), given the network's prediction for `x`."""
        kept = self.alphas_cumprod[t]
        kept_before = self.alphas_cumprod[previous] if previous >= 0 else torch.ones_like(kept)
        clean = predicted
        if self.prediction_type == "epsilon":
            clean = (x - (1 - kept).sqrt() * predicted) / kept.sqrt()
        clipped = clean if self.clip_range is None else clean.clamp(-self.clip_range, self.clip_range)
        if self.kind == "DDPM":
            return self._ddpm(clipped, x, kept, kept_before, is_last=t == 0)
        # The noise belongs to the estimate before clipping.
        noise = predicted
        if self.prediction_type == "sample":
            noise = (x - kept.sqrt() * clean) / (1 - kept).sqrt()
        return kept_before.sqrt() * clipped + (1 - kept_before).sqrt() * noise

    def _ddpm(self, clean: Tensor, x: Tensor, kept: Tensor, kept_before: Tensor, is_last: bool) -> Tensor:
        """A draw from q(x_previous | x, clean), with the smaller of the paper's two variances."""
        alpha = kept / kept_before
        mean = kept_before.sqrt() * (1 - alpha) / (1 - kept) * clean
        mean = mean + alpha.sqrt() * (1 - kept_before) / (1 - kept) * x
        if is_last:
            return mean
        variance = ((1 - kept_before) / (1 - kept) * (1 - alpha)).clamp(min=1e-20)
        return mean + variance.sqrt() * torch.randn(x.shape, dtype=x.dtype, device=x.device)


def make_betas(schedule: str, steps: int, start: float, end: float, kind: str = "DDPM") -> Tensor:
    """Variance added at each timestep, float32 (steps,). squaredcos_cap_v2 is of Nichol and Dhariwal 2021."""
    if schedule == "squaredcos_cap_v2":
        betas = [min(1 - _cosine((i + 1) / steps) / _cosine(i / steps), MAX_BETA) for i in range(steps)]
        return torch.tensor(betas, dtype=torch.float32)
    if schedule == "linear":
        return torch.linspace(start, end, steps, dtype=torch.float32)
    if schedule == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float32) ** 2
    if schedule == "sigmoid" and kind == "DDPM":
        return torch.linspace(-6, 6, steps, dtype=torch.float32).sigmoid() * (end - start) + start
    raise NotImplementedError(
        f"beta_schedule='{schedule}' with noise_scheduler_type={kind}: expected squaredcos_cap_v2, linear, "
        "scaled_linear or (DDPM only) sigmoid."
    )


def _cosine(time: float) -> float:
    return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
