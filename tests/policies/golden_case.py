"""Reading golden cases: a policy with the weights of the formula, its processors, and what LeRobot gave for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lerobot.common.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.configs.policies import PreTrainedConfig

from .weights_formula import fill, values

ARTIFACTS = Path(__file__).parents[1] / "artifacts"


class GoldenCase:
    """A case of LeRobot 0.4.4; its policy counts padded steps in the loss, as that release does."""

    def __init__(self, name: str):
        self.folder = ARTIFACTS / name
        self.tensors = load_file(self.folder / "tensors.safetensors")
        self.meta = json.loads((self.folder / "meta.json").read_text())
        config = PreTrainedConfig.from_pretrained(self.folder / "checkpoint")
        config.loss_over_padding = True
        self.policy = get_policy_class(config.type)(config)
        fill(self.policy, self.meta["salt"])
        self.policy.load_state_dict(self.named("buffer."), strict=False)
        self.pre, self.post = make_pre_post_processors(config, pretrained_path=self.folder / "checkpoint")

    def named(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose names begin so, without that beginning."""
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}

    def batch(self) -> dict[str, Tensor]:
        """The preprocessed training batch."""
        return {**self.named("raw."), **self.named("batch.")}

    def seed(self, offset: int) -> None:
        """Put torch's generator where LeRobot's stood: offset 1 for training, 2 for the rollout, 3 with noise."""
        torch.manual_seed(self.meta["seed"] + offset)

    def observations(self) -> list[dict[str, Tensor]]:
        """The preprocessed observations of the rollout."""
        raw = self.named("infer.raw.")
        return [self.pre({k: v[i].clone() for k, v in raw.items()}) for i in range(len(self.tensors["infer.actions"]))]


def write_legacy_checkpoint(name: str, folder: Path) -> tuple[dict[str, Tensor], dict]:
    """Write a checkpoint of LeRobot 0.1.0, statistics inside the weights; returns the case's tensors and notes."""
    tensors = load_file(ARTIFACTS / name / "tensors.safetensors")
    meta = json.loads((ARTIFACTS / name / "meta.json").read_text())
    held = {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(("norm.", "buffer."))}
    weights = {
        k: held[k].clone() if k in held else values(meta["salt"] + k, tuple(shape))
        for k, (_, shape) in meta["state_dict"].items()
    }
    shutil.copy(ARTIFACTS / name / "config.json", folder)
    save_file(weights, folder / "model.safetensors")
    return tensors, meta


def legacy_actions(folder: Path, tensors: dict[str, Tensor], meta: dict) -> Tensor:
    """Raw actions of `select_action` on the case's observations, by a checkpoint loaded from `folder`."""
    policy = get_policy_class(meta["kind"]).from_pretrained(folder)
    pre, post = make_pre_post_processors(policy.config, pretrained_path=folder)
    raw = {k.removeprefix("infer.raw."): v for k, v in tensors.items() if k.startswith("infer.raw.")}
    torch.manual_seed(meta["seed"] + 2)
    steps = range(len(tensors["infer.actions"]))
    return torch.stack([post(policy.select_action(pre({k: v[i].clone() for k, v in raw.items()}))) for i in steps])
