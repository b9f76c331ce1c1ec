"""pi0's behaviour: pictures, masks, losses, sampling, frozen features."""

from __future__ import annotations

import json

import pytest
import torch

from lerobot.common.policies.common.flow_matching import resize_with_pad
from lerobot.common.policies.factory import get_policy_class
from lerobot.common.policies.pi0.modeling_pi0 import PI0Policy
from lerobot.common.policies.pi0.paligemma_with_expert import PaliGemmaWithExpert

from .conftest import tiny_batch, tiny_config, tiny_policy


def draws_of(policy, batch):
    torch.manual_seed(5)
    return {"noise": torch.randn(len(batch["action"]), policy.config.chunk_size, 32), "time": torch.tensor([0.3, 0.8])}


@pytest.mark.parametrize(
    ("letterbox", "bars"), [("top_left", (7, 0, -1)), ("centre", (3, 4, -1)), ("centre_0.3.4", (3, 4, -3))]
)
def test_bars_beside_pictures_of_another_shape(letterbox, bars):
    policy = tiny_policy(letterbox=letterbox)
    before, after, value = bars
    image = policy.prepare_image(torch.ones(1, 3, 21, 28))
    assert image.shape == (1, 3, 28, 28)
    assert (image[:, :, before : 28 - after] == 1).all()
    assert (image[:, :, :before] == value).all()
    assert (image[:, :, 28 - after :] == value).all()


def test_pictures_of_the_right_size_and_channel_last_ones():
    policy, image = tiny_policy(), torch.rand(2, 3, 28, 28)
    assert torch.equal(policy.prepare_image(image), image * 2 - 1)
    assert torch.equal(policy.prepare_image(image.movedim(1, -1)), image * 2 - 1)
    assert tiny_policy(image_resolution=None).prepare_image(image[..., :14]).shape == (2, 3, 28, 14)


def test_wide_pictures_are_scaled_before_they_are_padded():
    out = resize_with_pad(torch.ones(1, 3, 480, 640), 224, 224, centred=True)
    assert out[0, 0, :, 0].sum() == 168
    assert (out[0, 0, 28:196] > 0.999).all()


def test_absent_cameras_change_nothing():
    policy = tiny_policy(empty_cameras=1)
    assert list(policy.config.image_features)[-1] == "observation.images.empty_camera_0"
    batch = tiny_batch(policy.config, leave_out=("empty_camera_0",))
    without = tiny_policy()
    without.load_state_dict(policy.state_dict())
    draws = draws_of(policy, batch)
    assert torch.equal(policy(batch, **draws)[0], without(batch, **draws)[0])


def test_no_picture_at_all_is_refused():
    policy = tiny_policy()
    with pytest.raises(ValueError, match="observation.images.top"):
        policy(tiny_batch(policy.config, leave_out=("top", "wrist_left")))
    with pytest.raises(ValueError, match="needs a picture"):
        tiny_policy(cameras=())


@pytest.mark.parametrize("key", ["observation.state", "observation.language.tokens"])
def test_a_missing_input_is_named(key):
    policy = tiny_policy()
    batch = tiny_batch(policy.config)
    del batch[key]
    with pytest.raises(ValueError, match=key):
        policy(batch)


def test_padding_of_the_task_changes_nothing():
    policy = tiny_policy()
    batch = tiny_batch(policy.config)
    draws = draws_of(policy, batch)
    other = {**batch, "observation.language.tokens": batch["observation.language.tokens"].clone()}
    other["observation.language.tokens"][:, 5] = 7
    assert torch.equal(policy(batch, **draws)[0], policy(other, **draws)[0])


def test_the_state_is_seen_by_actions_and_actions_see_each_other():
    policy = tiny_policy()
    batch = tiny_batch(policy.config)
    context = policy.encode(batch)
    noise, time = draws_of(policy, batch).values()
    base = policy.model.velocity(noise, time, context)
    later = noise.clone()
    later[:, -1] += 1
    assert (policy.model.velocity(later, time, context)[:, 0] != base[:, 0]).any()
    context.state = context.state + 1
    assert (policy.model.velocity(noise, time, context) != base).any()


@pytest.mark.parametrize("over_padding", [False, True])
def test_loss_counts_real_dimensions_and_unless_asked_real_steps(over_padding):
    policy = tiny_policy(loss_over_padding=over_padding)
    batch = tiny_batch(policy.config)
    draws = draws_of(policy, batch)
    actions = torch.nn.functional.pad(batch["action"], (0, 26))
    losses = policy.model(policy.encode(batch), actions, **draws)[..., :6]
    expected = losses.mean() if over_padding else losses[:, :-1].mean()
    torch.testing.assert_close(policy(batch, **draws)[0], expected)


