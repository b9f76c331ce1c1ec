"""Training loss, control and checkpoints of Diffusion."""

import pytest
import torch

from lerobot.common.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.common.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.common.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors
from lerobot.common.policies.pretrained import count_parameters

from ..tiny import batch_of, observation_of
from .conftest import config_of, policy_of

VARIANTS = {
    "two cameras": {},
    "an encoder per camera": {"use_separate_rgb_encoder_per_camera": True},
    "environment state only": {"cameras": {}, "env": 3},
    "pictures and environment state": {"env": 3},
    "three observations": {"n_obs_steps": 3, "n_action_steps": 6},
    "one stage": {"down_dims": (16,)},
    "three stages": {"down_dims": (16, 16, 32)},
    "shift only": {"use_film_scale_modulation": False},
    "no crop": {"crop_shape": None},
    "resized": {"resize_shape": (36, 40), "crop_ratio": 0.9},
    "batch norm": {"use_group_norm": False},
    "resnet50": {"vision_backbone": "resnet50"},
    "sample prediction": {"prediction_type": "sample"},
    "few DDIM steps": {"noise_scheduler_type": "DDIM", "num_inference_steps": 3},
    "two draws per sample": {"draws_per_sample": 2},
    "linear noise, no clipping": {"beta_schedule": "linear", "clip_sample": False},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def variant(request):
    return config_of(**request.param)


# Every configuration


def test_every_parameter_learns_and_actions_have_their_shape(variant):
    policy, batch = policy_of(variant), batch_of(variant)
    loss, _ = policy.train()(batch)
    loss.backward()
    assert not [n for n, p in policy.named_parameters() if p.grad is None] and loss.isfinite()
    assert policy.select_action(observation_of(variant)).shape == (2, 6)
    assert policy.predict_action_chunk(batch).shape == (2, variant.n_action_steps, 6)


def test_saved_policy_loads_with_the_same_actions_bit_for_bit(variant, tmp_path):
    policy = policy_of(variant)
    policy.save_pretrained(tmp_path)
    loaded = DiffusionPolicy.from_pretrained(tmp_path, strict=True)
    actions = []
    for one in (policy, loaded):
        torch.manual_seed(1)
        actions.append(one.select_action(observation_of(variant)))
    assert torch.equal(*actions)


def test_padded_steps_have_no_gradient_and_do_not_change_the_loss(variant):
    policy = policy_of(variant).train()
    batch = batch_of(variant)
    spoilt = dict(batch, action=batch["action"].clone())
    spoilt["action"][-1, -2:] = float("nan")
    losses, gradients = [], []
    for b in (batch, spoilt):
        b["action"].requires_grad_()
        policy.zero_grad()
        torch.manual_seed(1)
        loss, _ = policy(b)
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters()]))
        assert (b["action"].grad[-1, -2:] == 0).all() and (b["action"].grad[0] != 0).any()
    assert losses[0] == losses[1] and torch.equal(*gradients)


# Sizes


def test_default_size():
    tiny = config_of(cameras={"top": (3, 96, 96)}, state=2, action=2)
    features = {"input_features": tiny.input_features, "output_features": tiny.output_features}
    with torch.device("meta"):
        policy = DiffusionPolicy(DiffusionConfig(device="cpu", **features))
    assert count_parameters(policy, trainable=True) == 262_709_026
    assert len(policy.state_dict()) == 221 - 8


# Loss


def errors_of(policy, batch) -> torch.Tensor:
    """Squared errors (B, H, A) behind the loss of seed 1, from one mask per element."""
    policy.config.loss_over_padding = policy.config.do_mask_loss_for_padding = True
    shape, losses = batch["action"].shape, []
    for b in range(shape[0]):
        for t in range(shape[1]):
            mask = torch.ones(shape[:2], dtype=torch.bool)
            mask[b, t] = False
            torch.manual_seed(1)
            losses.append(policy(dict(batch, action_is_pad=mask))[0] * shape[0] * shape[1])
    return torch.stack(losses).view(shape[:2])


def test_three_reductions():
    config = config_of(cameras={}, env=2)
    policy, batch = policy_of(config).eval(), batch_of(config)
    batch["action"][-1, -2:] = batch["action"][-1, -3]  # as datasets fill
    errors, is_pad = errors_of(policy, batch), batch["action_is_pad"]
    for over_padding, mask, expected in (
        (False, False, errors[~is_pad].mean()),
        (False, True, errors[~is_pad].mean()),
        (True, False, errors.mean()),
        (True, True, errors[~is_pad].sum() / errors.numel()),
    ):
        config.loss_over_padding, config.do_mask_loss_for_padding = over_padding, mask
        torch.manual_seed(1)
        torch.testing.assert_close(policy(batch)[0], expected)


