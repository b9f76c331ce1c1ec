"""What several tests of training runs look at, and the kill test."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from lerobot.common.training.metrics import read_lines

ROOT = Path(__file__).parents[2]


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    """The weights that a run saved after `step`."""
    return load_file(Path(run) / "checkpoints" / f"{step:06d}" / "pretrained_model" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def losses(run: Path) -> list[float]:
    """Every logged loss."""
    return [row["loss"] for row in read_lines(Path(run) / "metrics.jsonl") if "loss" in row]
