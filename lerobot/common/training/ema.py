"""An exponential moving average of the trained weights, which evaluates better than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class WeightAverage:
    """Average of a policy's trained parameters; frozen parameters and buffers are the policy's own.

    After update t (from 1) the average moves by 1 - min(decay, t / (t + 9)) towards the weights, so that a short run
    is not held at its start.
    """

    def __init__(self, policy: torch.nn.Module, decay: float):
        self.policy, self.decay = policy, decay
        self.names = [n for n, p in policy.named_parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self._trained()]

    def _trained(self) -> list[torch.nn.Parameter]:
        return [p for p in self.policy.parameters() if p.requires_grad]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after update number `step`."""
        decay = min(self.decay, step / (step + 9))
        torch._foreach_lerp_(self.average, [p.detach() for p in self._trained()], 1 - decay)

    @torch.no_grad()
    def load(self) -> None:
        """Take the policy's present weights for the average."""
        for average, parameter in zip(self.average, self._trained(), strict=True):
            average.copy_(parameter)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Run a block with the averages in the policy; the trained weights come back afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for average, parameter in zip(self.average, self._trained(), strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)
