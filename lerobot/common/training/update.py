"""One optimizer step with the signatures of LeRobot 0.3.4 and 0.4.4, for loops of one's own."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import torch

from lerobot.common.optim.clipping import clip_gradients
from lerobot.common.policies.utils import get_device_from_parameters


def update_policy(
    train_metrics: Any,
    policy: torch.nn.Module,
    batch: dict[str, Any],
    optimizer: torch.optim.Optimizer,
    grad_clip_norm: float,
    grad_scaler: Any | None = None,
    lr_scheduler: Any | None = None,
    use_amp: bool = False,
    lock: Any | None = None,
    *,
    accelerator: Any | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Forward, backward, clip and step on a preprocessed batch; returns the metrics and what the policy reports.

    The sixth argument is a gradient scaler or an `accelerate.Accelerator`. Sets loss, grad_norm (before clipping; no
    clipping at 0), lr (after the scheduler's step) and update_s of `train_metrics`.
    """
    start = time.perf_counter()
    if accelerator is None and hasattr(grad_scaler, "backward"):
        grad_scaler, accelerator = None, grad_scaler
    policy.train()
    with _autocast(policy, use_amp, accelerator):
        loss, output = policy.forward(batch)
    if accelerator is not None:
        accelerator.backward(loss)
    else:
        (loss if grad_scaler is None else grad_scaler.scale(loss)).backward()
    if grad_scaler is not None:
        grad_scaler.unscale_(optimizer)
    norm = _clip(policy, grad_clip_norm or float("inf"), accelerator)
    with nullcontext() if lock is None else lock:
        if grad_scaler is None:
            optimizer.step()
        else:
            grad_scaler.step(optimizer)
            grad_scaler.update()
    optimizer.zero_grad()
    if lr_scheduler is not None:
        lr_scheduler.step()
    inner = policy if accelerator is None else accelerator.unwrap_model(policy)
    if hasattr(inner, "update"):
        inner.update()
    train_metrics.loss, train_metrics.grad_norm = loss.item(), norm.item()
    train_metrics.lr, train_metrics.update_s = optimizer.param_groups[0]["lr"], time.perf_counter() - start
    return train_metrics, output or {}


def _autocast(policy, use_amp: bool, accelerator):
    if accelerator is not None:
        return accelerator.autocast()
    return torch.autocast(get_device_from_parameters(policy).type) if use_amp else nullcontext()


def _clip(policy, largest: float, accelerator) -> torch.Tensor:
    if accelerator is not None:
        return accelerator.clip_grad_norm_(policy.parameters(), largest)
    return clip_gradients(policy.parameters(), largest)
