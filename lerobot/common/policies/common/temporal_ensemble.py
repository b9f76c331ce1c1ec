"""Averaging of overlapping chunks predicted at successive steps (ACT, Zhao et al. 2023, algorithm 2)."""

from __future__ import annotations

import torch
from torch import Tensor


class TemporalEnsembler:
    """Weighted mean, kept online, of all predictions made for the same moment.

    The i-th oldest prediction has weight exp(-coeff * i): 0 is a plain mean, more favours older predictions,
    less newer ones. chunk_size: actions per prediction; `update` is called once per step of the environment.
    """

    def __init__(self, temporal_ensemble_coeff: float, chunk_size: int):
        self.chunk_size = chunk_size
        self.ensemble_weights = torch.exp(-temporal_ensemble_coeff * torch.arange(chunk_size))
        self.ensemble_weights_cumsum = torch.cumsum(self.ensemble_weights, dim=0)
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        self.ensembled_actions: Tensor | None = None  # (B, steps ahead, A)
        self.ensembled_actions_count: Tensor | None = None  # (steps ahead, 1), predictions in each mean

    def update(self, actions: Tensor) -> Tensor:
        """Take in a new chunk (B, C, A) and return the mean action (B, A) of the current moment."""
        weights = self.ensemble_weights.to(actions.device)
        totals = self.ensemble_weights_cumsum.to(actions.device)
        if self.ensembled_actions is None:
            mean = actions.clone()
            count = torch.ones(self.chunk_size, 1, dtype=torch.long, device=actions.device)
        else:
            mean, count = self.ensembled_actions, self.ensembled_actions_count
            mean = (mean * totals[count - 1] + actions[:, :-1] * weights[count]) / totals[count]
            count = torch.clamp(count + 1, max=self.chunk_size)
            mean = torch.cat([mean, actions[:, -1:]], dim=1)
            count = torch.cat([count, torch.ones_like(count[-1:])])
        self.ensembled_actions, self.ensembled_actions_count = mean[:, 1:], count[1:]
        return mean[:, 0]
