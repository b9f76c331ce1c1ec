"""Checkpoints: one folder per saved step, written under a temporary name and renamed when it is whole.

A save has two halves. `take_snapshot` copies everything that training changes to memory; `write_snapshot` puts the
copy on disk, and may run beside the training.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lerobot.common.checks.camera_ghost import save_references
from lerobot.common.constants import (
    CHECKPOINTS_DIR,
    LAST_CHECKPOINT_LINK,
    PRETRAINED_MODEL_DIR,
    RNG_STATE,
    SAFETENSORS_SINGLE_FILE,
    SCHEDULER_STATE,
    TRAIN_CONFIG_NAME,
    TRAINING_STATE_DIR,
    TRAINING_STEP,
)
from lerobot.common.optim.optimizers import (
    copy_optimizer_state,
    load_optimizer_state,
    save_optimizer_state,
    write_optimizer_state,
)
from lerobot.common.optim.schedulers import load_scheduler_state, save_scheduler_state
from lerobot.common.policies.adapters import ADAPTER_WEIGHTS, adapter_weights, has_adapter
from lerobot.common.training.manifest import write_manifest
from lerobot.common.utils.io_utils import atomic_path, read_json, write_json
from lerobot.common.utils.random_utils import load_rng_state, save_rng_state, serialize_rng_state

RECORD_NAME = "training_record.json"
SCALER_STATE = "scaler_state.json"
TRAINED_WEIGHTS = "trained_weights.safetensors"  # where model.safetensors holds averaged ones


def get_step_identifier(step: int, total_steps: int) -> str:
    """Zero-padded folder name of a step."""
    return f"{step:0{max(6, len(str(total_steps)))}d}"


def get_step_checkpoint_dir(output_dir: Path, total_steps: int, step: int) -> Path:
    """`<output_dir>/checkpoints/<step>`."""
    return Path(output_dir) / CHECKPOINTS_DIR / get_step_identifier(step, total_steps)


def save_training_step(step: int, save_dir: Path, **progress) -> None:
    """Write training_step.json; `progress` says how the data was divided."""
    write_json({"step": step, **progress}, Path(save_dir) / TRAINING_STEP)


def load_training_step(save_dir: Path) -> int:
    """Read training_step.json."""
    return read_json(Path(save_dir) / TRAINING_STEP)["step"]


def update_last_checkpoint(checkpoint_dir: Path) -> Path:
    """Point the `last` link at a checkpoint; the old link is replaced in one step."""
    return replace_link(Path(checkpoint_dir).parent / LAST_CHECKPOINT_LINK, Path(checkpoint_dir).name)


def replace_link(link: Path, target: str) -> Path:
    """Make `link` a symbolic link to its neighbour `target`; there is no moment without a link."""
    if link.is_dir() and not link.is_symlink():
        raise FileExistsError(f"{link} is a folder where the link to a checkpoint belongs; move it away.")
    partial = link.with_name(f".{link.name}.{os.getpid()}.part")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    os.replace(partial, link)
    return link


@dataclass
class Snapshot:
    """The state of a run after `step` updates, independent of the training that goes on."""

    step: int
    policy: Any  # only for the files beside its weights
    weights: dict[str, torch.Tensor]  # of the policy that is evaluated and deployed
    train_config: dict[str, Any]
    processors: list = field(default_factory=list)
    optimizer: dict | None = None
    scheduler: dict | None = None
    rng: dict[str, torch.Tensor] = field(default_factory=dict)
    scaler: dict[str, Any] | None = None
    trained_weights: dict[str, torch.Tensor] | None = None  # where `weights` are averaged ones
    progress: dict[str, int] = field(default_factory=dict)
    record: dict[str, Any] | None = None
    references: dict[str, Any] = field(default_factory=dict)  # camera -> one picture of the training data


def take_snapshot(step: int, cfg, policy, optimizer=None, scheduler=None, processors=(), **more) -> Snapshot:
    """Copy the state of a run to CPU memory; `more` are further fields of the Snapshot."""
    return Snapshot(
        step=step,
        policy=policy,
        weights=more.pop("weights", None) or copy_weights(policy),
        train_config=cfg.to_dict(),
        processors=[p for p in processors if p is not None],
        optimizer=more.pop("optimizer_state", None) or (copy_optimizer_state(optimizer) if optimizer else None),
        scheduler=copy.deepcopy(scheduler.state_dict()) if scheduler is not None else None,
        rng=serialize_rng_state(),
        **more,
    )


def copy_weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state dict on the CPU, independent of the module; tensors that share memory still share it."""
    copies: dict[tuple, torch.Tensor] = {}
    weights = {}
    for name, tensor in module.state_dict().items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if tensor.numel() else (name,)
        if place not in copies:
            copies[place] = tensor.detach().to("cpu", copy=True).contiguous()
        weights[name] = copies[place]
    return weights


