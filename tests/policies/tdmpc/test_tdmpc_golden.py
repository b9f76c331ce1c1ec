"""TD-MPC against numbers that LeRobot 0.4.4 and 0.1.0 gave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lerobot.common.policies.factory import make_pre_post_processors
from lerobot.common.policies.tdmpc.modeling_tdmpc import TDMPCPolicy
from lerobot.configs.policies import PreTrainedConfig

from ..act.test_act_golden import write_legacy_checkpoint
from ..weights_formula import fill
from .conftest import seed

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
TOLERANCE = 1e-5


class Case:
    """A golden case: its tensors, its policy with the weights of the formula, its processors."""

    def __init__(self, name: str):
        folder = ARTIFACTS / name
        self.tensors = load_file(folder / "tensors.safetensors")
        self.meta = json.loads((folder / "meta.json").read_text())
        config = PreTrainedConfig.from_pretrained(folder / "checkpoint")
        config.loss_over_padding = True
        self.policy = TDMPCPolicy(config)
        fill(self.policy, self.meta["salt"])
        self.pre, self.post = make_pre_post_processors(config, pretrained_path=folder / "checkpoint")

    def named(self, prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


@pytest.fixture(params=["tdmpc_state", "tdmpc_pi"])
def case(request) -> Case:
    return Case(request.param)


def test_tensor_names_order_and_shapes(case):
    expected = [(k, tuple(shape)) for k, (_, shape) in case.meta["state_dict"].items()]
    assert [(k, tuple(v.shape)) for k, v in case.policy.state_dict().items()] == expected
    assert len(list(case.policy.get_optim_params())) == sum(case.meta["optim_group_sizes"])


def test_preprocessor_keeps_the_training_window(case):
    done = case.pre({k: v.clone() for k, v in case.named("raw.").items()})
    for key, expected in {**case.named("raw."), **case.named("batch.")}.items():
        torch.testing.assert_close(done[key], expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_loss_and_gradients(case):
    batch, expected = {**case.named("raw."), **case.named("batch.")}, case.meta["train"]
    seed(case.meta["seed"] + 1)
    loss, info = case.policy.train().forward(batch)
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], rel=TOLERANCE)
    numbers = {k: v for k, v in expected["info"].items() if k != "advantage"}
    assert {k: info[k].item() for k in numbers} == pytest.approx(numbers, rel=TOLERANCE)
    for name, parameter in case.policy.named_parameters():
        if (norm := expected["grad_norm"][name]) is None:
            assert parameter.grad is None, name
        else:
            assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-4, abs=1e-6), name


def test_rollout(case):
    observations = case.named("infer.raw.")
    seed(case.meta["seed"] + 2)
    for step, expected in enumerate(case.tensors["infer.actions"]):
        action = case.policy.select_action(case.pre({k: v[step] for k, v in observations.items()}))
        torch.testing.assert_close(action, expected, atol=TOLERANCE, rtol=0)
        raw = case.tensors["infer.actions_postprocessed"][step]
        torch.testing.assert_close(case.post(action), raw, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["tdmpc_state", "tdmpc_pi"])
def test_checkpoint_of_the_newer_layout_loads_strictly(name):
    folder = ARTIFACTS / name / "checkpoint"
    policy = TDMPCPolicy.from_pretrained(folder, strict=True)
    stored = load_file(folder / "model.safetensors")
    assert all(torch.equal(v, stored[k]) for k, v in policy.state_dict().items())


def test_checkpoint_of_the_legacy_layout_gives_its_raw_actions(tmp_path):
    tensors, meta = write_legacy_checkpoint(ARTIFACTS / "tdmpc_image_legacy", tmp_path)
    policy = TDMPCPolicy.from_pretrained(tmp_path)
    pre, post = make_pre_post_processors(policy.config, pretrained_path=tmp_path)
    observations = {k.removeprefix("infer.raw."): v for k, v in tensors.items() if k.startswith("infer.raw.")}
    expected = tensors["infer.actions"]
    seed(meta["seed"] + 2)
    for step in range(len(expected)):
        action = post(policy.select_action(pre({k: v[step] for k, v in observations.items()})))
        torch.testing.assert_close(action, expected[step], atol=1e-5 * expected.abs().max().item(), rtol=0)
    assert set(policy.legacy_stats) == {"action"}
