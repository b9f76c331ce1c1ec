"""Optimizer configurations, and their state on disk."""

import abc
import copy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import draccus
import torch
from safetensors.torch import load_file, save_file

from lerobot.common.constants import OPTIMIZER_PARAM_GROUPS, OPTIMIZER_STATE
from lerobot.common.utils.io_utils import (
    flatten_dict,
    merge_known,
    read_json,
    unflatten_dict,
    write_json,
)


@dataclass
class OptimizerConfig(draccus.ChoiceRegistry, abc.ABC):
    """What every optimizer has; `grad_clip_norm` is applied by the training loop (0: no clipping)."""

    lr: float = 1e-3
    weight_decay: float = 0.0
    grad_clip_norm: float = 10.0

    @property
    def type(self) -> str:
        """The registered name."""
        return self.get_choice_name(type(self))

    @classmethod
    def default_choice_name(cls) -> str:
        """`--optimizer.lr=...` works without naming a type."""
        return "adam"

    @abc.abstractmethod
    def build(self, params) -> torch.optim.Optimizer:
        """Make the torch optimizer over parameters or parameter groups."""

    def torch_arguments(self) -> dict[str, Any]:
        """The fields that the torch constructor takes."""
        return {k: v for k, v in asdict(self).items() if k != "grad_clip_norm"}


@OptimizerConfig.register_subclass("adam")
@dataclass
class AdamConfig(OptimizerConfig):
    """torch.optim.Adam."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def build(self, params) -> torch.optim.Optimizer:
        # One pass over memory in place of eight: on a CPU a third of the time.
        return torch.optim.Adam(params, fused=True, **self.torch_arguments())


@OptimizerConfig.register_subclass("adamw")
@dataclass
class AdamWConfig(OptimizerConfig):
    """torch.optim.AdamW."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-2

    def build(self, params) -> torch.optim.Optimizer:
        return torch.optim.AdamW(params, fused=True, **self.torch_arguments())


@OptimizerConfig.register_subclass("sgd")
@dataclass
class SGDConfig(OptimizerConfig):
    """torch.optim.SGD."""

    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    def build(self, params) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, **self.torch_arguments())


@OptimizerConfig.register_subclass("multi_adam")
@dataclass
class MultiAdamConfig(OptimizerConfig):
    """One Adam per named parameter group; `optimizer_groups` overrides lr, betas, eps and weight_decay by name."""

    optimizer_groups: dict[str, dict[str, Any]] = field(default_factory=dict)

    def build(self, params: dict[str, list]) -> dict[str, torch.optim.Optimizer]:
        if not isinstance(params, dict):
            raise AssertionError(f"multi_adam builds from a dict name -> parameters, got {type(params).__name__}.")
        return {name: self._build_one(name, group) for name, group in params.items()}

    def _build_one(self, name: str, group: list) -> torch.optim.Optimizer:
        own = self.optimizer_groups.get(name, {})
        return torch.optim.Adam(
            group,
            lr=own.get("lr", self.lr),
            betas=tuple(own.get("betas", (0.9, 0.999))),
            eps=own.get("eps", 1e-5),
            weight_decay=own.get("weight_decay", self.weight_decay),
        )


@OptimizerConfig.register_subclass("xvla-adamw")
@dataclass
class XVLAAdamWConfig(OptimizerConfig):
    """AdamW over X-VLA's three groups: what is named `vlm` at a tenth of rate and decay, soft prompts, the rest.

    `soft_prompt_warmup_lr_scale`, if set, is the soft prompts' first rate over `lr`, else `soft_prompt_lr_scale` is.
    """

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    soft_prompt_lr_scale: float = 1.0
    soft_prompt_warmup_lr_scale: float | None = None

    def build(self, params: dict[str, torch.nn.Parameter]) -> torch.optim.Optimizer:
        if not isinstance(params, dict):
            raise AssertionError(
                f"xvla-adamw builds from dict(policy.named_parameters()), got {type(params).__name__}."
            )
        trained = {name.lower(): p for name, p in params.items() if p.requires_grad}
        vlm = {name: p for name, p in trained.items() if "vlm" in name}
        prompts = {name: p for name, p in trained.items() if "soft_prompt" in name and name not in vlm}
        rest = [p for name, p in trained.items() if name not in vlm and name not in prompts]
        scale = self.soft_prompt_warmup_lr_scale
        scale = self.soft_prompt_lr_scale if scale is None else scale
        groups = [
            {"name": "vlm", "params": [*vlm.values()], "lr": self.lr * 0.1, "weight_decay": self.weight_decay * 0.1},
            {"name": "soft_prompts", "params": [*prompts.values()], "lr": self.lr * scale},
            {"name": "other", "params": rest},
        ]
        used = [group for group in groups if group["params"]]
        return torch.optim.AdamW(used, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)


