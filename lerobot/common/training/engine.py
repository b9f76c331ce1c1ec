"""How one optimizer step is computed: on one device, or on many processes started by `accelerate launch`.

An `Engine` owns mixed precision, gradient accumulation and, in `DistributedEngine` and `ShardedEngine`, the exchange
between processes.
The gradient of a step is that of the mean over the whole global batch, however it is divided: a part of the batch
counts by its number of frames, and a masked mean by its number of valid steps (`masked_mean` asks for the ratio).
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager, nullcontext

import torch

from lerobot.common.optim.clipping import clip_gradients
from lerobot.common.optim.optimizers import copy_optimizer_state, load_optimizer_state
from lerobot.common.policies.common.losses import shared_denominators
from lerobot.common.training.checkpoint import copy_weights
from lerobot.common.utils.device import amp_dtype, mixed_precision
from lerobot.common.utils.memory import keep_all_freed_pages


def make_engine(cfg) -> Engine:
    """The engine for this process: distributed where `accelerate launch` (or torchrun) started it."""
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1 or "ACCELERATE_MIXED_PRECISION" in os.environ
    if not launched:
        return Engine(cfg)
    from lerobot.common.training.distributed import DistributedEngine
    from lerobot.common.training.sharding import ShardedEngine, sharding_asked

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        logging.warning("accelerate launch started one process; --num_processes=N before the script starts more.")
        return Engine(cfg)
    return (ShardedEngine if sharding_asked() else DistributedEngine)(cfg)


class Engine:
    """One process on one device.

    `use_amp` means bfloat16 autocast where it is supported (no scaling needed), else float16 with scaled gradients.
    """

    rank, world_size = 0, 1

    def __init__(self, cfg):
        self.device = torch.device(cfg.policy.device)
        if self.device.type == "cpu":
            keep_all_freed_pages()
        self.accumulation = cfg.gradient_accumulation_steps
        self.enabled = cfg.policy.use_amp
        half = self.enabled and amp_dtype(self.device) is torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        self.policy: torch.nn.Module | None = None
        self.model: torch.nn.Module | None = None  # the policy, or what wraps it

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and log lines."""
        return self.rank == 0

    def prepare(self, policy, optimizer):
        """Wrap policy and optimizer for this engine; `model` is what a batch is given to."""
        self.policy = self.model = policy
        return optimizer

    def autocast(self):
        """The context of a forward pass."""
        return mixed_precision(self.device, self.enabled)

    def backward_of(self, batches: list[dict], sizes: list[int]) -> tuple[torch.Tensor, dict]:
        """Accumulate the gradient of the mean over the global batch; returns this process's share of the loss.

        batches: the micro-batches of this process. sizes: frames of every part of the global batch, in the order of
        rank and micro-batch; a part of size 0 stands for one too many, and counts nothing.
        """
        mine = sizes[self.rank * self.accumulation :][: self.accumulation]
        masks, everyone = [{}] * len(batches), None
        if len(sizes) > 1:  # counting waits for a GPU, and one part alone has nobody to compare itself with
            masks = [self.policy.step_masks(batch) for batch in batches]
            valid = [_valid_steps(each) * bool(size) for each, size in zip(masks, mine, strict=True)]
            everyone = self.sum(torch.stack(valid).sum(0))
        total, infos = 0.0, []
        for i, (batch, size) in enumerate(zip(batches, mine, strict=True)):
            weight = size * self.world_size / sum(sizes)
            ratios = {} if everyone is None else dict(zip(masks[i], _ratios(valid[i], everyone), strict=True))
            with self.gradients_exchanged(i + 1 == len(batches)), shared_denominators(ratios):
                with self.autocast():
                    loss, info = self.model(batch)
                self.backward(loss * weight)
            total = total + loss.detach() * weight
            infos.append((weight, info or {}))
        return total, _weighted(infos)

    def backward(self, loss: torch.Tensor) -> None:
        """Gradients of the (scaled) loss."""
        self.scaler.scale(loss).backward()

    def gradients_exchanged(self, now: bool):
        """Context of a forward and backward pass; with several processes gradients travel only in the last one."""
        return nullcontext()

    def clip(self, policy, optimizer, max_norm: float) -> torch.Tensor:
        """Bring the gradients to their true size, clip them to `max_norm` (0: not) and return their norm before."""
        self.scaler.unscale_(optimizer)
        limit = max_norm if max_norm > 0 else float("inf")
        return clip_gradients(policy.parameters(), limit)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Optimizer step, skipped when scaled gradients overflowed."""
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)

    def scaler_state(self) -> dict:
        """State of the gradient scaler; empty where none is needed."""
        return self.scaler.state_dict()

    def load_scaler_state(self, state: dict) -> None:
        """Restore `scaler_state`."""
        if state and self.scaler.is_enabled():
            self.scaler.load_state_dict(state)

    # --- what several processes do together; alone it is trivial -----------------------------------------------

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """Sum over all processes."""
        return value

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Mean over all processes, by name."""
        return values

    def barrier(self) -> None:
        """Wait for all processes."""

    @contextmanager
    def main_first(self):
        """The main process runs the block first (downloads, stores), the others after it."""
        yield

    def weights(self, policy) -> dict[str, torch.Tensor]:
        """All weights on the CPU."""
        return copy_weights(policy)

    def load_weights(self, policy, weights: dict[str, torch.Tensor]) -> None:
        """Put weights that `weights` returned back into the policy."""
        policy.load_state_dict(weights)

    @contextmanager
    def whole_policy(self, policy):
        """A block in which one process may use the policy without the others; all processes enter and leave it."""
        yield

    def optimizer_state(self, optimizer) -> dict:
        """The optimizer's state on the CPU, in the form of `copy_optimizer_state`."""
        return copy_optimizer_state(optimizer)

    def load_optimizer(self, optimizer, folder) -> None:
        """Restore the optimizer from a checkpoint's training_state."""
        load_optimizer_state(optimizer, folder)

    def close(self) -> None:
        """End what this process shares with others."""


def _valid_steps(masks: dict[str, torch.Tensor]) -> torch.Tensor:
    """(M, 2): valid steps and all steps of every mask."""
    counts = [[int((~is_pad).sum()), is_pad.numel()] for is_pad in masks.values()]
    return torch.tensor(counts, dtype=torch.int64).view(-1, 2)


def _ratios(own: torch.Tensor, everyone: torch.Tensor) -> list[float]:
    """By what a part's counts of valid steps (M, 2) are multiplied so that they are the average part's."""
    return [
        float(all_valid / all_steps) / float(valid / steps) if valid and all_steps else 1.0
        for (valid, steps), (all_valid, all_steps) in zip(own, everyone, strict=True)
    ]


def _weighted(infos: list[tuple[float, dict]]) -> dict:
    """Numbers that the policy reports, averaged over micro-batches; what is not a number is the last one's."""
    if len(infos) == 1:
        return infos[0][1]
    whole = sum(weight for weight, _ in infos) or 1.0
    last = infos[-1][1]
    numbers = (int, float, torch.Tensor)
    return {
        k: sum(w * i[k] for w, i in infos) / whole if isinstance(v, numbers) and not isinstance(v, bool) else v
        for k, v in last.items()
    }
