"""The engine of a run on many processes: DDP through Accelerate (sharding.py: FSDP)."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from datetime import timedelta

import torch

from lerobot.common.training.engine import Engine

PATIENCE = timedelta(hours=12)  # processes wait while the main one evaluates or fills a store


class DistributedEngine(Engine):
    """What `accelerate launch` configured: processes, device, mixed precision, DDP.

    Every process computes its parts of the global batch; one writes. `use_amp` asks for bfloat16; without it the
    setting of `accelerate launch --mixed_precision` counts. Raises ImportError without accelerate.
    """

    def __init__(self, cfg):
        try:
            from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
        except ImportError as e:
            raise ImportError("Training on several processes needs accelerate: pip install -e '.[multi_gpu]'.") from e
        super().__init__(cfg)
        self.accelerator = Accelerator(
            mixed_precision="bf16" if cfg.policy.use_amp else None,
            cpu=self.device.type == "cpu",
            step_scheduler_with_optimizer=False,
            kwargs_handlers=[
                DistributedDataParallelKwargs(find_unused_parameters=True),
                InitProcessGroupKwargs(timeout=PATIENCE),
            ],
        )
        self.device = self.accelerator.device
        self.rank, self.world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.scaler = self.accelerator.scaler or torch.amp.GradScaler(self.device.type, enabled=False)

    def prepare(self, policy, optimizer):
        """Wrap policy and optimizer; the policy's own methods stay callable on the unwrapped one."""
        self.policy = policy
        self.model, prepared = self.accelerator.prepare(policy, optimizer)
        return prepared

    def autocast(self):
        """Accelerate's wrapped forward casts by itself."""
        return nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        """Gradients, averaged over the processes in the last micro-batch of a step."""
        self.accelerator.backward(loss)

    def gradients_exchanged(self, now: bool):
        """Gradients travel once per step."""
        return nullcontext() if now else self.accelerator.no_sync(self.model)

    def clip(self, policy, optimizer, max_norm: float) -> torch.Tensor:
        """Norm over all processes before clipping."""
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), max_norm if max_norm > 0 else float("inf"))
        return torch.as_tensor(norm)

    def step(self, optimizer) -> None:
        """Optimizer step; Accelerate skips it when scaled gradients overflowed."""
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """Sum over all processes, on the CPU."""
        return self.accelerator.reduce(value.to(self.device), "sum").cpu()

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Mean over all processes; durations are the slowest one's."""
        rows = self.accelerator.gather(torch.tensor([list(values.values())], dtype=torch.float64, device=self.device))
        rows = rows.cpu()
        return {k: float(rows[:, i].max() if k.endswith("_s") else rows[:, i].mean()) for i, k in enumerate(values)}

    def barrier(self) -> None:
        """Wait for all processes."""
        self.accelerator.wait_for_everyone()

    @contextmanager
    def main_first(self):
        """The main process runs the block first, the others after it."""
        with self.accelerator.main_process_first():
            yield

    def optimizer_state(self, optimizer) -> dict:
        """The optimizer's state on the main process; empty on the others."""
        return super().optimizer_state(optimizer.optimizer) if self.is_main else {}

    def weights(self, policy) -> dict[str, torch.Tensor]:
        """All weights on the CPU of the main process; empty on the others."""
        return super().weights(policy) if self.is_main else {}

    def load_optimizer(self, optimizer, folder) -> None:
        """Restore the optimizer that Accelerate wraps."""
        super().load_optimizer(optimizer.optimizer, folder)

    def close(self) -> None:
        """Leave the process group."""
        self.accelerator.end_training()
