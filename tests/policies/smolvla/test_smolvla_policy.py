"""What SmolVLA trains, attends, predicts and queues, in every configuration."""

import pytest
import torch

from lerobot.common.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.common.policies.smolvla.smolvlm_with_expert import freeze

from .conftest import tiny_batch, tiny_config, tiny_policy

VARIANTS = {
    "default": {},
    "frozen": {"freeze_vision_encoder": True, "train_expert_only": True},
    "frozen vision": {"freeze_vision_encoder": True},
    "frozen state projection": {"train_state_proj": False},
    "self attention": {"attention_mode": "self_attn"},
    "only cross layers": {"self_attn_every_n_layers": -1},
    "only joint layers": {"self_attn_every_n_layers": 1},
    "joint every third layer": {"self_attn_every_n_layers": 3},
    "expert beside every second layer": {"num_expert_layers": 2},
    "one expert layer": {"num_expert_layers": 1, "self_attn_every_n_layers": 3},
    "fewer text layers": {"num_vlm_layers": 2},
    "all text layers": {"num_vlm_layers": 0},
    "wide expert": {"expert_width_multiplier": 1.25},
    "prefix length": {"prefix_length": 60},
    "special tokens": {"add_image_special_tokens": True},
    "empty camera": {"empty_cameras": 1},
    "empty camera and special tokens": {"empty_cameras": 1, "add_image_special_tokens": True},
    "one camera": {"cameras": ("top",)},
    "aloha": {"adapt_to_pi_aloha": True, "state": 14, "action": 14},
    "no resize": {"resize_imgs_with_padding": None, "size": (16, 48)},
    "wide pictures": {"resize_imgs_with_padding": (64, 32), "size": (48, 40)},
    "narrow padding": {"max_state_dim": 6, "max_action_dim": 6},
    "two draws": {"draws_per_sample": 2},
    "pure noise": {"pure_noise_share": 0.5, "draws_per_sample": 2},
    "historic loss": {"loss_over_padding": True},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_configuration_trains_and_samples(changes):
    policy = tiny_policy(**changes)
    batch = tiny_batch(policy.config, leave_out=("empty_camera_0",))
    policy.train()
    loss, _ = policy.forward(batch)
    loss.backward()
    gradients = [p.grad for p in policy.parameters() if p.grad is not None]
    assert loss.isfinite() and all(g.isfinite().all() for g in gradients)
    trained = {k.split(".")[1] for k, p in policy.named_parameters() if p.grad is not None}
    assert {"action_in_proj", "action_out_proj", "action_time_mlp_in", "vlm_with_expert"} <= trained
    torch.manual_seed(0)
    chunk = policy.predict_action_chunk(batch)
    assert chunk.shape == (2, 5, policy.config.action_feature.shape[0]) and chunk.isfinite().all()
    policy.reset()
    torch.manual_seed(0)
    queued = torch.stack([policy.select_action(batch) for _ in range(3)], 1)
    torch.testing.assert_close(queued, chunk[:, :3])


def test_a_share_of_the_draws_is_pure_noise():
    policy = tiny_policy(pure_noise_share=0.25)
    torch.manual_seed(0)
    times = policy.model.draw_time(4000, torch.device("cpu"))
    assert (times == 1).float().mean() == pytest.approx(0.25, abs=0.03)
    policy.config.pure_noise_share = 0.0
    torch.manual_seed(0)
    plain = policy.model.draw_time(4000, torch.device("cpu"))
    assert (plain < 1).all() and torch.equal(times[times < 1], plain[times < 1])


def test_uneven_expert_depth_is_refused():
    with pytest.raises(AssertionError, match="4 text layers.*num_expert_layers=3"):
        tiny_policy(num_expert_layers=3)


def test_training_lowers_the_loss():
    policy = tiny_policy()
    batch = tiny_batch(policy.config)
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=1e-3)
    draws = {"noise": torch.randn(2, 5, 32), "time": torch.tensor([0.2, 0.8])}
    losses = []
    for _ in range(20):
        loss, _ = policy.forward(batch, **draws)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("flags", "prefixes"),
    [
        ({"train_expert_only": True, "freeze_vision_encoder": True}, ["vlm_with_expert.vlm."]),
        ({"train_expert_only": True, "freeze_vision_encoder": False}, ["vlm_with_expert.vlm."]),
        (
            {"train_expert_only": False, "freeze_vision_encoder": True},
            ["vlm_with_expert.vlm.lm_head.", "vlm_with_expert.vlm.model.vision_model."],
        ),
        ({"train_state_proj": False}, ["vlm_with_expert.vlm.lm_head.", "state_proj."]),
    ],
)
def test_freezing_flags(flags, prefixes):
    policy = tiny_policy(**flags)
    frozen = {k for k, p in policy.model.named_parameters() if not p.requires_grad}
    assert frozen == {k for k, _ in policy.model.named_parameters() if k.startswith(tuple(prefixes))}
    policy.eval()
    policy.train()
    vlm = policy.model.vlm_with_expert.vlm
    assert policy.training and policy.model.vlm_with_expert.lm_expert.training
    assert vlm.training is not flags.get("train_expert_only", False)
    assert vlm.model.vision_model.training is not any(
        flags.get(f, False) for f in ("train_expert_only", "freeze_vision_encoder")
    )


