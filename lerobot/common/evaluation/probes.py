"""Sensitivity probes: what a policy's actions depend on, found by taking one input away at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lerobot.common.constants import OBS_IMAGES, OBS_STATE, TASK
from lerobot.common.evaluation.open_loop import OpenLoopReport

SHIFT = 0.05  # of the picture's width
IGNORES, HARDLY = 0.02, 0.15  # change of the action, as a fraction of its change from frame to frame
MATTERS = 1.1  # an input whose loss makes the error this much larger is used, however little the actions change
REDRAW, INSTRUCTION, STATE, SHIFTED, ALL_BLANK = "noise", "instruction", "state", "shifted", "all cameras"

Probe = Callable[[dict[str, Any]], dict[str, Any]]


def make_probes(cameras: Sequence[str], tasks: Sequence[str], has_state: bool) -> dict[str, Probe]:
    """The probes for a dataset with these camera keys and sentences, named after what they take away."""
    probes: dict[str, Probe] = {key: _blank([key]) for key in cameras}
    if len(cameras) > 1:
        probes[ALL_BLANK] = _blank(cameras)
    if cameras:
        probes[SHIFTED] = _shift(cameras)
    if has_state:
        probes[STATE] = lambda batch: batch | {OBS_STATE: batch[OBS_STATE][derangement(len(batch[OBS_STATE]))]}
    probes[INSTRUCTION] = lambda batch: batch | {TASK: [other_sentence(one, tasks) for one in batch[TASK]]}
    return probes


def _blank(cameras: Sequence[str]) -> Probe:
    """Grey of the pictures' own mean, so that only what is to be seen is gone, not the light."""

    def change(batch: dict[str, Any]) -> dict[str, Any]:
        means = {key: batch[key].float().mean(dim=(-1, -2), keepdim=True) for key in cameras}
        return batch | {key: mean.expand(batch[key].shape).to(batch[key].dtype) for key, mean in means.items()}

    return change


def _shift(cameras: Sequence[str]) -> Probe:
    """Every picture moved to the right, its left edge repeated, as if each camera had been nudged."""

    def change(batch: dict[str, Any]) -> dict[str, Any]:
        return batch | {key: shift_right(batch[key], round(SHIFT * batch[key].shape[-1])) for key in cameras}

    return change


def shift_right(pictures: Tensor, pixels: int) -> Tensor:
    """Pictures (..., W) moved `pixels` to the right; what enters repeats the edge."""
    columns = (torch.arange(pictures.shape[-1]) - pixels).clamp_min(0)
    return pictures[..., columns]


def derangement(count: int) -> Tensor:
    """An order of `count` things in which none keeps its place (for one thing there is none); always the same."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    moved = torch.empty(count, dtype=torch.long)
    moved[order] = order.roll(1)
    return moved


def other_sentence(sentence: str, tasks: Sequence[str]) -> str:
    """Another sentence of the dataset; where there is none, the words of this one in another order."""
    if others := [task for task in tasks if task != sentence]:
        return others[len(sentence) % len(others)]
    words = sentence.split()
    return " ".join(words[i] for i in derangement(len(words)).tolist())


def how_used(change: float, error: float, error_with: float) -> str:
    """`ignores`, `hardly uses` or `uses`, of an input without which actions change by `change`."""
    if change < IGNORES:
        return "ignores"
    return "hardly uses" if change < HARDLY and error < MATTERS * error_with else "uses"


@dataclass
class ProbeResult:
    """How far the actions move without one input, and what that does to the error.

    `change` is the mean |action without it - action with it|, as a fraction of how far the actions of different
    frames are apart: 0 where the input is ignored, about 1 where the action becomes that of another moment.
    """

    name: str
    change: float
    error: float


def probe_results(report: OpenLoopReport) -> list[ProbeResult]:
    """The results of `report.probed`, in its order; empty if the policy gives the same action for every frame."""
    scale = action_spread(report)
    if scale < 1e-6:
        return []
    results = []
    for name, predicted in report.probed.items():
        moved = np.abs(predicted - report.predicted)[report.valid].mean()
        error = np.abs(predicted - report.recorded)[report.valid].mean()
        results.append(ProbeResult(name, float(moved / scale), float(error)))
    return results


def action_spread(report: OpenLoopReport) -> float:
    """Mean absolute difference between what is predicted for one frame and for another."""
    other = derangement(len(report.predicted)).numpy()
    return float(np.abs(report.predicted[other] - report.predicted)[report.valid].mean())


def camera_name(key: str) -> str:
    """`observation.images.phone` -> `phone`."""
    return key.removeprefix(f"{OBS_IMAGES}.").removeprefix("observation.")
