"""The noise that the chunks of one episode start from, where nothing else makes two of them agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class TickNoise:
    """Noise by the number of the action, so that two chunks start alike wherever they plan the same action.

    seed: of the episode. first: number of the chunk's first action, counted from the episode's beginning.
    """

    seed: int
    first: int

    def draw(self, batch: int, steps: int, width: int) -> Tensor:
        """Standard normal, float32 (batch, steps, width)."""
        ticks = range(self.first, self.first + steps)
        draws = [np.random.default_rng((self.seed, tick)).standard_normal((batch, width), np.float32) for tick in ticks]
        return torch.from_numpy(np.stack(draws, axis=1))


def noise_options(policy, noise: TickNoise | None, batch: int) -> dict[str, Tensor]:
    """The argument of `predict_action_chunk`, for `batch` samples; none for a policy that starts from no noise."""
    shape = policy.noise_shape() if hasattr(policy, "noise_shape") else None
    if noise is None or shape is None:
        return {}
    return {"noise": noise.draw(batch, *shape).to(policy.config.device)}
