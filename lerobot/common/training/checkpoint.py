"""Checkpoints: one folder per saved step, written under a temporary name and renamed when it is whole."""

from __future__ import annotations

import os
from pathlib import Path

from lerobot.common.constants import (
    CHECKPOINTS_DIR,
    LAST_CHECKPOINT_LINK,
    PRETRAINED_MODEL_DIR,
    SCHEDULER_STATE,
    TRAINING_STATE_DIR,
    TRAINING_STEP,
)
from lerobot.common.optim.optimizers import load_optimizer_state, save_optimizer_state
from lerobot.common.optim.schedulers import load_scheduler_state, save_scheduler_state
from lerobot.common.utils.io_utils import atomic_path, read_json, write_json
from lerobot.common.utils.random_utils import load_rng_state, save_rng_state


def get_step_identifier(step: int, total_steps: int) -> str:
    """Zero-padded folder name of a step."""
    return f"{step:0{max(6, len(str(total_steps)))}d}"


def get_step_checkpoint_dir(output_dir: Path, total_steps: int, step: int) -> Path:
    """`<output_dir>/checkpoints/<step>`."""
    return Path(output_dir) / CHECKPOINTS_DIR / get_step_identifier(step, total_steps)


def save_training_step(step: int, save_dir: Path) -> None:
    """Write training_step.json."""
    write_json({"step": step}, Path(save_dir) / TRAINING_STEP)


def load_training_step(save_dir: Path) -> int:
    """Read training_step.json."""
    return read_json(Path(save_dir) / TRAINING_STEP)["step"]


def update_last_checkpoint(checkpoint_dir: Path) -> Path:
    """Point the `last` link at a checkpoint; the old link is replaced in one step."""
    link = Path(checkpoint_dir).parent / LAST_CHECKPOINT_LINK
    if link.is_dir() and not link.is_symlink():
        raise FileExistsError(f"{link} is a folder where the link to the newest checkpoint belongs; move it away.")
    partial = link.with_name(f".{LAST_CHECKPOINT_LINK}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    partial.symlink_to(Path(checkpoint_dir).name)
    os.replace(partial, link)
    return link


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
    with atomic_path(checkpoint_dir) as partial:
        model_dir = partial / PRETRAINED_MODEL_DIR
        policy.save_pretrained(model_dir)
        cfg.save_pretrained(model_dir)
        for pipeline in (preprocessor, postprocessor):
            if pipeline is not None:
                pipeline.save_pretrained(model_dir)
        save_training_state(partial, step, optimizer, scheduler)


def save_training_state(checkpoint_dir: Path, step: int, optimizer=None, scheduler=None) -> None:
    """Write what a resumed run needs beside the weights."""
    folder = Path(checkpoint_dir) / TRAINING_STATE_DIR
    folder.mkdir(parents=True, exist_ok=True)
    save_training_step(step, folder)
    save_rng_state(folder)
    if optimizer is not None:
        save_optimizer_state(optimizer, folder)
    if scheduler is not None:
        save_scheduler_state(scheduler, folder)


def load_training_state(checkpoint_dir: Path, optimizer, scheduler=None, load_optimizer: bool = True):
    """Restore generators, optimizer and scheduler; returns (step, optimizer, scheduler)."""
    folder = Path(checkpoint_dir) / TRAINING_STATE_DIR
    if not folder.is_dir():
        raise NotADirectoryError(
            f"{folder} is absent: '{checkpoint_dir}' holds weights only, so no run can continue from it."
        )
    load_rng_state(folder)
    if load_optimizer:
        optimizer = load_optimizer_state(optimizer, folder)
    if scheduler is not None and (folder / SCHEDULER_STATE).is_file():
        scheduler = load_scheduler_state(scheduler, folder)
    return load_training_step(folder), optimizer, scheduler
