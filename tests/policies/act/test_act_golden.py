"""ACT against numbers that LeRobot 0.4.4 and 0.1.0 gave."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lerobot.common.policies.act.modeling_act import ACTPolicy
from lerobot.common.policies.factory import make_pre_post_processors
from lerobot.configs.policies import PreTrainedConfig

from ..weights_formula import fill, values

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
        self.policy = ACTPolicy(config)
        fill(self.policy, self.meta["salt"])
        self.pre, self.post = make_pre_post_processors(config, pretrained_path=folder / "checkpoint")

    def named(self, prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


@pytest.fixture(params=["act_state", "act_ensemble", "act_image"])
def case(request) -> Case:
    return Case(request.param)


def test_tensor_names_order_and_shapes(case):
    expected = [(k, tuple(shape)) for k, (_, shape) in case.meta["state_dict"].items()]
    assert [(k, tuple(v.shape)) for k, v in case.policy.state_dict().items()] == expected


def test_position_table(case):
    for name, expected in case.named("buffer.").items():
        assert torch.equal(case.policy.state_dict()[name], expected)


def test_preprocessor(case):
    done = case.pre({k: v.clone() for k, v in case.named("raw.").items()})
    for key, expected in case.named("batch.").items():
        torch.testing.assert_close(done[key], expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_loss_and_gradients(case):
    batch = {**case.named("raw."), **case.named("batch.")}
    expected = case.meta["train"]
    case.policy.train()
    torch.manual_seed(case.meta["seed"] + 1)
    loss, info = case.policy.forward(batch)
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], rel=TOLERANCE)
    assert {k: v.item() for k, v in info.items()} == pytest.approx(expected["info"], rel=TOLERANCE)
    for name, parameter in case.policy.named_parameters():
        if (norm := expected["grad_norm"][name]) is None:
            assert parameter.grad is None, name
        else:
            assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-4, abs=1e-6), name


def test_rollout_and_chunk(case):
    observations = case.named("infer.raw.")
    for step, expected in enumerate(case.tensors["infer.actions"]):
        action = case.policy.select_action(case.pre({k: v[step] for k, v in observations.items()}))
        torch.testing.assert_close(action, expected, atol=TOLERANCE, rtol=0)
        raw = case.tensors["infer.actions_postprocessed"][step]
        torch.testing.assert_close(case.post(action), raw, atol=1e-4, rtol=0)
    first = case.pre({k: v[0] for k, v in observations.items()})
    chunk = case.policy.predict_action_chunk(first)
    torch.testing.assert_close(chunk, case.tensors["infer.chunk"], atol=TOLERANCE, rtol=0)


def test_optimizer_groups(case):
    sizes = [len(group["params"]) for group in case.policy.get_optim_params()]
    assert sizes == case.meta["optim_group_sizes"]


@pytest.mark.parametrize("name", ["act_state", "act_ensemble"])
def test_checkpoint_of_the_newer_layout_loads_strictly(name):
    folder = ARTIFACTS / name / "checkpoint"
    policy = ACTPolicy.from_pretrained(folder, strict=True)
    stored = load_file(folder / "model.safetensors")
    assert all(torch.equal(v, stored[k]) for k, v in policy.state_dict().items())


def write_legacy_checkpoint(case: Path, folder: Path) -> tuple[dict, dict]:
    """Write the weights with the statistics inside; returns the case's tensors and notes."""
    tensors = load_file(case / "tensors.safetensors")
    meta = json.loads((case / "meta.json").read_text())
    held = {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(("norm.", "buffer."))}
    weights = {
        k: held[k].clone() if k in held else values(meta["salt"] + k, tuple(shape))
        for k, (_, shape) in meta["state_dict"].items()
    }
    shutil.copy(case / "config.json", folder)
    save_file(weights, folder / "model.safetensors")
    return tensors, meta


def test_checkpoint_of_the_legacy_layout_gives_its_raw_actions(tmp_path):
    tensors, meta = write_legacy_checkpoint(ARTIFACTS / "act_koch_legacy", tmp_path)
    policy = ACTPolicy.from_pretrained(tmp_path)
    pre, post = make_pre_post_processors(policy.config, pretrained_path=tmp_path)
    observations = {k.removeprefix("infer.raw."): v for k, v in tensors.items() if k.startswith("infer.raw.")}
    expected = tensors["infer.actions"]
    for step in range(len(expected)):
        action = post(policy.select_action(pre({k: v[step] for k, v in observations.items()})))
        torch.testing.assert_close(action, expected[step], atol=1e-5 * expected.abs().max().item(), rtol=0)
    assert set(policy.legacy_stats) == {*policy.config.input_features, "action"}
