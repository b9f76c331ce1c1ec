"""VQ-BeT against numbers that LeRobot 0.4.4 and 0.1.0 gave."""

import pytest
import torch

from ..golden_case import GoldenCase, legacy_actions, write_legacy_checkpoint

TOLERANCE = 1e-5


@pytest.fixture
def case() -> GoldenCase:
    return GoldenCase("vqbet")


def set_phase(case: GoldenCase, phase: int) -> None:
    vqvae = case.policy.vqbet.action_head.vqvae_model
    vqvae.discretized.fill_(phase == 2)
    vqvae.vq_layer.freeze_codebook.fill_(phase == 2)


def test_tensor_names_order_and_shapes(case):
    expected = [(k, tuple(shape)) for k, (_, shape) in case.meta["state_dict"].items()]
    assert [(k, tuple(v.shape)) for k, v in case.policy.state_dict().items()] == expected
    assert [len(group["params"]) for group in case.policy.get_optim_params()] == case.meta["optim_group_sizes"]


@pytest.mark.parametrize("phase, key", [(1, "train_phase1"), (2, "train")])
def test_loss_and_gradients_of_both_phases(case, phase, key):
    expected = case.meta[key]
    set_phase(case, phase)
    case.policy.train()
    case.seed(1)
    loss, info = case.policy.forward(case.batch())
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], rel=TOLERANCE)
    assert {k: v.item() for k, v in info.items()} == pytest.approx(expected["info"], rel=TOLERANCE)
    for name, parameter in case.policy.named_parameters():
        if (norm := expected["grad_norm"][name]) is None:
            assert parameter.grad is None, name
        else:
            assert parameter.grad.double().norm().item() == pytest.approx(norm, rel=1e-5, abs=1e-4), name


def test_rollout(case):
    set_phase(case, 2)
    case.seed(2)
    for step, observation in enumerate(case.observations()):
        action = case.policy.select_action(observation)
        torch.testing.assert_close(action, case.tensors["infer.actions"][step], atol=TOLERANCE, rtol=0)
        raw = case.tensors["infer.actions_postprocessed"][step]
        torch.testing.assert_close(case.post(action), raw, atol=1e-4, rtol=0)


def test_checkpoint_of_the_legacy_layout_gives_its_raw_actions(tmp_path):
    tensors, meta = write_legacy_checkpoint("vqbet_image_legacy", tmp_path)
    expected = tensors["infer.actions"]
    actions = legacy_actions(tmp_path, tensors, meta)
    torch.testing.assert_close(actions, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)