def test_a_freezing_flag_without_parameters_raises():
    with pytest.raises(ValueError, match="'vlm.model.audio"):
        freeze(tiny_policy().model.vlm_with_expert, "vlm.model.audio.")


def test_optimizer_parameters_are_all_in_one_group_unless_vision_has_its_own_rate():
    policy = tiny_policy(freeze_vision_encoder=True, train_expert_only=True)
    assert [id(p) for p in policy.get_optim_params()] == [id(p) for p in policy.parameters()]
    policy = tiny_policy(optimizer_lr_vision=1e-6)
    rest, vision = policy.get_optim_params()
    assert vision["lr"] == 1e-6 and "lr" not in rest
    names = {id(p): k for k, p in policy.named_parameters()}
    assert all(".vision_model." in names[id(p)] for p in vision["params"])
    assert len(rest["params"]) + len(vision["params"]) == len(names)
    assert not any(".vision_model." in names[id(p)] for p in rest["params"])


def test_the_graph_free_prefix_gives_the_gradients_of_the_whole_graph():
    frozen = tiny_policy(freeze_vision_encoder=True, train_expert_only=True)
    whole = tiny_policy()
    whole.load_state_dict(frozen.state_dict())
    draws = {"noise": torch.randn(2, 5, 32), "time": torch.rand(2)}
    for policy in (frozen, whole):
        policy.forward(tiny_batch(policy.config), **draws)[0].backward()
    reference = dict(whole.named_parameters())
    for name, p in frozen.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(p.grad, reference[name].grad, atol=1e-6, rtol=1e-4)
        else:
            assert p.grad is None
    assert frozen.model.state_proj.weight.grad.abs().max() > 0


def test_padded_steps_and_dimensions_carry_no_loss():
    policy = tiny_policy()
    batch, draws = tiny_batch(policy.config), {"noise": torch.randn(2, 5, 32), "time": torch.rand(2)}
    before = policy.forward(batch, **draws)[0]
    losses = policy.model.forward(
        *policy.prepare_observation(batch), policy.prepare_action(batch), draws["noise"], draws["time"]
    )
    assert losses.shape == (2, 5, 32)
    torch.testing.assert_close(before, losses[:, :4, :6].mean())
    per_sample, info = policy.forward(batch, **draws, reduction="none")
    torch.testing.assert_close(per_sample, losses[:, :4, :6].mean(dim=(1, 2)))
    assert float(info["loss"]) == pytest.approx(per_sample.mean().item())
    policy.config.loss_over_padding = True
    torch.testing.assert_close(policy.forward(batch, **draws)[0], losses.mean())


def test_several_draws_are_the_mean_of_single_ones():
    policy = tiny_policy()
    batch, noise, time = tiny_batch(policy.config), torch.randn(6, 5, 32), torch.rand(6)
    single = [policy.forward(batch, noise=n, time=t)[0] for n, t in zip(noise.split(2), time.split(2), strict=True)]
    policy.config.draws_per_sample = 3
    together, _ = policy.forward(batch, noise=noise, time=time)
    torch.testing.assert_close(together, torch.stack(single).mean())
    per_sample, _ = policy.forward(batch, noise=noise, time=time, reduction="none")
    torch.testing.assert_close(per_sample.mean(), together)


def test_masked_tokens_change_nothing():
    policy = tiny_policy()
    batch, noise = tiny_batch(policy.config), torch.randn(2, 5, 32)
    batch["observation.images.wrist_padding_mask"] = torch.tensor([True, False])
    before = policy.predict_action_chunk(batch, noise=noise)
    changed = {k: v.clone() for k, v in batch.items()}
    changed["observation.images.wrist"][1] = 0.5
    changed["observation.language.tokens"][:, 5] = 7
    torch.testing.assert_close(policy.predict_action_chunk(changed, noise=noise), before)
    changed["observation.images.wrist"][0] = 0.5
    assert (policy.predict_action_chunk(changed, noise=noise) - before)[0].abs().max() > 1e-6


