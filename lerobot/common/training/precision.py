"""Mixed precision: autocast, and loss scaling where float16 needs it."""

from __future__ import annotations

from contextlib import nullcontext

import torch


class Precision:
    """What `use_amp` means on a device: bfloat16 where it is supported (no scaling needed), else scaled float16."""

    def __init__(self, config):
        self.device = torch.device(config.device)
        self.enabled = config.use_amp
        half = self.device.type == "cuda" and not torch.cuda.is_bf16_supported()
        self.dtype = torch.float16 if half else torch.bfloat16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.enabled and half)

    def autocast(self):
        """The context of a forward pass."""
        return torch.autocast(self.device.type, self.dtype) if self.enabled else nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        """Gradients of the (scaled) loss."""
        self.scaler.scale(loss).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Bring the gradients back to their true size before clipping."""
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Optimizer step, skipped when scaled gradients overflowed."""
        self.scaler.step(optimizer)
        self.scaler.update()
