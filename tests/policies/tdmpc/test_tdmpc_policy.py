"""What a TD-MPC configuration accepts; training loss, planning and checkpoints."""

import pytest
import torch

from lerobot.common.policies.pretrained import count_parameters
from lerobot.common.policies.tdmpc.configuration_tdmpc import TDMPCConfig
from lerobot.common.policies.tdmpc.modeling_tdmpc import TDMPCPolicy, expectile_error, random_shifts_aug
from lerobot.common.policies.tdmpc.planning import estimate_value
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature

from .conftest import batch_of, config_of, observation_of, policy_of, seed

PICTURE = (3, 40, 40)
VARIANTS = {
    "state": {},
    "picture of any key and state": {"image": PICTURE},
    "picture alone": {"image": PICTURE, "state": None, "image_key": "observation.image"},
    "environment state alone": {"state": None, "env": 5},
    "everything": {"image": PICTURE, "env": 5},
    "resized picture": {"image": (3, 48, 64), "image_size": (40, 40)},
    "policy network": {"use_mpc": False},
    "several steps of a plan": {"n_action_steps": 3, "n_action_repeats": 1},
    "one Q function": {"q_ensemble_size": 1},
    "two Q functions": {"q_ensemble_size": 2, "uncertainty_regularizer_coeff": 0.0},
    "no candidates of the policy network": {"n_pi_samples": 0},
    "horizon of one step": {"horizon": 1},
    "imitation": {"bc_coeff": 2.0, "use_mpc": False, "n_pi_steps": 5, "n_action_steps": 4, "n_action_repeats": 1},
    "imitation and planning": {"bc_coeff": 2.0, "n_pi_steps": 2, "image": PICTURE},
    "no shifts": {"image": PICTURE, "max_random_shift_ratio": 0.0},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def variant(request):
    return config_of(**request.param)


# Configuration


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"n_gaussian_samples": 0}, "n_gaussian_samples=0"),
        ({"normalization_mapping": {"ACTION": NormalizationMode.MEAN_STD}}, "ACTION=MEAN_STD.*MIN_MAX"),
        ({"n_obs_steps": 2}, "n_obs_steps=2"),
        ({"n_action_steps": 2}, "n_action_repeats=1"),
        ({"n_action_steps": 2, "n_action_repeats": 1, "use_mpc": False}, "use_mpc=false"),
        ({"n_action_steps": 4, "n_action_repeats": 1}, "n_action_steps=4.*horizon=3"),
        ({"n_elites": 17}, "n_elites=17.*1 to 16"),
        ({"horizon": 0}, "horizon=0"),
        ({"bc_coeff": -1.0}, "bc_coeff=-1.0"),
        ({"n_pi_steps": 0}, "n_pi_steps=0"),
        ({"n_pi_steps": 4}, "n_pi_steps=4 with bc_coeff=0"),
        (
            {"n_pi_steps": 4, "bc_coeff": 1.0, "n_action_steps": 5, "n_action_repeats": 1, "use_mpc": False},
            "n_action_steps=5 with use_mpc=false.*set n_action_steps=4",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        config_of(**changes)


@pytest.mark.parametrize(
    "features, words",
    [
        ({"image": (3, 48, 64)}, r"48x64.*--policy.image_size=\[84,84\]"),
        ({"image": (3, 38, 38)}, "38x38, too small.*39x39"),
        ({"state": None}, "needs a picture, 'observation.state'"),
    ],
)
def test_unusable_features_are_refused(features, words):
    with pytest.raises(ValueError, match=words):
        policy_of(config_of(**features))


def test_two_cameras_are_refused_with_the_flag_that_chooses():
    config = config_of(image=PICTURE)
    config.input_features["observation.images.wrist"] = PolicyFeature(FeatureType.VISUAL, PICTURE)
    with pytest.raises(ValueError, match="front, observation.images.wrist.*--policy.cameras"):
        TDMPCPolicy(config)


def test_presets():
    config = TDMPCConfig(device="cpu")
    optimizer = config.get_optimizer_preset()
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay, optimizer.grad_clip_norm) == ("adam", 3e-4, 0.0, 10.0)
    assert config.get_scheduler_preset() is None
    assert config.observation_delta_indices == [0, 1, 2, 3, 4, 5]
    assert config.action_delta_indices == config.reward_delta_indices == [0, 1, 2, 3, 4]