def test_one_batch_is_learnt():
    config = config_of(cameras={}, env=2)
    policy, batch = policy_of(config).train(), batch_of(config)
    optimizer = torch.optim.Adam(policy.get_optim_params(), lr=1e-2)
    losses = []
    for _ in range(150):
        torch.manual_seed(1)
        loss, _ = policy(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10


def test_wrong_windows_are_named():
    config = config_of(cameras={}, env=2)
    batch = batch_of(config)
    with pytest.raises(ValueError, match="'action' has 7 steps, horizon asks for 8"):
        policy_of(config)(dict(batch, action=batch["action"][:, 1:]))
    with pytest.raises(ValueError, match="'observation.state' has 1 steps, n_obs_steps asks for 2"):
        policy_of(config)(dict(batch, **{"observation.state": batch["observation.state"][:, 1:]}))


def test_building_leaves_running_statistics_alone():
    state = policy_of(config_of(use_group_norm=False)).state_dict()
    name = "diffusion.rgb_encoder.backbone.1"
    assert (state[f"{name}.running_var"] == 1).all() and state[f"{name}.num_batches_tracked"] == 0


# Control


def test_a_chunk_is_planned_when_the_queue_is_empty():
    config = config_of()
    policy, observation = policy_of(config), observation_of(config)
    states = []
    for _ in range(config.n_action_steps + 1):
        before = torch.get_rng_state()
        policy.select_action(observation)
        states.append(not torch.equal(before, torch.get_rng_state()))
    assert states == [True, False, False, False, True]


def test_observations_are_asked_for_only_if_a_plan_will_see_them():
    config = config_of()
    policy, observation = policy_of(config), observation_of(config)
    asked = []
    for _ in range(8):
        asked.append(policy.needs_observation())
        policy.select_action(observation)
    assert asked == [True, False, False, True, True, False, False, True]


def test_plans_do_not_depend_on_observations_that_are_not_asked_for():
    config = config_of()
    seen, blind = policy_of(config), policy_of(config)
    for step in range(9):
        observation = observation_of(config, seed=step)
        stale = observation if blind.needs_observation() else observation_of(config, seed=99)
        torch.manual_seed(step)
        expected = seen.select_action(observation)
        torch.manual_seed(step)
        assert torch.equal(blind.select_action(stale), expected)


def test_control_is_the_same_in_training_mode_and_ignores_recorded_actions():
    config = config_of()
    policy, observation = policy_of(config).train(), observation_of(config)
    given = dict(observation, action=torch.full((2, 6), 9.0))
    actions = []
    for batch, training in ((observation, False), (given, True)):
        policy.train(training)
        policy.reset()
        torch.manual_seed(2)
        actions.append(policy.select_action(batch))
        assert policy.training == training
    assert torch.equal(*actions) and "action" in given


def test_chunk_of_a_window_equals_the_rollout():
    config = config_of()
    policy, first, second = policy_of(config), observation_of(config, seed=1), observation_of(config, seed=2)
    noise = torch.zeros(2, config.horizon, 6)
    window = {k: torch.stack([first[k], second[k]], dim=1) for k in first}
    torch.manual_seed(4)
    expected = policy.predict_action_chunk(window, noise=noise)
    policy._history.append(first)
    policy._history.append(second)
    torch.manual_seed(4)
    assert torch.equal(policy.predict_action_chunk(second, noise=noise), expected)


def test_a_wrong_number_of_inference_steps_is_named():
    config = config_of(num_inference_steps=11)
    with pytest.raises(ValueError, match="num_inference_steps=11.*num_train_timesteps=10"):
        policy_of(config).select_action(observation_of(config))


def test_processors_normalize_pictures_by_mean_and_joints_by_range():
    config = config_of(cameras={"laptop": (3, 40, 48)})
    stats = {
        "observation.images.laptop": {"mean": torch.full((3, 1, 1), 0.5), "std": torch.full((3, 1, 1), 0.25)},
        "observation.state": {"min": torch.zeros(6), "max": torch.full((6,), 4.0)},
        "action": {"min": torch.zeros(6), "max": torch.full((6,), 4.0)},
    }
    pre, post = make_diffusion_pre_post_processors(config, stats)
    batch = pre({"observation.images.laptop": torch.ones(3, 40, 48), "observation.state": torch.full((6,), 3.0)})
    assert (batch["observation.images.laptop"] == 2).all() and (batch["observation.state"] == 0.5).all()
    assert (post(torch.full((1, 6), 0.5)) == 3).all()
