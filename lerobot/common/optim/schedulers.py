"""Learning-rate schedules: multipliers on every group's initial rate, evaluated at the count of completed updates."""

import abc
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import draccus
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from lerobot.common.constants import SCHEDULER_STATE
from lerobot.common.utils.io_utils import merge_known, read_json, write_json

POLYNOMIAL_END = 1e-7  # the last learning rate of `polynomial`


@dataclass
class LRSchedulerConfig(draccus.ChoiceRegistry, abc.ABC):
    """What every schedule has."""

    num_warmup_steps: int | None = None

    @property
    def type(self) -> str:
        """The registered name."""
        return self.get_choice_name(type(self))

    @abc.abstractmethod
    def multiplier(self, num_training_steps: int) -> Callable[[int], float]:
        """The factor on the initial rate as a function of completed updates."""

    def build(self, optimizer: Optimizer, num_training_steps: int) -> LRScheduler:
        """Make the torch scheduler for a run of `num_training_steps` updates."""
        return LambdaLR(optimizer, self.multiplier(num_training_steps), -1)


def _half_cosine(progress: float, cycles: float = 0.5) -> float:
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * 2.0 * cycles * progress)))


@LRSchedulerConfig.register_subclass("diffuser")
@dataclass
class DiffuserSchedulerConfig(LRSchedulerConfig):
    """Linear warm-up, then a shape by its name in the `diffusers` library, as Diffusion Policy trains.

    `cosine`, `cosine_with_restarts` (one cycle), `linear`, `polynomial` (of degree 1, to a rate of 1e-7) or
    `constant_with_warmup`; `constant` has no warm-up.
    """

    name: str = "cosine"

    def build(self, optimizer: Optimizer, num_training_steps: int) -> LRScheduler:
        return LambdaLR(optimizer, self.multiplier(num_training_steps, optimizer.defaults["lr"]), -1)

    def multiplier(self, num_training_steps: int, initial_lr: float = 1e-3) -> Callable[[int], float]:
        """`initial_lr` counts for `polynomial` alone: its last rate is absolute."""
        warmup, span = self.num_warmup_steps or 0, max(1, num_training_steps - (self.num_warmup_steps or 0))
        floor = POLYNOMIAL_END / initial_lr

        def linear(step: int) -> float:
            return max(0.0, (num_training_steps - step) / span)

        tails = {
            "cosine": lambda s: _half_cosine((s - warmup) / span),
            "cosine_with_restarts": lambda s: _half_cosine(min(1.0, (s - warmup) / span)),
            "linear": linear,
            "polynomial": lambda s: (1 - floor) * linear(s) + floor,
            "constant_with_warmup": lambda s: 1.0,
        }
        if self.name == "constant":
            return lambda s: 1.0
        if self.name not in tails:
            raise ValueError(f"--scheduler.name={self.name}: expected one of constant, {', '.join(tails)}.")
        return lambda s: s / max(1, warmup) if s < warmup else tails[self.name](s)


@LRSchedulerConfig.register_subclass("vqbet")
@dataclass
class VQBeTSchedulerConfig(LRSchedulerConfig):
    """Constant while the VQ-VAE trains, then warm-up and cosine (its span does not subtract the VQ-VAE's steps)."""

    num_vqvae_training_steps: int = 20000
    num_cycles: float = 0.5

    def multiplier(self, num_training_steps: int) -> Callable[[int], float]:
        warmup = self.num_warmup_steps or 0

        def factor(step: int) -> float:
            after = step - self.num_vqvae_training_steps
            if after < 0:
                return 1.0
            if after < warmup:
                return after / max(1, warmup)
            return _half_cosine((after - warmup) / max(1, num_training_steps - warmup), self.num_cycles)

        return factor


@LRSchedulerConfig.register_subclass("cosine_decay_with_warmup")
@dataclass
class CosineDecayWithWarmupSchedulerConfig(LRSchedulerConfig):
    """Warm-up, then a cosine from `peak_lr` to `decay_lr` over `num_decay_steps`, scaled down for shorter runs.

    The cosine is a function of the step itself, not of the step since the warm-up, so the rate drops a little where
    they meet. If the run is shorter than `num_decay_steps`, both lengths shrink in proportion (LeRobot 0.4.0 on).
    """

    num_warmup_steps: int = 1000
    num_decay_steps: int = 30000
    peak_lr: float = 1e-4
    decay_lr: float = 2.5e-6

    def multiplier(self, num_training_steps: int) -> Callable[[int], float]:
        warmup, decay = self.num_warmup_steps, self.num_decay_steps
        if num_training_steps < decay:
            warmup, decay = int(warmup * num_training_steps / decay), num_training_steps
            logging.info("Learning-rate schedule scaled to the run: warm-up %d, decay %d steps.", warmup, decay)
        floor = self.decay_lr / self.peak_lr

        def factor(step: int) -> float:
            if step < warmup:
                start = 1 / (warmup + 1)
                return start if step <= 0 else (start - 1) * (1 - step / warmup) + 1
            return (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(step, decay) / decay)) + floor

        return factor


@LRSchedulerConfig.register_subclass("constant_with_warmup")
@dataclass
class ConstantWithWarmupSchedulerConfig(LRSchedulerConfig):
    """Linear warm-up, then constant."""

    num_warmup_steps: int = 1000

    def multiplier(self, num_training_steps: int) -> Callable[[int], float]:
        return lambda step: min(1.0, step / max(1, self.num_warmup_steps))


@LRSchedulerConfig.register_subclass("cosine_annealing_with_warmup")
@dataclass
class CosineAnnealingWithWarmupSchedulerConfig(LRSchedulerConfig):
    """Linear warm-up, then a cosine to zero at the end of the run."""

    num_warmup_steps: int = 1000

    def multiplier(self, num_training_steps: int) -> Callable[[int], float]:
        warmup = self.num_warmup_steps
        span = max(1, num_training_steps - warmup)
        return lambda s: s / max(1, warmup) if s < warmup else _half_cosine((s - warmup) / span)


def save_scheduler_state(scheduler: LRScheduler, save_dir: Path) -> None:
    """Write the scheduler's counters as JSON."""
    write_json(scheduler.state_dict(), Path(save_dir) / SCHEDULER_STATE)


def load_scheduler_state(scheduler: LRScheduler, save_dir: Path) -> LRScheduler:
    """Restore what `save_scheduler_state` wrote; keys unknown to this torch keep their current value.

    Base rates stay those of the optimizer as it was built, so that a resumed run may have others, or more groups.
    """
    saved = read_json(Path(save_dir) / SCHEDULER_STATE)
    scheduler.load_state_dict(merge_known(scheduler.state_dict(), saved, skip=("lr_lambdas", "base_lrs", "_last_lr")))
    rates = [base * f(scheduler.last_epoch) for f, base in zip(scheduler.lr_lambdas, scheduler.base_lrs, strict=True)]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates
    return scheduler