def test_default_size():
    features = config_of(image=(3, 84, 84))
    config = TDMPCConfig(device="cpu", input_features=features.input_features)
    config.output_features = {"action": PolicyFeature(FeatureType.ACTION, (4,))}
    policy = TDMPCPolicy(config)
    assert count_parameters(policy, trainable=True) == 2_734_573 and count_parameters(policy) == 2 * 2_734_573
    assert len(policy.state_dict()) == 196


def test_start_is_orthogonal_with_silent_reward_and_q_heads():
    model = TDMPCPolicy(config_of(image=PICTURE)).model
    weight = model._pi[0].weight
    torch.testing.assert_close(weight.T @ weight, torch.eye(8), atol=1e-5, rtol=0)
    kernel = model._encoder.image_enc_layers[0].weight.flatten(1)
    torch.testing.assert_close(kernel @ kernel.T, 2 * torch.eye(4), atol=1e-5, rtol=0)
    assert all((net[-1].weight == 0).all() for net in (model._reward, *model._Qs)) and (model._V[-1].weight != 0).any()


# Every configuration


def test_every_online_parameter_learns_and_actions_have_their_shape(variant):
    policy = policy_of(variant)
    loss, info = policy.train()(batch_of(variant))
    loss.backward()
    assert loss.isfinite() and all(v.numel() == 1 for v in info.values())
    assert all(p.grad is not None for p in policy.model.parameters())
    assert all(p.grad is None for p in policy.model_target.parameters())
    actions = torch.stack([policy.select_action(observation_of(variant)) for _ in range(4)])
    assert actions.shape == (4, 2, 3) and actions.abs().max() <= 1


def test_saved_policy_loads_with_the_same_actions_bit_for_bit(variant, tmp_path):
    policy = policy_of(variant)
    policy.save_pretrained(tmp_path)
    loaded = TDMPCPolicy.from_pretrained(tmp_path, strict=True)
    assert loaded.config.input_features == variant.input_features
    actions = []
    for one in (policy, loaded):
        seed(1)
        actions.append(one.select_action(observation_of(variant)))
    assert torch.equal(*actions)


def test_padded_frames_have_no_gradient_and_do_not_change_the_loss(variant):
    policy, batch = policy_of(variant).train(), batch_of(variant)
    spoilt = {k: v.clone() for k, v in batch.items()}
    for key, value in spoilt.items():
        if f"{key}_is_pad" in spoilt:
            value[spoilt[f"{key}_is_pad"]] = float("nan")
    losses, keys = [], ["action", "next.reward", *variant.input_features]
    for one in (batch, spoilt):
        for key in keys:
            one[key].requires_grad_()
        seed(1)
        loss, _ = policy(one)
        policy.zero_grad()
        loss.backward()
        losses.append(loss.item())
        assert all(p.grad.isfinite().all() for p in policy.model.parameters())
        for key in keys:
            assert (one[key].grad[one[f"{key}_is_pad"]] == 0).all()
    assert losses[0] == losses[1]


# Loss


