"""Small helpers of policies: observation queues, device and shape of a module, eval mode for inference."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def populate_queues(
    queues: dict[str, deque], batch: dict[str, Tensor], exclude_keys: Iterable[str] | None = None
) -> dict[str, deque]:
    """Append each value of `batch` to the queue of its key; a queue that is not yet full is filled with it.

    Keys without a queue, and `exclude_keys`, are left out. Returns `queues`, changed in place.
    """
    skipped = set(exclude_keys or ())
    for key, value in batch.items():
        if key in skipped or key not in queues:
            continue
        queue = queues[key]
        queue.extend([value] * max(1, queue.maxlen - len(queue)))
    return queues


def get_device_from_parameters(module: nn.Module) -> torch.device:
    """The device of a module's first parameter."""
    return next(module.parameters()).device


def get_dtype_from_parameters(module: nn.Module) -> torch.dtype:
    """The dtype of a module's first parameter."""
    return next(module.parameters()).dtype


@contextmanager
def eval_mode(module: nn.Module):
    """Put a module into eval mode and give each sub-module its own mode back afterwards."""
    training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        yield
    finally:
        for sub in training:
            sub.training = True


@torch.no_grad()
def get_output_shape(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a module's output for an input of `input_shape`; running statistics stay as they are."""
    with eval_mode(module):
        return tuple(module(torch.zeros(input_shape)).shape)


def log_model_loading_keys(missing_keys: list[str], unexpected_keys: list[str]) -> None:
    """Warn of what `load_state_dict` did not match."""
    if missing_keys:
        logging.warning("Missing key(s) when loading the model: %s", missing_keys)
    if unexpected_keys:
        logging.warning("Unexpected key(s) when loading the model: %s", unexpected_keys)