def write_weights(weights: dict[str, torch.Tensor], path: Path) -> None:
    """A safetensors file; of tensors that share memory the first name is stored and the others refer to it."""
    kept: dict[int, str] = {}
    refers = {}
    for name in sorted(weights):
        first = kept.setdefault(id(weights[name]), name)
        if first != name:
            refers[name] = first
    save_file({n: t for n, t in weights.items() if n not in refers}, path, metadata=refers or None)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """What `write_weights` wrote, every name with its tensor."""
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())  # noqa: SIM118  not a mapping
        refers = {name: first for name, first in (file.metadata() or {}).items() if first in names}
    weights = load_file(path)
    return weights | {name: weights[first] for name, first in refers.items()}


def write_snapshot(snapshot: Snapshot, checkpoint_dir: Path) -> None:
    """Put a snapshot on disk: all of it, or nothing under that name."""
    with atomic_path(checkpoint_dir) as partial:
        model_dir, state_dir = partial / PRETRAINED_MODEL_DIR, partial / TRAINING_STATE_DIR
        model_dir.mkdir(parents=True)
        state_dir.mkdir()
        snapshot.policy._save_files(model_dir)
        if has_adapter(snapshot.policy):
            write_weights(adapter_weights(snapshot.policy, snapshot.weights), model_dir / ADAPTER_WEIGHTS)
        else:
            write_weights(snapshot.weights, model_dir / SAFETENSORS_SINGLE_FILE)
        write_json(snapshot.train_config, model_dir / TRAIN_CONFIG_NAME)
        for pipeline in snapshot.processors:
            pipeline.save_pretrained(model_dir)
        save_references(snapshot.references, model_dir)
        if snapshot.record is not None:
            write_json(snapshot.record, model_dir / RECORD_NAME)
        save_training_step(snapshot.step, state_dir, **snapshot.progress)
        save_file(snapshot.rng, state_dir / RNG_STATE)
        if snapshot.optimizer is not None:
            write_optimizer_state(snapshot.optimizer, state_dir)
        for state, name in ((snapshot.scheduler, SCHEDULER_STATE), (snapshot.scaler, SCALER_STATE)):
            if state:
                write_json(state, state_dir / name)
        if snapshot.trained_weights is not None:
            write_weights(snapshot.trained_weights, state_dir / TRAINED_WEIGHTS)
        write_manifest(partial, snapshot.step)


def save_checkpoint(
    checkpoint_dir: Path,
    step: int,
    cfg,
    policy,
    optimizer,
    scheduler=None,
    preprocessor=None,
    postprocessor=None,
    **_,
) -> None:
    """Write weights, configuration, processors and training state of one step."""
    processors = (preprocessor, postprocessor)
    write_snapshot(take_snapshot(step, cfg, policy, optimizer, scheduler, processors), Path(checkpoint_dir))


def save_training_state(checkpoint_dir: Path, train_step: int, optimizer=None, scheduler=None) -> None:
    """Write what a resumed run needs beside the weights."""
    folder = Path(checkpoint_dir) / TRAINING_STATE_DIR
    folder.mkdir(parents=True, exist_ok=True)
    save_training_step(train_step, folder)
    save_rng_state(folder)
    if optimizer is not None:
        save_optimizer_state(optimizer, folder)
    if scheduler is not None:
        save_scheduler_state(scheduler, folder)


def load_training_state(checkpoint_dir: Path, optimizer, scheduler=None, load_optimizer: bool = True):
    """Restore generators, optimizer and scheduler; returns (step, optimizer, scheduler)."""
    folder = require_training_state(checkpoint_dir)
    load_rng_state(folder)
    if load_optimizer:
        optimizer = load_optimizer_state(optimizer, folder)
    if scheduler is not None and (folder / SCHEDULER_STATE).is_file():
        scheduler = load_scheduler_state(scheduler, folder)
    return load_training_step(folder), optimizer, scheduler


def require_training_state(checkpoint_dir: Path) -> Path:
    """The folder training_state of a checkpoint; NotADirectoryError where there is none."""
    folder = Path(checkpoint_dir) / TRAINING_STATE_DIR
    if not folder.is_dir():
        raise NotADirectoryError(
            f"{folder} is absent: '{checkpoint_dir}' holds weights only, so no run can continue from it. "
            "Start a new run from it by --policy.path."
        )
    return folder


def read_progress(checkpoint_dir: Path) -> dict[str, int]:
    """training_step.json: `step`, and how the data was divided where that was written."""
    return read_json(Path(checkpoint_dir) / TRAINING_STATE_DIR / TRAINING_STEP)


def load_trained_weights(checkpoint_dir: Path) -> dict[str, torch.Tensor] | None:
    """The weights that training continues from where model.safetensors holds averaged ones, else None."""
    path = Path(checkpoint_dir) / TRAINING_STATE_DIR / TRAINED_WEIGHTS
    return read_weights(path) if path.is_file() else None
