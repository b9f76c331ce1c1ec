"""The parts of a run that a checkpoint holds, and how they go into one and come back."""

from __future__ import annotations

import logging
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from lerobot.common.constants import SCHEDULER_STATE
from lerobot.common.optim.schedulers import load_scheduler_state
from lerobot.common.training.checkpoint import (
    SCALER_STATE,
    Snapshot,
    load_trained_weights,
    read_progress,
    require_training_state,
    take_snapshot,
)
from lerobot.common.training.data import BatchPlan
from lerobot.common.training.ema import WeightAverage
from lerobot.common.training.engine import Engine
from lerobot.common.training.record import read_record
from lerobot.common.utils.io_utils import read_json
from lerobot.common.utils.random_utils import load_rng_state


@dataclass
class Run:
    """Everything that changes while training, and the record of what does not."""

    cfg: Any
    engine: Engine
    plan: BatchPlan
    policy: Any
    optimizer: Any
    scheduler: Any
    preprocessor: Any
    postprocessor: Any
    record: dict[str, Any]
    references: dict[str, Any]  # camera -> one picture of the training data
    average: WeightAverage | None = field(default=None, init=False)

    def __post_init__(self):
        if self.cfg.resume:
            require_same_run(self.cfg, self.plan, self.record)
        if self.cfg.ema_decay:
            self.average = WeightAverage(self.policy, self.cfg.ema_decay)

    def restore(self) -> int:
        """Continue from `cfg.checkpoint_path`; returns the number of updates done."""
        folder = require_training_state(self.cfg.checkpoint_path)
        trained = load_trained_weights(self.cfg.checkpoint_path)
        if trained is not None:  # the policy was loaded with the averaged weights
            self.engine.load_weights(self.policy, trained)
        if trained is not None and not self.average:
            logging.warning("The run averaged its weights; without --ema_decay the average ends here.")
        load_rng_state(folder)
        self.engine.load_optimizer(self.optimizer, folder)
        if self.scheduler is not None and (folder / SCHEDULER_STATE).is_file():
            load_scheduler_state(self.scheduler, folder)
        if (folder / SCALER_STATE).is_file():
            self.engine.load_scaler_state(read_json(folder / SCALER_STATE))
        return read_progress(self.cfg.checkpoint_path)["step"]

    def after_update(self, step: int) -> None:
        """Let the average follow the weights after update number `step`."""
        if self.average is not None:
            self.average.update(step)

    def snapshot(self, step: int) -> Snapshot | None:
        """A copy of the state after `step` updates; all processes take part, the main one has it."""
        weights, trained = self.deployed_weights()
        optimizer = self.engine.optimizer_state(self.optimizer)
        if not self.engine.is_main:
            return None
        return take_snapshot(
            step,
            self.cfg,
            self.policy,
            self.optimizer,
            self.scheduler,
            (self.preprocessor, self.postprocessor),
            weights=weights,
            trained_weights=trained,
            optimizer_state=optimizer,
            scaler=self.engine.scaler_state(),
            progress=self.plan.to_dict(),
            record=self.record | {"step": step},
            references=self.references,
        )

    def deployed_weights(self):
        """(weights to evaluate and deploy, weights to train on where these are others)."""
        own = self.engine.weights(self.policy)
        if self.average is None:
            return own, None
        with self.average.applied():
            return self.engine.weights(self.policy), own

    @contextmanager
    def deployed(self):
        """Context in which the policy has the weights that a checkpoint deploys, whole in every process."""
        average = self.average.applied() if self.average else nullcontext()
        with average, self.engine.whole_policy(self.policy):
            yield


def require_same_run(cfg, plan: BatchPlan, record: dict[str, Any]) -> None:
    """ValueError, before the first step, if the data or its division into steps is not that of the checkpoint."""
    progress = read_progress(require_training_state(cfg.checkpoint_path).parent)
    if "num_frames" in progress:
        saved = BatchPlan(
            progress["num_frames"],
            progress["batch_size"],
            progress["num_processes"],
            progress["gradient_accumulation_steps"],
        )
        if saved.global_batch != plan.global_batch:
            raise ValueError(
                f"The checkpoint was trained with {_division(saved)} frames per step, now {_division(plan)}. Keep the "
                f"product at {saved.global_batch} by --batch_size and --gradient_accumulation_steps, or start a new "
                f"run from it: --policy.path={cfg.policy.pretrained_path}."
            )
    before, now = (read_record(cfg.checkpoint_path) or {}).get("dataset"), record["dataset"]
    if not before:
        return
    keys = ("fps", "frames", "episodes", "tasks", "robot_type", "fingerprint")
    if changed := [key for key in keys if before.get(key) != now[key]]:
        raise ValueError(
            f"The dataset {now['root']} is not the one that the checkpoint was trained on: {', '.join(changed)} "
            f"changed (frames {before['frames']}, now {now['frames']}). Give that dataset by --dataset.root, or start "
            f"a new run on this one: --policy.path={cfg.policy.pretrained_path}."
        )


def _division(plan: BatchPlan) -> str:
    return f"{plan.processes} processes x {plan.accumulation} micro-batches x {plan.batch_size} = {plan.global_batch}"
