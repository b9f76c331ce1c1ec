"""Faster chunks at a stated error: `--policy.inference=bf16|int8` on a CPU.

The first observation is predicted twice from the same noise, as trained and fast. The difference is told in
standard deviations of the actions; where it is too large, the policy goes on as trained.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from lerobot.common.policies.common.attention import bfloat16_scores
from lerobot.common.policies.common.int8 import quantize_linears, restore_linears

LARGEST_ERROR = 0.05  # mean absolute difference, in normalized units


class FastChunks:
    """`predict_action_chunk` of a policy in a faster arithmetic, once its first chunk has shown that it may."""

    def __init__(self, policy, mode: str):
        self.policy, self.mode = policy, mode
        self.exact: Callable[..., Tensor] = policy.predict_action_chunk
        self.checked = False
        weights = list(policy.parameters())
        full = sum(w.numel() for w in weights if w.dtype == torch.float32)
        self.autocast = 2 * full > sum(w.numel() for w in weights)  # a model in bfloat16 needs none

    def __call__(self, batch: dict[str, Tensor], *args, **kwargs) -> Tensor:
        if not self.checked:
            return self._first(batch, *args, **kwargs)
        return self._fast(batch, *args, **kwargs)

    def _fast(self, batch, *args, **kwargs) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast), bfloat16_scores():
            return self.exact(batch, *args, **kwargs).float()

    def _first(self, batch, *args, **kwargs) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            expected = self.exact(batch, *args, **kwargs)
        linears = quantize_linears(self.policy) if self.mode == "int8" else {}
        found = self._fast(batch, *args, **kwargs)
        error = (found - expected).abs().mean().item()
        self.checked = True
        if not error <= LARGEST_ERROR:  # NaN is too large as well
            restore_linears(self.policy, linears)
            self.policy.predict_action_chunk = self.exact
            logging.warning(
                "--policy.inference=%s is off by %.3f standard deviations on the first observation (at most %.2f): "
                "going on as trained.",
                self.mode,
                error,
                LARGEST_ERROR,
            )
            return expected
        logging.info("--policy.inference=%s: %.4f standard deviations from the exact chunk.", self.mode, error)
        return found


def use_inference_mode(policy) -> None:
    """Apply `config.inference`; ValueError where the policy is not on a CPU or plans without chunks."""
    mode = policy.config.inference
    if mode == "exact":
        return
    if policy.config.device != "cpu":
        raise ValueError(
            f"--policy.inference={mode} is for a CPU and the policy is on '{policy.config.device}': there use "
            "--policy.use_amp=true."
        )
    if policy.name == "tdmpc":
        raise ValueError("--policy.inference: TD-MPC plans without a chunk of its own; leave it exact.")
    policy.predict_action_chunk = FastChunks(policy, mode)
