"""Every stage of SmolVLA against LeRobot 0.4.4, in float32."""

import pytest
import torch

from lerobot.common.policies.common.flow_matching import (
    create_sinusoidal_pos_embedding,
    noisy_actions,
    sample_noise,
    sample_time,
)

CLOSE = {"atol": 1e-5, "rtol": 0}


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, **CLOSE)


def capture_inputs(layers) -> list[list]:
    """Record what enters each layer's input norm, call by call."""
    seen = [[] for _ in layers]
    for layer, calls in zip(layers, seen, strict=True):
        layer.input_layernorm.register_forward_pre_hook(lambda m, args, calls=calls: calls.append(args[0]))
    return seen


def test_names_shapes_and_order_of_the_weights(case):
    expected = {k: tuple(shape) for k, (_, shape) in case.meta["state_dict"].items()}
    assert {k: tuple(v.shape) for k, v in case.policy.state_dict().items()} == expected
    assert list(case.policy.state_dict()) == list(case.meta["state_dict"])


def test_prepared_images_and_their_masks(case):
    images, masks = case.policy.prepare_images(case.batch())
    assert len(images) == len(case.prefixed("stage.image."))
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        assert torch.equal(mask, case.tensors[f"stage.image_mask.{i}"])
        if image is not None:
            assert_close(image, case.tensors[f"stage.image.{i}"])
        else:
            assert not mask.any()


def test_prepared_state_and_actions(case):
    assert_close(case.policy.prepare_state(case.batch()), case.tensors["stage.state_padded"])
    assert_close(case.policy.prepare_action(case.batch()), case.tensors["stage.actions_padded"])


def test_vision_tower_and_connector(case):
    embedded = case.policy.model.vlm_with_expert.vlm.embed_images(case.tensors["stage.image.0"])
    assert_close(embedded, case.tensors["stage.vision_embedding.0"])


def test_prefix_embeddings_and_masks(case):
    model, kept = case.policy.model, case.kept_columns()
    *context, state = case.policy.prepare_observation(case.batch())
    embedded, real = model.embed_context(*context)
    built = torch.cat([embedded, model.state_proj(state)[:, None]], 1)
    assert_close(built, case.tensors["stage.prefix_embs"][:, kept])
    assert torch.equal(real, case.tensors["stage.prefix_pad_masks"][:, kept[:-1]])


def test_attention_mask_and_positions(case):
    mask, positions = case.policy.model.layout(case.tensors["stage.prefix_pad_masks"][:, case.kept_columns()[:-1]])
    prefix = case.tensors["stage.prefix_pad_masks"].shape[1]
    kept = case.kept_columns() + list(range(prefix, case.tensors["stage.position_ids"].shape[1]))
    assert torch.equal(mask, case.tensors["stage.attention_mask"][:, kept][:, :, kept])
    assert torch.equal(positions, case.tensors["stage.position_ids"][:, kept])


def test_time_embedding_path_and_suffix(case):
    model, t = case.policy.model, case.tensors["time"]
    embedding = create_sinusoidal_pos_embedding(t, case.tensors["stage.time_embedding"].shape[1], 4e-3, 4.0)
    assert_close(embedding.float(), case.tensors["stage.time_embedding"])
    x_t, _ = noisy_actions(case.tensors["stage.actions_padded"], case.tensors["noise"], t)
    assert_close(x_t, case.tensors["stage.x_t"])
    assert_close(model.embed_suffix(x_t, t), case.tensors["stage.suffix_embs"])


@pytest.mark.parametrize("with_graph", [True, False])
def test_hidden_states_of_both_streams_and_velocity(case, with_graph):
    model = case.policy.model
    streams = model.vlm_with_expert
    prefix_in = capture_inputs(streams.vlm.model.text_model.layers)
    expert_in = capture_inputs(streams.lm_expert.layers)
    kept = case.kept_columns()
    real = case.tensors["stage.prefix_pad_masks"][:, kept]  # nothing attends the others
    with torch.set_grad_enabled(with_graph):
        prefix = model.encode_prefix(*case.policy.prepare_observation(case.batch()))
        velocity = model.velocity(case.tensors["stage.x_t"], case.tensors["time"], prefix)
    for i, calls in enumerate(prefix_in):
        expected = case.tensors[f"train.vlm.{i}_in"][:, kept]
        assert_close(torch.cat(calls, 1)[real], expected[real])
        assert len(calls) == (2 if with_graph else 1)  # training: constants without a graph, then the state
    for i, calls in enumerate(expert_in):
        assert_close(calls[0], case.tensors[f"train.expert.{i}_in"])
    assert_close(velocity, case.tensors["train.v_t"])


def test_loss_and_loss_per_sample(case):
    case.policy.train()
    loss, info = case.policy.forward(case.batch(), **case.draws())
    assert loss.item() == pytest.approx(case.meta["loss"], abs=1e-5)
    assert {k: v.item() for k, v in info.items()} == pytest.approx(case.meta["loss_info"], abs=1e-5)
    per_sample, _ = case.policy.forward(case.batch(), **case.draws(), reduction="none")
    assert_close(per_sample, case.tensors["loss_per_sample"])


def test_historic_loss_masks_padding_under_its_own_key(case):
    batch = {**case.batch(), "actions_id_pad": case.tensors["raw.action_is_pad"]}
    loss, info = case.policy.forward(batch, **case.draws())
    assert loss.item() == pytest.approx(case.meta["loss_with_actions_id_pad"], abs=1e-5)
    assert {k: v.item() for k, v in info.items()} == pytest.approx(case.meta["loss_info_with_actions_id_pad"], abs=1e-5)


def test_gradients_reach_the_same_parameters_with_the_same_norm(case):
    case.policy.train()
    case.policy.forward(case.batch(), **case.draws())[0].backward()
    norms = {k: p.grad.double().norm().item() for k, p in case.policy.named_parameters() if p.grad is not None}
    assert norms == pytest.approx(case.meta["grad_norm"], rel=1e-4)
    frozen = {k for k, p in case.policy.named_parameters() if not p.requires_grad}
    assert frozen == set(case.meta["frozen"])


def test_every_denoising_step_and_the_chunk(case, monkeypatch):
    model, steps = case.policy.model, []
    velocity = model.velocity
    monkeypatch.setattr(model, "velocity", lambda *a: steps.append(velocity(*a)) or steps[-1])
    noise = case.tensors["noise"].clone()
    actions = case.policy.predict_action_chunk(case.batch(), noise=noise)
    assert_close(torch.stack(steps), case.tensors["infer.v_t"])
    assert_close(actions, case.tensors["infer.actions"])
    assert torch.equal(noise, case.tensors["noise"])  # the caller's noise is not used up


def test_actions_from_the_queue(case):
    case.policy.reset()
    expected = case.tensors["infer.select_action"]
    for action in expected:
        assert_close(case.policy.select_action(case.batch(), noise=case.tensors["noise"]), action)


def test_random_draws(case):
    torch.manual_seed(case.meta["rng_seed"])
    assert torch.equal(sample_noise(case.tensors["rng.noise"].shape, "cpu"), case.tensors["rng.noise"])
    assert torch.equal(sample_time(len(case.tensors["rng.time"]), "cpu"), case.tensors["rng.time"])


def test_forward_draws_noise_then_time(case):
    torch.manual_seed(5)
    drawn, _ = case.policy.forward(case.batch())
    torch.manual_seed(5)
    noise = sample_noise(case.tensors["noise"].shape, "cpu")
    time = sample_time(len(noise), "cpu")
    assert torch.equal(drawn, case.policy.forward(case.batch(), noise=noise, time=time)[0])
