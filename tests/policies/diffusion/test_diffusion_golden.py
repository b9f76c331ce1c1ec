"""Diffusion against numbers that LeRobot 0.4.4 and 0.1.0 gave."""

import pytest
import torch
from safetensors.torch import load_file

from lerobot.common.policies.diffusion.modeling_diffusion import DiffusionPolicy

from ..golden_case import ARTIFACTS, GoldenCase, legacy_actions, write_legacy_checkpoint

TOLERANCE = 1e-5


@pytest.fixture(params=["diffusion_state", "diffusion_image"])
def case(request) -> GoldenCase:
    return GoldenCase(request.param)


def test_tensor_names_order_and_shapes(case):
    expected = [(k, tuple(shape)) for k, (_, shape) in case.meta["state_dict"].items()]
    assert [(k, tuple(v.shape)) for k, v in case.policy.state_dict().items()] == expected
    assert [len(case.policy.get_optim_params())] == case.meta["optim_group_sizes"]


def test_keypoint_grid(case):
    fresh = DiffusionPolicy(case.policy.config).state_dict()
    assert all(torch.equal(fresh[k], v) for k, v in case.named("buffer.").items())


def test_loss_and_gradients(case):
    expected = case.meta["train"]
    case.policy.train()
    case.seed(1)
    loss, _ = case.policy.forward(case.batch())
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], rel=TOLERANCE)
    for name, parameter in case.policy.named_parameters():
        assert parameter.grad.double().norm().item() == pytest.approx(
            expected["grad_norm"][name], rel=1e-5, abs=1e-5
        ), name


def test_rollout(case):
    case.seed(2)
    for step, observation in enumerate(case.observations()):
        action = case.policy.select_action(observation)
        torch.testing.assert_close(action, case.tensors["infer.actions"][step], atol=TOLERANCE, rtol=0)
        raw = case.tensors["infer.actions_postprocessed"][step]
        torch.testing.assert_close(case.post(action), raw, atol=1e-4, rtol=0)


def test_rollout_from_given_noise(case):
    observation = case.observations()[0]
    case.seed(3)
    first = case.policy.select_action(observation, noise=case.tensors["infer.noise"])
    torch.testing.assert_close(first, case.tensors["infer.first_action_with_noise"], atol=TOLERANCE, rtol=0)
    for expected in case.tensors["infer.rest_of_queue_with_noise"]:
        torch.testing.assert_close(case.policy.select_action(observation), expected, atol=TOLERANCE, rtol=0)


def test_checkpoint_of_the_newer_layout_loads_strictly():
    folder = ARTIFACTS / "diffusion_state" / "checkpoint"
    policy = DiffusionPolicy.from_pretrained(folder, strict=True)
    stored = load_file(folder / "model.safetensors")
    assert all(torch.equal(v, stored[k]) for k, v in policy.state_dict().items())


def test_checkpoint_of_the_legacy_layout_gives_its_raw_actions(tmp_path):
    tensors, meta = write_legacy_checkpoint("diffusion_image_legacy", tmp_path)
    expected = tensors["infer.actions"]
    actions = legacy_actions(tmp_path, tensors, meta)
    torch.testing.assert_close(actions, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)
