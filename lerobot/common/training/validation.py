"""Validation on held-out episodes while training: loss and action error, without touching the training's randomness."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset

from lerobot.common.constants import ACTION_IS_PAD
from lerobot.common.datasets.collate import collate
from lerobot.common.datasets.factory import make_dataset
from lerobot.common.evaluation.open_loop import OpenLoopReport, open_loop_error
from lerobot.common.training.processors import images_as_float
from lerobot.common.utils.logging_utils import Averages, is_number
from lerobot.common.utils.random_utils import derive_seed, seeded_context

EVERY = 15  # frames between predictions of the action error


class HeldOut:
    """The held-out episodes, and what a policy does on them; the dataset is opened when it is first needed."""

    def __init__(self, cfg, episodes: list[int]):
        self.cfg, self.episodes = cfg, episodes

    @cached_property
    def dataset(self):
        """The held-out episodes without augmentation."""
        dataset = make_dataset(self.cfg, episodes=self.episodes, return_uint8=True)
        dataset.image_transforms = None
        return dataset

    @property
    def frames(self) -> list[int]:
        """The frames that are looked at: all, or `max_eval_samples` evenly spaced ones."""
        count, most = len(self.dataset), self.cfg.max_eval_samples
        return list(range(count)) if not most or most >= count else [i * count // most for i in range(most)]

    def is_due(self, step: int) -> bool:
        """Whether the configuration wants a validation after this update."""
        return bool(self.episodes and self.cfg.eval_steps and step % self.cfg.eval_steps == 0)

    def losses(self, policy, preprocessor) -> dict[str, float]:
        """Mean `loss` of the policy in eval mode over the frames, every valid step counting the same, with whatever
        numbers the policy reports beside it.
        """
        device = torch.device(self.cfg.policy.device)
        policy.eval()
        means = Averages()
        with torch.no_grad(), seeded_context(derive_seed(self.cfg.seed, 0)):
            for batch in DataLoader(Subset(self.dataset, self.frames), self.cfg.batch_size, collate_fn=collate):
                weight = int((~batch[ACTION_IS_PAD]).sum()) if ACTION_IS_PAD in batch else len(batch["index"])
                loss, info = policy.forward(preprocessor(images_as_float(batch, device)))
                means.add({k: float(v) for k, v in {**(info or {}), "loss": loss}.items() if is_number(v)}, weight)
        return {"loss": 0.0, **means.take()}

    def action_error(self, policy, preprocessor, postprocessor) -> OpenLoopReport:
        """Predicted against recorded chunks, in the units of the dataset."""
        every = max(EVERY, len(self.dataset) // self.cfg.max_eval_samples) if self.cfg.max_eval_samples else EVERY
        return open_loop_error(policy, preprocessor, postprocessor, self.dataset, every=every)

    def validate(self, run, step: int) -> dict[str, float]:
        """{"loss", "action_error", "action_error/<joint>"} after `step`, and what the policy reports beside its loss;
        the error by horizon goes to a file.
        """
        with run.deployed():
            losses = self.losses(run.policy, run.preprocessor)
            error = self.action_error(run.policy, run.preprocessor, run.postprocessor)
        if run.engine.is_main:
            error.save_json(Path(self.cfg.output_dir) / "eval" / f"held_out_{step:06d}.json")
        by_joint = error.to_dict()["per_joint"]
        return {**losses, "action_error": error.overall, **{f"action_error/{k}": v for k, v in by_joint.items()}}
