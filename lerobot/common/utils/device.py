"""Choosing and checking the torch device."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext

import torch


def is_torch_device_available(try_device: str) -> bool:
    """Whether tensors can be put on `try_device` (`cpu`, `cuda`, `cuda:1`, `mps`); ValueError for other names."""
    kind = try_device.split(":")[0]
    index = try_device.partition(":")[2] or "0"
    if kind == "cuda" and index.isdecimal():
        return torch.cuda.is_available() and int(index) < torch.cuda.device_count()
    if kind == "mps":
        return torch.backends.mps.is_available()
    if kind == "cpu":
        return True
    raise ValueError(f"Unknown device '{try_device}': expected cpu, cuda, cuda:<index> or mps.")


def auto_select_torch_device() -> torch.device:
    """The best device here: cuda, else mps, else cpu."""
    return torch.device(next(d for d in ("cuda", "mps", "cpu") if is_torch_device_available(d)))


def get_safe_torch_device(try_device: str, log: bool = False) -> torch.device:
    """Return the torch device, or raise ValueError if it is not available here."""
    if not is_torch_device_available(str(try_device)):
        raise ValueError(
            f"Device '{try_device}' is not available on this machine; use device '{auto_select_torch_device()}' "
            "(flag --policy.device, or the override {'device_processor': {'device': ...}})."
        )
    if log:
        logging.info("Using device %s", try_device)
    return torch.device(try_device)


def is_amp_available(device: str) -> bool:
    """Whether torch.autocast is used on `device`."""
    return str(device).split(":")[0] in ("cuda", "cpu")


def amp_dtype(device: torch.device | str) -> torch.dtype:
    """What mixed precision computes in: bfloat16, or float16 on GPUs that lack it."""
    lacking = torch.device(device).type == "cuda" and not torch.cuda.is_bf16_supported()
    return torch.float16 if lacking else torch.bfloat16


def mixed_precision(device: torch.device | str, enabled: bool) -> AbstractContextManager:
    """The context of a forward pass, the same in training and on the arm; does nothing where not `enabled`."""
    return torch.autocast(torch.device(device).type, amp_dtype(device)) if enabled else nullcontext()
