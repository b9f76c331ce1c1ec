"""Loss and actions of every golden case, here and there, whichever layout its files have."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from lerobot.common.policies.factory import get_policy_class
from lerobot.common.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, PolicyFeature

from .golden_case import ARTIFACTS, GoldenCase
from .pi0.test_pi0_golden import Case as Pi0Case
from .regression_table import tiny_config
from .vqbet.test_vqbet_golden import set_phase
from .weights_formula import fill


class Peer(GoldenCase):
    """A case with the weights of the formula and a rollout."""

    def __init__(self, name: str):
        super().__init__(name)
        if self.policy.name == "vqbet":
            set_phase(self, 2)

    def start(self, offset: int) -> None:
        self.seed(offset)
        np.random.seed(self.meta["seed"] + offset)

    def loss(self) -> tuple[float, float]:
        self.start(1)
        return self.policy.train().forward(self.batch())[0].item(), self.meta["train"]["loss"]

    def actions(self) -> tuple[Tensor, Tensor]:
        self.start(2)
        found = [self.policy.select_action(observation) for observation in self.observations()]
        return torch.stack(found), self.tensors["infer.actions"]


class SmolVLACase:
    """A case of SmolVLA, whose draws are given."""

    def __init__(self, name: str):
        folder = ARTIFACTS / name
        self.meta, self.tensors = (
            json.loads((folder / "meta.json").read_text()),
            load_file(folder / "tensors.safetensors"),
        )
        with inside(folder):  # the vision-language model lies beside the checkpoint
            config = PreTrainedConfig.from_pretrained("checkpoint")
            config.loss_over_padding = True
            self.policy = SmolVLAPolicy.from_pretrained("checkpoint", config=config, strict=True)
        self.batch = {k.partition(".")[2]: v for k, v in self.tensors.items() if k.startswith(("raw.", "batch."))}
        self.batch |= {k[6:]: v for k, v in self.tensors.items() if k.startswith("batch.")}

    def loss(self) -> tuple[float, float]:
        draws = {name: self.tensors[name] for name in ("noise", "time")}
        return self.policy.train().forward(self.batch, **draws)[0].item(), self.meta["loss"]

    def actions(self) -> tuple[Tensor, Tensor]:
        chunk = self.policy.predict_action_chunk(self.batch, noise=self.tensors["noise"])
        return chunk, self.tensors["infer.actions"]


class Pi0Core(Pi0Case):
    """A case of pi0's flow-matching core."""

    def __init__(self, name: str):
        super().__init__(ARTIFACTS / name)

    def loss(self) -> tuple[float, float]:
        t = self.tensors
        losses = self.model(self.context(), t["in.actions"], t["noise"], t["time"])
        return losses.mean().item(), self.meta["loss"]

    @torch.no_grad()
    def actions(self) -> tuple[Tensor, Tensor]:
        return self.model.sample_actions(self.context(), self.tensors["noise"]), self.tensors["infer.actions"]


class Recorded:
    """Numbers that a policy without a counterpart in LeRobot gave here when it was added."""

    def __init__(self, name: str):
        self.numbers = json.loads((ARTIFACTS / f"{name}.json").read_text())
        config = tiny_config(self.numbers["policy"])
        picture = PolicyFeature(FeatureType.VISUAL, (3, 30, 40))
        cameras = {f"observation.images.{name}": picture for name in ("front", "wrist_left")}
        config.input_features = {**cameras, "observation.state": PolicyFeature(FeatureType.STATE, (6,))}
        config.output_features = {"action": PolicyFeature(FeatureType.ACTION, (6,))}
        self.policy = get_policy_class(config.type)(config)
        fill(self.policy, "recorded:")
        draw = torch.Generator().manual_seed(0)
        self.batch = {k: torch.rand(2, *f.shape, generator=draw) for k, f in config.input_features.items()}
        self.batch["action"] = torch.randn(2, len(config.action_delta_indices), 6, generator=draw)
        self.batch["action_is_pad"] = torch.arange(len(config.action_delta_indices)).expand(2, -1) > 3

    def loss(self) -> tuple[float, float]:
        torch.manual_seed(0)
        return self.policy.train().forward(self.batch)[0].item(), self.numbers["loss"]

    def actions(self) -> tuple[Tensor, Tensor]:
        chunk = self.policy.eval().predict_action_chunk(self.batch)
        return chunk[:, 0], torch.tensor(self.numbers["actions"])


@contextmanager
def inside(folder: Path):
    """With `folder` as the working directory."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def read_case(name: str) -> Peer | SmolVLACase | Pi0Core | Recorded:
    """The golden case in that folder of tests/artifacts."""
    kinds = {"smolvla": SmolVLACase, "pi0": Pi0Core, "recorded": Recorded}
    return kinds.get(name.partition("_")[0], Peer)(name)
