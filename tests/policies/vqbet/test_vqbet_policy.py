"""Both phases, control and checkpoints of VQ-BeT."""

import pytest
import torch

from lerobot.common.policies.common.losses import shared_denominators
from lerobot.common.policies.pretrained import count_parameters
from lerobot.common.policies.vqbet.configuration_vqbet import VQBeTConfig
from lerobot.common.policies.vqbet.modeling_vqbet import VQBeTPolicy
from lerobot.common.policies.vqbet.vqbet_utils import EuclideanCodebook

from ..tiny import batch_of, observation_of
from .conftest import config_of, policy_of

VARIANTS = {
    "default": {},
    "codes in turn": {"sequentially_select": True},
    "no future tokens": {"n_action_pred_token": 1},
    "one observation": {"n_obs_steps": 1},
    "environment state beside": {"env": 3},
    "no crop": {"crop_shape": None},
    "batch norm": {"use_group_norm": False},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def variant(request):
    return config_of(**request.param)


def of_vqvae(name: str) -> bool:
    return ".vqvae_model." in name


# Every configuration


@pytest.mark.parametrize("phase", [1, 2])
def test_each_phase_trains_its_own_parameters(variant, phase):
    policy = policy_of(variant, phase).train()
    loss, info = policy(batch_of(variant))
    loss.backward()
    learning = {n for n, p in policy.named_parameters() if p.grad is not None}
    assert learning == {n for n, _ in policy.named_parameters() if of_vqvae(n) == (phase == 1)}
    assert loss.isfinite() and ("recon_l1_error" in info) == (phase == 1)


def test_actions_have_their_shape(variant):
    policy = policy_of(variant)
    assert policy.select_action(observation_of(variant)).shape == (2, 6)
    assert policy.predict_action_chunk(batch_of(variant)).shape == (2, 4, 6)


def test_saved_policy_loads_with_the_same_actions_bit_for_bit(variant, tmp_path):
    policy = policy_of(variant)
    policy.save_pretrained(tmp_path)
    loaded = VQBeTPolicy.from_pretrained(tmp_path, strict=True)
    actions = []
    for one in (policy, loaded):
        torch.manual_seed(1)
        actions.append(one.select_action(observation_of(variant)))
    assert torch.equal(*actions)


def test_every_parameter_is_in_one_group(variant):
    policy = policy_of(variant)
    grouped = [id(p) for group in policy.get_optim_params() for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in policy.parameters())


@pytest.mark.parametrize("phase", [1, 2])
def test_padded_steps_have_no_gradient_and_do_not_change_the_loss(variant, phase):
    policy = policy_of(variant, phase).train()
    saved = {k: v.clone() for k, v in policy.state_dict().items()}
    batch = batch_of(variant)
    spoilt = dict(batch, action=batch["action"].clone())
    spoilt["action"][-1, -2:] = float("nan")
    losses, gradients = [], []
    for b in (batch, spoilt):
        policy.load_state_dict(saved)
        b["action"].requires_grad_()
        policy.zero_grad()
        torch.manual_seed(1)
        loss, _ = policy(b)
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None]))
        assert (b["action"].grad[-1, -2:] == 0).all() and (b["action"].grad[0] != 0).any()
    assert losses[0] == losses[1] and torch.equal(*gradients)


# Sizes


def test_default_size():
    tiny = config_of(cameras={"top": (3, 96, 96)}, state=2, action=2)
    features = {"input_features": tiny.input_features, "output_features": tiny.output_features}
    policy = VQBeTPolicy(VQBeTConfig(device="cpu", **features))
    assert count_parameters(policy, trainable=True) == 37_515_530
    assert len(policy.state_dict()) == 213 - 6
    assert [len(group["params"]) for group in policy.get_optim_params()] == [107, 12, 68]


def test_groups_without_names_of_their_own_take_the_preset():
    config = config_of()
    groups = config.get_optimizer_preset().build(policy_of(config).get_optim_params()).param_groups
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [(1e-4, 1e-6), (1e-3, 1e-4), (1e-4, 0.0)]


# First phase