def test_loss_counts_valid_steps_only_unless_asked_otherwise():
    batch = batch_of(config_of())
    none = {k: torch.zeros_like(v) if k.endswith("_is_pad") else v for k, v in batch.items()}
    whole = {k: v[:-1] if v.dim() else v for k, v in none.items()}
    padded_away = {k: v.clone() for k, v in none.items()}
    for key in padded_away:
        if key.endswith("_is_pad"):
            padded_away[key][-1] = True
    results = {}
    for over_padding in (False, True):
        policy = policy_of(config_of(loss_over_padding=over_padding, q_ensemble_size=2))
        results[over_padding] = [policy(b)[0].item() for b in (whole, padded_away)]
    assert results[False][0] == pytest.approx(results[False][1], rel=1e-6)
    assert results[True][1] == pytest.approx(results[True][0] * 2 / 3, rel=1e-6)


def test_batch_without_masks_counts_every_step(policy):
    batch = batch_of(policy.config)
    bare = {k: v for k, v in batch.items() if not k.endswith("_is_pad") and k != "index"}
    none = {k: torch.zeros_like(v) if k.endswith("_is_pad") else v for k, v in batch.items()}
    losses = []
    for one in (bare, none):
        seed(1)
        losses.append(policy(one)[0].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_the_callers_batch_stays_as_it_is(policy):
    batch = batch_of(policy.config)
    kept = {k: v.clone() for k, v in batch.items()}
    policy(batch)
    policy.select_action(batch)
    assert list(batch) == list(kept) and all(torch.equal(v, kept[k]) for k, v in batch.items())


def test_recording_without_reward_is_refused_with_the_fix(policy):
    batch = batch_of(policy.config)
    batch["next.reward"] = 0.0  # what the preprocessor puts for a reward that is not there
    with pytest.raises(ValueError, match="next.reward.*--dataset.reward_at_end"):
        policy(batch)


def test_target_follows_slowly_and_gets_no_gradient(policy):
    before = [p.clone() for p in policy.model_target.parameters()]
    with torch.no_grad():
        for p in policy.model.parameters():
            p += 1
    policy.update()
    for old, new, online in zip(before, policy.model_target.parameters(), policy.model.parameters(), strict=True):
        torch.testing.assert_close(new, 0.995 * old + 0.005 * online)


def test_one_batch_is_learned():
    config = config_of(env=5, mlp_dim=32, latent_dim=16)
    policy, batch = policy_of(config).train(), batch_of(config)
    optimizer = torch.optim.Adam(policy.get_optim_params(), lr=3e-3)
    losses = []
    for step in range(250):
        seed(step)
        loss, _ = policy(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        policy.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10


def test_imitation_adds_the_absolute_error_of_all_actions_and_teaches_the_encoder():
    config = config_of(bc_coeff=2.0, n_pi_steps=5, image=PICTURE)
    policy, batch = policy_of(config), batch_of(config)
    losses = {}
    for coeff in (0.0, 2.0):
        policy.config.bc_coeff = coeff
        seed(1)
        losses[coeff], info = policy(batch)
    first = {
        "observation.image": batch["observation.images.front"][:, 0],
        "observation.state": batch["observation.state"][:, 0],
    }
    policy.config.max_random_shift_ratio = 0.0
    z = policy.model.encode(first)
    error = (policy.model.pi_steps(z) - batch["action"]).abs()[~batch["action_is_pad"]].mean()
    _, info = policy(batch)
    assert info["bc_loss"].item() == pytest.approx(error.item(), rel=1e-6)
    assert losses[2.0] > losses[0.0]
    error.backward()
    assert policy.model._encoder.image_enc_layers[0].weight.grad.abs().sum() > 0


def test_imitated_actions_are_executed_in_their_order():
    config = config_of(bc_coeff=1.0, n_pi_steps=4, n_action_steps=3, n_action_repeats=1, use_mpc=False)
    policy, observation = policy_of(config), observation_of(config)
    chunk = policy.predict_action_chunk(observation)
    assert chunk.shape == (2, 4, 3)
    assert torch.equal(torch.stack([policy.select_action(observation) for _ in range(3)], dim=1), chunk[:, :3])


def test_expectile_error_weighs_values_that_are_too_low():
    assert expectile_error(torch.tensor([2.0, -2.0]), 0.9).tolist() == pytest.approx([3.6, 0.4])


def test_shift_moves_each_picture_by_whole_pixels_with_its_border_repeated():
    picture = torch.arange(64.0).view(1, 1, 8, 8).expand(50, 3, 8, 8)
    seed(0)
    moved = random_shifts_aug(picture, 0.25)
    inner = moved[:, 0, 3, 3].long()
    dy, dx = inner // 8 - 3, inner % 8 - 3
    assert set(dy.tolist()) == set(dx.tolist()) == {-2, -1, 0, 1, 2}
    place = torch.arange(8)
    for one, y, x in zip(moved, dy, dx, strict=True):
        expected = picture[0][:, (place + y).clamp(0, 7)][:, :, (place + x).clamp(0, 7)]
        assert torch.equal(one, expected)


def test_shift_refuses_oblong_pictures():
    with pytest.raises(AssertionError, match="8x9"):
        random_shifts_aug(torch.zeros(1, 3, 8, 9), 0.1)


def test_bfloat16_autocast_trains_and_acts(policy):
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = policy.train()(batch_of(policy.config))
        action = policy.select_action(observation_of(policy.config))
    loss.backward()
    assert loss.isfinite() and action.isfinite().all()


# Control


def test_first_action_is_repeated_and_then_planned_anew(policy):
    actions = [policy.select_action(observation_of(policy.config)) for _ in range(3)]
    assert torch.equal(actions[0], actions[1]) and not torch.equal(actions[1], actions[2])


def test_next_plan_starts_from_the_last_one_until_reset(policy):
    def first_action():
        seed(3)
        return policy.select_action(observation_of(policy.config))

    fresh = first_action()
    policy._action_queue.reset()
    warm = first_action()
    policy.reset()
    assert not torch.equal(warm, fresh) and torch.equal(first_action(), fresh)


def test_predicting_a_chunk_leaves_queue_and_plan_alone(policy):
    policy.select_action(observation_of(policy.config))
    kept, mean = len(policy._action_queue), policy._previous_mean
    assert policy.predict_action_chunk(observation_of(policy.config, size=5)).shape == (5, 3, 3)
    assert len(policy._action_queue) == kept and policy._previous_mean is mean


def test_a_window_of_frames_is_planned_from_its_first(policy):
    window = observation_of(policy.config, lead=(4,))
    chunks = []
    for observation in (window, {k: v[:, 0] for k, v in window.items()}):
        seed(1)
        chunks.append(policy.predict_action_chunk(observation))
    assert torch.equal(*chunks)


def test_plans_of_higher_estimated_value_than_chance():
    config = config_of(n_gaussian_samples=200, n_elites=20, cem_iterations=4, uncertainty_regularizer_coeff=0.0)
    policy = policy_of(config)
    z = policy.model.encode(observation_of(config))
    plan = policy.predict_action_chunk(observation_of(config)).transpose(0, 1)[:, None]
    chance = torch.rand(3, 100, 2, 3) * 2 - 1
    with torch.no_grad():
        assert (estimate_value(policy.model, z, plan) > estimate_value(policy.model, z, chance).mean(0)).all()


def test_missing_picture_is_a_key_error():
    policy = policy_of(config_of(image=PICTURE))
    with pytest.raises(KeyError, match="observation.images.front"):
        policy.select_action({"observation.state": torch.zeros(1, 4)})


@pytest.mark.gpu
def test_cuda_trains_with_amp_and_acts():
    config = config_of(image=PICTURE)
    policy = policy_of(config).to("cuda")
    batch = {k: v.cuda() for k, v in batch_of(config).items()}
    with torch.autocast("cuda", torch.bfloat16):
        loss, _ = policy.train()(batch)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in policy.model.parameters())
    assert policy.select_action({k: v.cuda() for k, v in observation_of(config).items()}).isfinite().all()