def save_optimizer_state(optimizer, save_dir: Path) -> None:
    """Write an optimizer (or one per sub-folder for a dict of them) as safetensors and JSON."""
    write_optimizer_state(copy_optimizer_state(optimizer), save_dir)


def _to_cpu(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def copy_optimizer_state(optimizer, take=_to_cpu) -> dict[str, tuple[dict[str, torch.Tensor], list[dict]]]:
    """{sub-folder ("" for a single optimizer): (tensors by flat name, parameter groups)}; `take` copies a tensor."""
    if isinstance(optimizer, dict):
        return {name: part for name, one in optimizer.items() for part in copy_optimizer_state(one, take).values()}
    state = optimizer.state_dict()
    groups = copy.deepcopy(state.pop("param_groups"))
    return {"": ({k: take(torch.as_tensor(v)) for k, v in flatten_dict(state).items()}, groups)}


def write_optimizer_state(copied: dict[str, tuple[dict[str, torch.Tensor], list[dict]]], save_dir: Path) -> None:
    """Write what `copy_optimizer_state` returned."""
    for name, (tensors, groups) in copied.items():
        folder = Path(save_dir) / name
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / OPTIMIZER_STATE)
        write_json(groups, folder / OPTIMIZER_PARAM_GROUPS)


def load_optimizer_state(optimizer, save_dir: Path, place=None):
    """Restore what `save_optimizer_state` wrote. Group settings unknown to this torch keep their current value.

    `place(moment, parameter)` says how a process holds a moment of that parameter (default: whole).

    A group may say with `positions` where its tensors stand among all of the policy's; then the state is also found
    if the tensors were grouped in another way, and the settings are those of the current groups.
    """
    save_dir = Path(save_dir)
    if isinstance(optimizer, dict):
        return {name: load_optimizer_state(one, save_dir / name, place) for name, one in optimizer.items()}
    current = optimizer.state_dict()["param_groups"]
    saved = read_json(save_dir / OPTIMIZER_PARAM_GROUPS)
    state = unflatten_dict(load_file(save_dir / OPTIMIZER_STATE)).get("state", {})
    state = {int(k): v for k, v in state.items()}
    if _order(saved) != _order(current) and sorted(_order(saved)) == sorted(_order(current)):
        found = {position: state[i] for i, position in enumerate(_order(saved)) if i in state}
        state = {i: found[position] for i, position in enumerate(_order(current)) if position in found}
        saved = current
    if [len(g["params"]) for g in saved] != [len(g["params"]) for g in current]:
        raise ValueError(
            f"{save_dir} holds an optimizer over parameter groups of {[len(g['params']) for g in saved]} tensors, "
            f"the policy trains {[len(g['params']) for g in current]}: resume with the freezing flags of that run."
        )
    groups = [merge_known(new, old) for new, old in zip(current, saved, strict=True)]
    _refuse_other_shapes(optimizer, state, save_dir)
    if place is not None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for index, entries in state.items():
            own = parameters[index]
            entries.update({k: place(v, own) for k, v in entries.items() if v.shape == own.shape})
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return optimizer


def _order(groups: list[dict[str, Any]]) -> list[int]:
    """Position among all of the policy's tensors of each tensor of the groups, group after group."""
    count = sum(len(g["params"]) for g in groups)
    placed = {p for g in groups for p in g.get("positions", ())}
    free = iter(p for p in range(count) if p not in placed)
    return [p for g in groups for p in (g.get("positions") or [next(free) for _ in g["params"]])]


def _refuse_other_shapes(optimizer: torch.optim.Optimizer, state: dict[int, dict], where: Path) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, entries in state.items():
        expected, found = parameters[index].shape, entries.get("exp_avg", entries.get("momentum_buffer"))
        if found is not None and found.shape != expected:
            raise ValueError(
                f"{where} holds moments of shape {tuple(found.shape)} for tensor {index}, which has {tuple(expected)}: "
                "it belongs to another architecture. Resume with the --policy.* flags of that run."
            )