def test_the_first_phase_ends_after_its_steps(caplog):
    policy, batch = policy_of(config_of(), phase=1).train(), batch_of(config_of())
    caplog.set_level("INFO")
    for _ in range(3):
        assert not policy.vqbet.action_head.vqvae_model.discretized
        policy(batch)
    vqvae = policy.vqbet.action_head.vqvae_model
    assert vqvae.discretized and vqvae.vq_layer.freeze_codebook
    assert "unused ones per layer" in caplog.text
    assert "classification_loss" in policy(batch)[1]


def test_a_validation_loss_in_the_first_phase_changes_nothing():
    policy, batch = policy_of(config_of(), phase=1).eval(), batch_of(config_of())
    before = {k: v.clone() for k, v in policy.state_dict().items()}
    for _ in range(4):
        policy(batch)
    assert all(torch.equal(v, before[k]) for k, v in policy.state_dict().items())
    assert policy.config.n_vqvae_steps_done == 0


def test_a_checkpoint_continues_the_first_phase_where_it_stopped(tmp_path):
    policy, batch = policy_of(config_of(), phase=1).train(), batch_of(config_of())
    for _ in range(2):
        policy(batch)
    policy.save_pretrained(tmp_path)
    loaded = VQBeTPolicy.from_pretrained(tmp_path).train()
    loaded(batch)
    assert loaded.vqbet.action_head.vqvae_model.discretized


def test_a_checkpoint_without_the_count_starts_the_first_phase_anew(tmp_path):
    policy = policy_of(config_of(), phase=1).train()
    policy(batch_of(config_of()))
    policy.save_pretrained(tmp_path)
    (tmp_path / "extras.json").unlink()
    config = config_of()
    assert VQBeTPolicy.from_pretrained(tmp_path, config=config).vqbet.action_head.vqvae_steps == 0


def test_a_batch_of_only_padded_chunks_changes_nothing():
    policy, batch = policy_of(config_of(), phase=1).train(), batch_of(config_of())
    codes = [layer._codebook.embed.clone() for layer in policy.vqbet.action_head.vqvae_model.vq_layer.layers]
    batch["action_is_pad"][:] = True
    loss, _ = policy(batch)
    loss.backward()
    assert loss == 0 and all((p.grad == 0).all() for n, p in policy.named_parameters() if p.grad is not None)
    after = [layer._codebook.embed for layer in policy.vqbet.action_head.vqvae_model.vq_layer.layers]
    assert all(torch.equal(a, b) for a, b in zip(codes, after, strict=True))


