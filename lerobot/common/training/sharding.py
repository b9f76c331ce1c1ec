"""The engine of a run whose weights, gradients and moments are divided among the processes (FSDP2 of torch).

Every large layer is gathered for its own forward and backward pass, the small ones for the whole step. What leaves the
engine is whole: weights by their names and moments by their index, as one process would save them.
"""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from lerobot.common.training.distributed import DistributedEngine

UNIT_SHARE = 1 / 2048  # of all parameters: a layer at least this large is gathered by itself
UNIT_TYPES = (nn.Linear, nn.Conv1d, nn.Conv2d)  # layers that are used through their forward only


def sharding_asked() -> bool:
    """Whether `accelerate launch --use_fsdp` started this process."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1", "yes")


class ShardedEngine(DistributedEngine):
    """Fully sharded training. Accelerate starts the processes; torch's `fully_shard` divides the policy.

    Raises ValueError for float16 (its scaled gradients are not built for parts) and for adapters.
    """

    def __init__(self, cfg):
        asked = os.environ.pop("ACCELERATE_USE_FSDP")  # Accelerate shards on GPUs only, by rules of its own
        try:
            super().__init__(cfg)
        finally:
            os.environ["ACCELERATE_USE_FSDP"] = asked
        if self.accelerator.mixed_precision == "fp16":
            raise ValueError("FSDP in float16 is not built: use accelerate launch --mixed_precision=bf16.")
        if os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true":
            raise ValueError("--fsdp_offload_params=true is not built: leave it out of accelerate launch.")
        if cfg.peft:
            raise ValueError("--peft.* trains too little to divide: leave --use_fsdp out of accelerate launch.")

    def prepare(self, policy, optimizer):
        """Divide the policy in place, and let the optimizer work on the parts."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # nothing writes into one
        mesh = init_device_mesh(self.device.type, (self.world_size,))
        names = {id(p): name for name, p in policy.named_parameters()}
        policy.to(self.device)
        for module in units(policy):
            fully_shard(module, mesh=mesh)
        self.policy = self.model = fully_shard(policy, mesh=mesh)
        parts = dict(policy.named_parameters())
        for group in optimizer.param_groups:
            group["params"] = [parts[names[id(p)]] for p in group["params"]]
        return optimizer

    def autocast(self):
        """The mixed precision that was asked for; weights and gradients stay as they are."""
        return self.accelerator.autocast() if self.accelerator.mixed_precision == "bf16" else nullcontext()

    def gradients_exchanged(self, now: bool):
        """Gradients travel once per step; buffers are those of the main process, as with DDP."""
        self.model.set_requires_gradient_sync(now)
        share_buffers(self.model)
        return nullcontext()

    def clip(self, policy, optimizer, max_norm: float) -> torch.Tensor:
        """Norm over all parts before clipping."""
        trained = [p for p in policy.parameters() if p.grad is not None]
        norm = whole(torch.nn.utils.get_total_norm([p.grad for p in trained]))
        if max_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(trained, max_norm, norm)
        return norm

    def weights(self, policy) -> dict[str, torch.Tensor]:
        """All weights on the CPU of the main process, tensor after tensor; empty on the others."""
        copies: dict[int, torch.Tensor] = {}
        weights = {}
        for name, tensor in policy.state_dict(keep_vars=True).items():
            if id(tensor) not in copies:
                copies[id(tensor)] = self._to_main(tensor)
            weights[name] = copies[id(tensor)]
        return weights if self.is_main else {}

    def _to_main(self, tensor: torch.Tensor) -> torch.Tensor | None:
        gathered = whole(tensor.detach())
        return gathered.to("cpu", copy=True).contiguous() if self.is_main else None

    def load_weights(self, policy, weights: dict[str, torch.Tensor]) -> None:
        """Give every process its part of whole weights."""
        with torch.no_grad():
            for name, tensor in policy.state_dict(keep_vars=True).items():
                tensor.copy_(part_of(weights[name], tensor))

    def optimizer_state(self, optimizer) -> dict:
        """Whole moments by index, as one process has them."""
        from lerobot.common.optim.optimizers import copy_optimizer_state

        copied = copy_optimizer_state(optimizer, self._to_main)
        return copied if self.is_main else {}

    def load_optimizer(self, optimizer, folder) -> None:
        """Give every process its part of the moments in a checkpoint."""
        from lerobot.common.optim.optimizers import load_optimizer_state

        load_optimizer_state(optimizer, folder, place=part_of)

    @contextmanager
    def whole_policy(self, policy):
        """In this block every process holds all weights, so that one of them may evaluate without the others."""
        from torch.distributed.fsdp import FSDPModule

        divided = [m for m in policy.modules() if isinstance(m, FSDPModule)]
        for module in divided:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in divided:
                module.reshard()
                module.set_reshard_after_forward(module is not policy, recurse=False)


def units(policy: nn.Module) -> list[nn.Module]:
    """The layers that are gathered by themselves: large, called as modules, and with no tensor of another layer.

    None where processes may run different layers: they gather together, or wait for each other for ever.
    """
    if getattr(policy, "draws_layers", False):
        return []
    owners: dict[int, int] = {}
    for module in policy.modules():
        for p in module.parameters(recurse=False):
            owners[id(p)] = owners.get(id(p), 0) + 1
    inside = {id(m) for a in policy.modules() if isinstance(a, nn.MultiheadAttention) for m in a.modules()}
    least = UNIT_SHARE * sum(p.numel() for p in policy.parameters())
    return [
        module
        for module in policy.modules()
        if type(module) in UNIT_TYPES
        and id(module) not in inside
        and sum(p.numel() for p in module.parameters()) >= least
        and all(owners[id(p)] == 1 for p in module.parameters())
    ]


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A divided tensor gathered on every process; another one as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def part_of(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`tensor` divided as `like` is."""
    if not hasattr(like, "full_tensor"):
        return tensor.to(like.device)
    from torch.distributed.tensor import distribute_tensor

    tensor = tensor.to(device=like.device)
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def share_buffers(module: nn.Module) -> None:
    """Give every process the buffers of the main one (codebooks, running means)."""
    import torch.distributed as dist

    buffers = [b for b in module.buffers() if b.is_floating_point() and b.numel()]
    if not buffers:
        return
    flat = torch.cat([b.detach().reshape(-1).to(torch.float64) for b in buffers])
    dist.broadcast(flat, 0)
    for buffer, piece in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.data.copy_(piece.view_as(buffer))
