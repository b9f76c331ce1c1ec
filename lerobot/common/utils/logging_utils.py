"""Running averages of training numbers, and the log line made of them."""

from __future__ import annotations

from typing import Any

import torch


class AverageMeter:
    """A value and its running mean; tensors stay tensors, so that a GPU is not waited for until they are read."""

    def __init__(self, name: str, fmt: str = ":f"):
        self.name, self.fmt = name, fmt
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.val = self.sum = self.count = 0.0

    def update(self, val: Any, n: int = 1) -> None:
        """Take one more value, which stands for `n` samples."""
        self.val = val
        self.sum = self.sum + val * n
        self.count += n

    @property
    def avg(self) -> float:
        """The mean since the last reset."""
        return float(self.sum) / self.count if self.count else 0.0

    def __str__(self) -> str:
        return f"{self.name}:{format(self.avg, self.fmt.lstrip(':'))}"


class Averages:
    """Running means of the single numbers in dicts, by name; like a meter it does not wait for a GPU until `take`."""

    def __init__(self):
        self._meters: dict[str, AverageMeter] = {}

    def add(self, values: dict[str, Any], n: int = 1) -> None:
        """Take one more dict, which stands for `n` samples; what is no single number is left out."""
        for name, value in values.items():
            if is_number(value):
                tensor = isinstance(value, torch.Tensor)
                # Sums of half precision would stop growing.
                value = value.detach().float().reshape(()) if tensor else value
                self._meters.setdefault(name, AverageMeter(name)).update(value, n)

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        means = {name: meter.avg for name, meter in self._meters.items()}
        self._meters = {}
        return means


class MetricsTracker:
    """Counts of steps, samples, episodes and epochs, with one meter per name; `tracker.loss = x` updates a meter."""

    def __init__(
        self,
        batch_size: int,
        num_frames: int,
        num_episodes: int,
        metrics: dict[str, AverageMeter],
        initial_step: int = 0,
        **_,
    ):
        own = {"batch_size": batch_size, "num_frames": num_frames, "metrics": metrics}
        own["avg_frames_per_episode"] = num_frames / max(1, num_episodes)
        self.__dict__.update(own)
        self.__dict__.update(dict.fromkeys(("steps", "samples", "episodes", "epochs"), 0))
        self._set_counts(initial_step)

    def __getattr__(self, name: str) -> AverageMeter:
        metrics = self.__dict__.get("metrics", {})
        if name in metrics:
            return metrics[name]
        raise AttributeError(f"No metric '{name}'; known: {', '.join(metrics)}.")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            self.__dict__[name] = value
        elif name in self.metrics:
            self.metrics[name].update(value)
        else:
            raise AttributeError(f"No metric '{name}'; known: {', '.join(self.metrics)}.")

    def _set_counts(self, step: int) -> None:
        samples = step * self.batch_size
        self.__dict__.update(
            steps=step,
            samples=samples,
            episodes=samples / self.avg_frames_per_episode,
            epochs=samples / self.num_frames,
        )

    def step(self) -> None:
        """Count one update."""
        self._set_counts(self.steps + 1)

    def reset_averages(self) -> None:
        """Start new averages."""
        for meter in self.metrics.values():
            meter.reset()

    def to_dict(self, use_avg: bool = True) -> dict[str, float]:
        """Counts and meters as numbers."""
        counts = {k: self.__dict__[k] for k in ("steps", "samples", "episodes", "epochs")}
        return counts | {k: m.avg if use_avg else float(m.val) for k, m in self.metrics.items()}

    def __str__(self) -> str:
        big = format_big_number
        counts = f"step:{self.steps} smpl:{big(self.samples)} ep:{big(self.episodes)} epch:{self.epochs:.2f}"
        return " ".join([counts, *(str(m) for m in self.metrics.values())])


def is_number(value: Any) -> bool:
    """Whether it is one number, or a tensor of one."""
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def format_big_number(num: float, precision: int = 0) -> str:
    """1234567 -> '1M'."""
    for suffix in ("", "K", "M", "B", "T"):
        if abs(num) < 1000:
            return f"{num:.{precision}f}{suffix}"
        num /= 1000
    return f"{num:.{precision}f}Q"