def test_the_first_phase_learns():
    config = config_of(n_vqvae_training_steps=1000, vqvae_n_embed=16, reseed_dead_codes=True)
    policy, batch = policy_of(config, phase=1).train(), batch_of(config)
    optimizer = torch.optim.Adam(policy.get_optim_params()[1]["params"], lr=3e-3)
    losses = []
    for _ in range(400):
        loss, _ = policy(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10


# Codes


def test_codes_follow_the_running_mean():
    book = EuclideanCodebook(2, 1)
    book.embed.copy_(torch.tensor([[[0.0], [10.0]]]))
    book.embed_avg.copy_(book.embed)
    book.cluster_size.fill_(1.0)
    x = torch.tensor([[1.0], [2.0], [9.0]])
    indices = book.nearest(x)
    book.update(x, indices, reseed=False)
    assert indices.tolist() == [0, 0, 1]
    expected = torch.tensor([0.6 / 1.2, (8 + 1.8) / 1.0])
    torch.testing.assert_close(book.embed.flatten(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("reseed", [False, True])
def test_a_code_that_nothing_chose_runs_away_unless_it_is_reseeded(reseed):
    torch.manual_seed(0)
    book, x = EuclideanCodebook(4, 2), torch.full((8, 2), 0.1)
    book.update(x, book.nearest(x), reseed)
    assert (book.embed.abs().max() > 100) == (not reseed)
    assert book.is_dead().any() == (not reseed)


def test_frozen_codes_do_not_move():
    config = config_of()
    policy, batch = policy_of(config).train(), batch_of(config)
    before = {k: v.clone() for k, v in policy.state_dict().items() if of_vqvae(k)}
    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    for _ in range(2):
        policy(batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(v, before[k]) for k, v in policy.state_dict().items() if of_vqvae(k))


# Second phase


def test_padded_steps_are_counted_as_0_4_4_does_when_asked():
    config = config_of(loss_over_padding=True)
    policy, batch = policy_of(config).eval(), batch_of(config)
    losses = []
    for is_pad in (batch["action_is_pad"], torch.zeros_like(batch["action_is_pad"])):
        torch.manual_seed(1)
        losses.append(policy(dict(batch, action_is_pad=is_pad))[0])
    assert torch.equal(*losses)


def test_chunks_with_a_padded_step_train_no_code_and_valid_steps_train_the_offset():
    config = config_of()
    policy, batch = policy_of(config).eval(), batch_of(config)
    head, losses = policy.vqbet.action_head, {}
    windows = policy.vqbet.select_target_actions_indices
    with torch.no_grad():
        torch.manual_seed(1)
        _, losses = policy(batch)
        torch.manual_seed(1)
        out = head(policy.vqbet._tokens(batch))
        # as datasets fill: the padded steps repeat the last valid one
        filled = batch["action"].clone()
        filled[-1, -2:] = filled[-1, -3]
        codes = head.vqvae_model.get_code(filled[:, windows].flatten(0, 1))
    whole = ~batch["action_is_pad"][:, windows].any(-1).flatten()
    equal = (out["codes"] == codes)[whole].float().mean(0)
    assert losses["equal_primary_code_rate"] == equal[0] and losses["equal_secondary_code_rate"] == equal[1]
    error = (filled[:, windows].flatten(1, 2) - out["predicted_action"].view(2, -1, 6)).abs()
    valid = ~batch["action_is_pad"][:, windows].flatten(1)
    torch.testing.assert_close(losses["offset_loss"], error[valid].mean())


def test_a_divided_batch_has_the_loss_of_the_whole():
    config = config_of(bet_softmax_temperature=1e-6)  # the codes that are drawn are the likeliest
    policy = policy_of(config)
    batch = batch_of(config)  # the second sample has padded steps
    parts = [{k: v[i : i + 1] for k, v in batch.items()} for i in range(2)]
    masks = [policy.step_masks(part) for part in parts]
    losses = []
    for part, own in zip(parts, masks, strict=True):
        valid = {name: sum((~m[name]).sum() for m in masks) / 2 for name in own}
        with shared_denominators({name: float(valid[name] / (~own[name]).sum()) for name in own}):
            losses.append(policy(part)[0])
    torch.testing.assert_close(sum(losses) / 2, policy(batch)[0])


def test_extra_inputs_do_not_shift_the_action_tokens():
    plain, more = policy_of(config_of()), policy_of(config_of(env=3))
    batch = batch_of(more.config)
    actions = []
    for policy in (plain, more):
        torch.manual_seed(1)
        actions.append(policy.predict_action_chunk(batch))
    assert torch.equal(*actions)


def test_one_batch_is_learnt_with_the_loss_of_its_codes():
    config = config_of(dropout=0.0)
    policy, batch = policy_of(config).train(), batch_of(config)
    optimizer = torch.optim.Adam(policy.get_optim_params(), lr=3e-3)
    losses = []
    for _ in range(150):
        torch.manual_seed(1)
        loss, _ = policy(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10


# Control


def test_acting_before_the_codes_are_learnt_warns():
    config = config_of()
    with pytest.warns(UserWarning, match="n_vqvae_training_steps=3"):
        policy_of(config, phase=1).select_action(observation_of(config))


def test_observations_are_asked_for_only_if_a_plan_will_see_them():
    config = config_of(n_obs_steps=2)
    policy, observation = policy_of(config), observation_of(config)
    asked = []
    for _ in range(6):
        asked.append(policy.needs_observation())
        policy.select_action(observation)
    assert asked == [True, False, False, True, True, False]


def test_control_is_the_same_in_training_mode_and_ignores_recorded_actions():
    config = config_of(dropout=0.5)
    policy, observation = policy_of(config), observation_of(config)
    given = dict(observation, action=torch.full((2, 6), 9.0))
    actions = []
    for batch, training in ((observation, False), (given, True)):
        policy.train(training)
        policy.reset()
        torch.manual_seed(2)
        actions.append(policy.select_action(batch))
    assert torch.equal(*actions) and policy.training and "action" in given
