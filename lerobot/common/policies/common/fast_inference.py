"""Faster chunks: `--policy.inference`.

`exact` (default) computes the same numbers faster: on a CPU from weights that oneDNN packed, on a GPU from a recorded
CUDA graph. `bf16` and `int8` round more on a CPU, and tell by how much. Each is compared with the policy as it was
trained, from the same noise, on the first observation, and is given up with a message where it is off. `plain` tries
nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from lerobot.common.policies.common.int8 import busy_linears, quantize_linears
from lerobot.common.policies.common.packed_linear import (
    has_onednn_products,
    is_linear,
    pack_linears,
    restore_linears,
)
from lerobot.common.policies.common.recorded import Recorded

LARGEST_ERROR = 0.05  # mean absolute difference, in normalized units


class FastChunks:
    """`predict_action_chunk` of a policy on a CPU in a faster way, once its first chunk has shown that it may."""

    def __init__(self, policy, mode: str):
        self.policy, self.mode = policy, mode
        self.plain: Callable[..., Tensor] = policy.predict_action_chunk
        self.checked = False
        weights = list(policy.parameters())
        full = sum(w.numel() for w in weights if w.dtype == torch.float32)
        # a model in bfloat16 needs no autocast
        self.autocast = mode != "exact" and 2 * full > sum(w.numel() for w in weights)

    def __call__(self, batch: dict[str, Tensor], *args, **kwargs) -> Tensor:
        """What `predict_action_chunk` returns, `(B, T, A)`; in float32 but for "exact"."""
        if not self.checked:
            return self._first(batch, *args, **kwargs)
        return self._fast(batch, *args, **kwargs)

    def _fast(self, batch, *args, **kwargs) -> Tensor:
        if self.mode == "exact":
            return self.plain(batch, *args, **kwargs)
        autocast = torch.autocast("cpu", torch.bfloat16) if self.autocast else nullcontext()
        with autocast:
            return self.plain(batch, *args, **kwargs).float()

    def _first(self, batch, *args, **kwargs) -> Tensor:
        """The plain and the fast chunk of the first observation; gives the fast way up where they are too far apart."""
        with torch.random.fork_rng(devices=[]), busy_linears(self.policy) as busy:
            expected = self.plain(batch, *args, **kwargs)
        replaced = self._replace_linears(busy)
        found = self._fast(batch, *args, **kwargs)
        self.checked = True
        if self._accepts(found, expected):
            return found
        restore_linears(self.policy, replaced)
        self.policy.predict_action_chunk = self.plain
        return expected

    def _replace_linears(self, busy: set[str]) -> dict[str, nn.Linear]:
        replaced = quantize_linears(self.policy, busy) if self.mode == "int8" else {}
        if has_onednn_products():
            replaced |= pack_linears(self.policy, half=self.autocast)
        return replaced

    def _accepts(self, found: Tensor, expected: Tensor) -> bool:
        if self.mode == "exact":
            same = torch.equal(found, expected)
            if not same:
                logging.warning(
                    "Packed weights give other actions than plain ones on the first observation (by %.1e): going on "
                    "with plain ones.",
                    (found - expected).abs().max().item(),
                )
            return same
        error = (found - expected).abs().mean().item()
        if error <= LARGEST_ERROR:  # NaN is too large as well
            logging.info("--policy.inference=%s: %.4f standard deviations from the exact chunk.", self.mode, error)
            return True
        logging.warning(
            "--policy.inference=%s is off by %.3f standard deviations on the first observation (at most %.2f): going "
            "on as trained.",
            self.mode,
            error,
            LARGEST_ERROR,
        )
        return False


def use_inference_mode(policy) -> None:
    """Apply `config.inference`; ValueError for a mode that the device or the policy does not have."""
    mode, device = policy.config.inference, torch.device(policy.config.device)
    if mode in ("bf16", "int8"):
        if device.type != "cpu":
            raise ValueError(
                f"--policy.inference={mode} is for a CPU and the policy is on '{device}': there use "
                "--policy.use_amp=true."
            )
        if policy.name == "tdmpc":
            raise ValueError("--policy.inference: TD-MPC plans without a chunk of its own; leave it exact.")
        policy.predict_action_chunk = FastChunks(policy, mode)
    elif mode == "exact" and device.type == "cuda" and not getattr(policy.config, "compile_model", False):
        record_calls(policy, device)
    elif mode == "exact" and device.type == "cpu" and _has_half_linears(policy) and has_onednn_products():
        policy.predict_action_chunk = FastChunks(policy, mode)


def record_calls(policy, device: torch.device, recorder=None) -> None:
    """Have the methods that `policy.recordable` names recorded, each at its first call with new shapes."""
    for path in policy.recordable:
        parent, _, method = path.rpartition(".")
        owner = policy.get_submodule(parent)
        chosen = {} if recorder is None else {"recorder": recorder}
        setattr(owner, method, Recorded(getattr(owner, method), f"{policy.name}: {path}", device, **chosen))


def _has_half_linears(policy) -> bool:
    return any(is_linear(m) and m.weight.dtype == torch.bfloat16 for m in policy.modules())
