"""What guidance did at each denoising step, for looking at (`--policy.rtc_config.debug=true`)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

DIGITS = 6  # of the denoising time by which a step is known


@dataclass
class DebugStep:
    """One denoising step; what was not tracked is None."""

    step_idx: int = 0
    x_t: Tensor | None = None  # the chunk on its way from noise to actions, (B, T, D)
    v_t: Tensor | None = None  # guided velocity
    x1_t: Tensor | None = None  # the actions that the unguided velocity leads to
    correction: Tensor | None = None  # what the velocity was corrected by, before its weight
    err: Tensor | None = None  # old actions minus x1_t, where they count
    weights: Tensor | None = None  # how much each old action counts, (1, T, 1)
    guidance_weight: Tensor | float | None = None
    time: float | None = None  # 1 (noise) to 0 (actions)
    inference_delay: int | None = None
    execution_horizon: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)  # whatever else was tracked

    def to_dict(self, include_tensors: bool = False) -> dict[str, Any]:
        """Fields by name; of tensors, unless included, `<name>_stats` with shape, mean, std, min and max."""
        result = {}
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if name == "guidance_weight" and isinstance(value, Tensor) and value.numel() == 1:
                result[name] = value.item()
            elif isinstance(value, Tensor):
                result |= {name: value} if include_tensors else {f"{name}_stats": _stats(value)}
            elif value is not None or name not in TENSORS:
                result[name] = value
        return result


TENSORS = ("x_t", "v_t", "x1_t", "correction", "err", "weights")


def _stats(value: Tensor) -> dict[str, Any]:
    value = value.detach().float()
    spread = value.std(correction=min(1, value.numel() - 1)).item()
    found = {"mean": value.mean().item(), "std": spread, "min": value.min().item(), "max": value.max().item()}
    return {"shape": tuple(value.shape), **found}


class Tracker:
    """The latest `maxlen` steps, each known by its denoising time; keeps nothing unless `enabled`."""

    def __init__(self, enabled: bool = False, maxlen: int = 100):
        self.enabled, self.maxlen = enabled, maxlen
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._steps: OrderedDict[float, DebugStep] = OrderedDict()
        self._count = 0

    def track(self, time: float | Tensor, **tracked: Any) -> None:
        """Add fields of `DebugStep` to the step at `time`, or others to its metadata."""
        if not self.enabled:
            return
        when = float(torch.as_tensor(time).flatten()[0])
        key = round(when, DIGITS)
        if key not in self._steps:
            self._steps[key] = DebugStep(self._count, time=when)
            self._count += 1
            if len(self._steps) > self.maxlen:
                self._steps.popitem(last=False)
        step = self._steps[key]
        known = {f.name for f in fields(DebugStep)} - {"metadata", "step_idx"}
        for name, value in tracked.items():
            value = value.detach().clone() if isinstance(value, Tensor) else value
            if name not in known:
                step.metadata[name] = value
            elif value is not None:
                setattr(step, name, value)

    def get_all_steps(self) -> list[DebugStep]:
        """The steps that are kept, the oldest first."""
        return list(self._steps.values())

    def __len__(self) -> int:
        return len(self._steps)