def test_draws_per_sample_average_over_the_draws():
    policy = tiny_policy(draws_per_sample=2)
    batch = tiny_batch(policy.config)
    noise, time = torch.randn(4, 5, 32), torch.rand(4)
    both = policy(batch, noise=noise, time=time)[0]
    policy.config.draws_per_sample = 1
    halves = [policy(batch, noise=noise[s], time=time[s])[0] for s in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(both, (halves[0] + halves[1]) / 2)


def test_actions_are_queued_and_the_given_noise_is_kept():
    policy = tiny_policy()
    batch, noise = tiny_batch(policy.config), torch.randn(2, 5, 32)
    kept = noise.clone()
    chunk = policy.predict_action_chunk(batch, noise=noise)
    assert torch.equal(noise, kept)
    assert chunk.shape == (2, 5, 6)
    assert all(torch.equal(policy.select_action(batch, noise=noise), chunk[:, i]) for i in range(3))
    assert policy.needs_observation()


@pytest.mark.parametrize("mode", ["vision", "prefix"])
def test_frozen_features_give_the_same_loss_and_gradients(mode):
    policy = tiny_policy(train_expert_only=True)
    batch = tiny_batch(policy.config)
    draws = draws_of(policy, batch)
    loss, _ = policy(batch, **draws)
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}
    policy.zero_grad()
    stored = policy.frozen_features(batch, mode)
    pictures = {k: v for k, v in batch.items() if "images" not in k and (mode == "vision" or "language" not in k)}
    again, _ = policy({**pictures, **stored}, **draws)
    again.backward()
    assert torch.equal(loss, again)
    assert set(gradients) == {n for n, p in policy.named_parameters() if p.grad is not None}
    assert all(torch.equal(p.grad, gradients[n]) for n, p in policy.named_parameters() if n in gradients)
    assert all("paligemma." not in n for n in gradients)


def test_features_of_trained_parts_are_refused():
    policy = tiny_policy()
    batch = tiny_batch(policy.config)
    assert policy.frozen_feature_modes() == ()
    for mode in ("vision", "prefix"):
        with pytest.raises(ValueError, match="train_expert_only"):
            policy.frozen_features(batch, mode)
    assert tiny_policy(train_expert_only=True).frozen_feature_modes() == ("prefix", "vision")
    half = tiny_policy(freeze_vision_encoder=True)
    assert half.frozen_feature_modes() == ("vision",)
    with pytest.raises(ValueError, match="constant are: vision"):
        half.frozen_features(batch, "prefix")


def test_features_are_of_the_weights_that_are_named():
    policy = tiny_policy(train_expert_only=True)
    batch = tiny_batch(policy.config)
    for mode in policy.frozen_feature_modes():
        weights, settings = policy.frozen_inputs(mode)
        json.dumps(settings)
        before = policy.frozen_features(batch, mode)
        with torch.no_grad():
            next(iter(weights.values())).add_(1)
        assert any((v != before[k]).any() for k, v in policy.frozen_features(batch, mode).items())


def test_freezing_flags():
    def trained(**flags):
        return {n for n, p in tiny_policy(**flags).named_parameters() if p.requires_grad}

    everything = trained()
    assert everything == {n for n, _ in tiny_policy().named_parameters()}
    assert everything - trained(freeze_vision_encoder=True) == {n for n in everything if "vision_tower" in n}
    assert everything - trained(train_expert_only=True) == {n for n in everything if ".paligemma." in n}
    assert everything - trained(train_state_proj=False) == {n for n in everything if "state_proj" in n}
    policy = tiny_policy(train_expert_only=True).train()
    assert not policy.model.paligemma_with_expert.paligemma.training


def test_gradient_checkpointing_changes_no_number():
    policy = tiny_policy().train()
    batch = tiny_batch(policy.config)
    draws = draws_of(policy, batch)
    found = []
    for flag in (False, True):
        policy.config.gradient_checkpointing = flag
        policy.zero_grad()
        loss, _ = policy(batch, **draws)
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in policy.parameters() if p.grad is not None)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_bfloat16_is_near_float32_and_keeps_the_sensitive_parts():
    policy, half = tiny_policy(), tiny_policy(dtype="bfloat16")
    half.load_state_dict(policy.state_dict())
    batch = tiny_batch(policy.config)
    draws = draws_of(policy, batch)
    assert half(batch, **draws)[0].item() == pytest.approx(policy(batch, **draws)[0].item(), rel=0.02)
    kept = {n for n, p in half.named_parameters() if p.dtype == torch.float32}
    tower = "model.paligemma_with_expert.paligemma.model.vision_tower.vision_model.embeddings."
    norms = ("input_layernorm.weight", "post_attention_layernorm.weight", "model.norm.weight")
    norms += ("language_model.norm.weight",)
    ours = ("model.state_proj", "model.action_")
    assert kept == {n for n, _ in half.named_parameters() if n.startswith((tower, *ours)) or n.endswith(norms)}
    legacy = tiny_policy(dtype="bfloat16", legacy_rounding=True)
    kept = {n for n, p in legacy.named_parameters() if p.dtype == torch.float32}
    ends = ("gemma_expert.model.norm.weight", "gemma_expert.lm_head.weight")
    assert kept == {n for n, _ in legacy.named_parameters() if n.startswith(ours) or n.endswith(ends)}
    assert torch.isfinite(legacy(batch, **draws)[0])


def test_parameters_at_full_size():
    with torch.device("meta"):
        model = PaliGemmaWithExpert(tiny_config(vlm_config={}))
    count = {n: sum(p.numel() for p in m.parameters()) for n, m in model.named_children()}
    assert count == {"paligemma": 2_923_335_408, "gemma_expert": 574_788_608}
    assert len(model.state_dict()) + 10 == 778  # with embedding and head, which are one tensor, counted twice


def test_streams_of_different_depth_are_refused():
    sizes = {"text_config": {"num_hidden_layers": 2}}
    with pytest.raises(ValueError, match="num_hidden_layers=2"):
        tiny_policy(vlm_config=sizes)
    with pytest.raises(ValueError, match="vlm_config.text_config has layers"):
        tiny_policy(vlm_config={"text_config": {"layers": 2}})


def test_frozen_random_weights_are_refused_from_zero():
    assert get_policy_class("pi0") is PI0Policy
    PI0Policy.prepare_from_zero(tiny_config())
    with pytest.raises(ValueError, match="--preset=pi0_mini"):
        PI0Policy.prepare_from_zero(tiny_config(train_expert_only=True))