def test_an_absent_camera_equals_a_masked_one():
    policy = tiny_policy(empty_cameras=1, add_image_special_tokens=True)
    batch, noise = tiny_batch(policy.config, leave_out=("empty_camera_0",)), torch.randn(2, 5, 32)
    without = policy.predict_action_chunk(batch, noise=noise)
    batch["observation.images.empty_camera_0"] = torch.rand(2, 3, 32, 32)
    batch["observation.images.empty_camera_0_padding_mask"] = torch.zeros(2)
    torch.testing.assert_close(policy.predict_action_chunk(batch, noise=noise), without)


def test_cameras_beyond_the_empty_ones_are_left_out():
    policy = tiny_policy(cameras=("top", "wrist", "side"), empty_cameras=0)
    images, masks = policy.prepare_images(tiny_batch(policy.config, leave_out=("side",)))
    assert len(images) == len(masks) == 2
    with pytest.raises(ValueError, match="All image features are missing.*observation.images.top"):
        policy.prepare_images(tiny_batch(policy.config, leave_out=("top", "wrist", "side")))


def test_pictures_as_bytes_and_with_a_time_axis():
    policy = tiny_policy(size=(48, 40))
    batch = tiny_batch(policy.config)
    for camera in policy.config.image_features:
        batch[camera] = (batch[camera] * 255).byte()
    images, _ = policy.prepare_images(batch)
    floats = {k: v[:, -1] / 255 if v.dtype == torch.uint8 else v for k, v in batch.items()}
    for image, expected in zip(images, policy.prepare_images(floats)[0], strict=True):
        assert image.shape == (2, 3, 32, 32) and image.min() == -1
        torch.testing.assert_close(image, expected)


def test_a_batch_without_tokens_names_what_makes_them():
    policy = tiny_policy()
    batch = tiny_batch(policy.config)
    del batch["observation.language.tokens"]
    with pytest.raises(ValueError, match="observation.language.tokens.*preprocessor"):
        policy.forward(batch)


def test_too_wide_vectors_are_refused():
    policy = tiny_policy(max_action_dim=4)
    with pytest.raises(ValueError, match="width 6 does not fit into 4"):
        policy.forward(tiny_batch(policy.config))


def test_the_queue_plans_again_when_it_is_empty_or_reset():
    policy = tiny_policy()
    batch = tiny_batch(policy.config)
    other = {**batch, "observation.state": batch["observation.state"] + 1}
    noise = torch.randn(2, 5, 32)
    first = policy.predict_action_chunk(batch, noise=noise)
    second = policy.predict_action_chunk(other, noise=noise)
    taken = [policy.select_action(batch, noise=noise)]
    taken += [policy.select_action(other, noise=noise) for _ in range(3)]
    torch.testing.assert_close(torch.stack(taken[:3], 1), first[:, :3])  # observations in between do not count
    torch.testing.assert_close(taken[3], second[:, 0])
    policy.reset()
    torch.testing.assert_close(policy.select_action(batch, noise=noise), first[:, 0])


def test_autocast_stays_near_float32():
    policy = tiny_policy()
    batch, draws = tiny_batch(policy.config), {"noise": torch.randn(2, 5, 32), "time": torch.rand(2)}
    exact, _ = policy.forward(batch, **draws)
    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = policy.forward(batch, **draws)
    rough.backward()
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)
    assert all(p.grad.isfinite().all() for p in policy.parameters() if p.grad is not None)


@pytest.mark.parametrize("frozen", ["freeze_vision_encoder", "train_expert_only"])
def test_from_zero_frozen_parts_get_weights_or_the_ways_out_are_named(frozen):
    config = tiny_config(**{frozen: True})
    SmolVLAPolicy.prepare_from_zero(config)
    assert config.load_vlm_weights
    with pytest.raises(FileNotFoundError) as error:
        SmolVLAPolicy(config)
    for way_out in (
        "--policy.path=lerobot/smolvla_base",
        "--preset=smolvla_mini",
        "--policy.load_vlm_weights=false --policy.freeze_vision_encoder=false",
        "--policy.train_expert_only=false",
    ):
        assert way_out in str(error.value)


def test_from_zero_nothing_is_loaded_when_everything_is_trained():
    config = tiny_config()
    SmolVLAPolicy.prepare_from_zero(config)
    assert not config.load_vlm_weights


@pytest.mark.slow
def test_a_compiled_model_gives_the_same_numbers_and_names():
    plain = tiny_policy()
    compiled = SmolVLAPolicy(tiny_config(compile_model=True, compile_mode="default"))
    compiled.load_state_dict(plain.state_dict())
    batch, draws = tiny_batch(plain.config), {"noise": torch.randn(2, 5, 32), "time": torch.rand(2)}
    torch.testing.assert_close(compiled.forward(batch, **draws)[0], plain.forward(batch, **draws)[0])
    noise = draws["noise"]
    expected = plain.predict_action_chunk(batch, noise=noise)
    torch.testing.assert_close(compiled.predict_action_chunk(batch, noise=noise), expected, atol=1e-5, rtol=0)
