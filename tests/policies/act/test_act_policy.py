"""Training loss, control and checkpoints of ACT."""

import pytest
import torch
from torch import nn

from lerobot.common.policies.act.configuration_act import ACTConfig
from lerobot.common.policies.act.modeling_act import (
    ACTDecoderLayer,
    ACTEncoderLayer,
    ACTPolicy,
)
from lerobot.common.policies.act.processor_act import make_act_pre_post_processors
from lerobot.common.policies.pretrained import count_parameters

from ..tiny import batch_of, observation_of
from .conftest import config_of, policy_of

VARIANTS = {
    "two cameras": {},
    "cameras of different sizes": {"cameras": {"a": (3, 32, 48), "b": (3, 48, 32), "c": (3, 32, 48)}},
    "environment state only": {"cameras": {}, "env": 3},
    "picture and environment state, no joints": {"env": 3, "state": None},
    "no latent": {"use_vae": False},
    "pre-norm": {"pre_norm": True, "n_decoder_layers": 2},
    "gelu": {"feedforward_activation": "gelu"},
    "frozen batch norm": {"backbone_norm": "frozen"},
    "batch norm": {"backbone_norm": "batch"},
    "dilated resnet50": {
        "vision_backbone": "resnet50",
        "replace_final_stride_with_dilation": 1,
        "backbone_layers": 4,
    },
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def variant(request):
    return config_of(**request.param)


# Every configuration


def test_every_parameter_learns_and_actions_have_their_shape(variant):
    policy, batch = policy_of(variant), batch_of(variant)
    loss, info = policy.train()(batch)
    loss.backward()
    without = {n for n, p in policy.named_parameters() if p.grad is None}
    assert not without and loss.isfinite()
    assert ("kld_loss" in info) == variant.use_vae
    assert policy.select_action(observation_of(variant)).shape == (2, 6)


def test_saved_policy_loads_with_the_same_actions_bit_for_bit(variant, tmp_path):
    policy = policy_of(variant)
    policy.save_pretrained(tmp_path)
    loaded = ACTPolicy.from_pretrained(tmp_path, strict=True)
    observation = observation_of(variant)
    assert torch.equal(loaded.select_action(observation), policy.select_action(observation))
    assert loaded.config.input_features == variant.input_features and not loaded.training


def test_padded_frames_have_no_gradient_and_do_not_change_the_loss(variant):
    policy = policy_of(variant).train()
    batch = batch_of(variant)
    spoilt = dict(batch, action=batch["action"].clone())
    spoilt["action"][-1, -2:] = float("nan")
    losses = []
    for b in (batch, spoilt):
        b["action"].requires_grad_()
        torch.manual_seed(1)
        loss, _ = policy(b)
        loss.backward()
        losses.append(loss.item())
        assert (b["action"].grad[-1, -2:] == 0).all() and (b["action"].grad[0] != 0).any()
    assert losses[0] == losses[1]


# Sizes


def test_default_size():
    tiny = config_of(cameras={"top": (3, 480, 640)}, state=14, action=14)
    features = {"input_features": tiny.input_features, "output_features": tiny.output_features}
    config = ACTConfig(device="cpu", pretrained_backbone_weights=None, **features)
    policy = policy_of(config)
    assert count_parameters(policy, trainable=True) == 51_613_582
    assert len(policy.state_dict()) == 234
    groups = policy.get_optim_params()
    assert [len(g["params"]) for g in groups] == [133, 20]
    assert groups[1]["lr"] == config.optimizer_lr_backbone and "lr" not in groups[0]


def test_tensor_table():
    state = policy_of(config_of(env=3)).state_dict()
    shapes = {k: tuple(v.shape) for k, v in state.items()}
    assert shapes["model.vae_encoder_pos_enc"] == (1, 7, 16)
    assert shapes["model.vae_encoder_latent_output_proj.weight"] == (8, 16)
    assert shapes["model.encoder_img_feat_input_proj.weight"] == (16, 16, 1, 1)
    assert shapes["model.encoder_1d_feature_pos_embed.weight"] == (3, 16)
    assert shapes["model.decoder_pos_embed.weight"] == (5, 16)
    assert shapes["model.decoder.layers.0.multihead_attn.in_proj_weight"] == (48, 16)
    assert "model.encoder.norm.weight" not in shapes and "model.decoder.norm.weight" in shapes


def test_optimizer_groups_keep_registration_order(policy):
    groups = policy.get_optim_params()
    backbone = [p for n, p in policy.named_parameters() if n.startswith("model.backbone")]
    rest = [p for n, p in policy.named_parameters() if not n.startswith("model.backbone")]
    for group, expected in zip(groups, (rest, backbone), strict=True):
        assert [id(p) for p in group["params"]] == [id(p) for p in expected]


def test_backbone_group_is_present_without_pictures():
    groups = policy_of(config_of(cameras={}, env=3)).get_optim_params()
    assert len(groups) == 2 and groups[1]["params"] == []


# Layers


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_layers_equal_torch_where_there_are_no_positions(pre_norm, activation):
    config = config_of(pre_norm=pre_norm, feedforward_activation=activation)
    options = {"d_model": 16, "nhead": 2, "dim_feedforward": 24, "dropout": 0.0}
    options |= {"activation": activation, "norm_first": pre_norm}
    x, memory, no_position = torch.randn(4, 2, 16), torch.randn(5, 2, 16), torch.zeros(1, 1, 16)
    ours, theirs = ACTEncoderLayer(config), nn.TransformerEncoderLayer(**options)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(x, no_position), theirs(x), atol=1e-5, rtol=1e-5)
    ours, theirs = ACTDecoderLayer(config), nn.TransformerDecoderLayer(**options)
    ours.load_state_dict(theirs.state_dict())
    got = ours(x, memory, no_position, no_position)
    torch.testing.assert_close(got, theirs(x, memory), atol=1e-5, rtol=1e-5)


def test_cameras_in_one_call_equal_one_call_each():
    policy = policy_of(config_of(cameras=VARIANTS["cameras of different sizes"]["cameras"])).eval()
    images = list(observation_of(policy.config).values())[:3]
    together = policy.model._image_features(images)
    for image, features in zip(images, together, strict=True):
        torch.testing.assert_close(features, policy.model.backbone(image), atol=1e-5, rtol=1e-5)


def test_camera_order_is_that_of_the_features():
    config = config_of(cameras={"z": (3, 32, 48), "a": (3, 32, 48)})
    policy, observation = policy_of(config), observation_of(config)
    swapped = dict(observation)
    z, a = "observation.images.z", "observation.images.a"
    swapped[z], swapped[a] = observation[a], observation[z]
    tokens, _ = policy.model._observation_tokens(observation, torch.zeros(2, 4))
    other, _ = policy.model._observation_tokens(swapped, torch.zeros(2, 4))
    first, second = tokens[2:26], tokens[26:]
    torch.testing.assert_close(other[2:26], second)
    torch.testing.assert_close(other[26:], first)


# Loss


def test_loss_counts_valid_steps_only_unless_asked_otherwise():
    config = config_of(use_vae=False)
    policy, batch = policy_of(config), batch_of(config)
    error = (policy.predict_action_chunk(batch) - batch["action"]).abs()
    valid = error[~batch["action_is_pad"]]
    torch.testing.assert_close(policy(batch)[0], valid.mean())
    config.loss_over_padding = True
    torch.testing.assert_close(policy(batch)[0], valid.sum() / error.numel())


def test_loss_is_l1_plus_weighted_divergence(policy):
    loss, info = policy.train()(batch_of(policy.config))
    torch.testing.assert_close(loss.detach(), info["l1_loss"] + 10 * info["kld_loss"])
    assert info["kld_loss"] > 0


def test_loss_in_eval_mode_has_no_divergence(policy):
    loss, info = policy.eval()(batch_of(policy.config))
    assert torch.equal(loss, info["l1_loss"]) and "kld_loss" not in info


def test_training_with_latent_needs_actions(policy):
    with pytest.raises(AssertionError, match="'action' must be in the batch"):
        policy.train().model(observation_of(policy.config))


def test_batch_without_padding_mask_counts_every_step(policy):
    batch = batch_of(policy.config)
    batch["action_is_pad"][:] = False
    torch.manual_seed(0)
    expected = policy.train()(batch)[0]
    del batch["action_is_pad"]
    torch.manual_seed(0)
    torch.testing.assert_close(policy(batch)[0], expected)


def test_pictures_with_a_time_axis_are_the_current_frame(policy):
    batch = batch_of(policy.config)
    expected = policy.eval()(batch)[0]
    for key in policy.config.input_features:
        batch[key] = batch[key][:, None]
    assert torch.equal(policy(batch)[0], expected)


def test_one_batch_is_learned():
    config = config_of(kl_weight=0.1)
    policy, batch = policy_of(config).train(), batch_of(config)
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=3e-3)
    losses = []
    for _ in range(150):
        loss, info = policy(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(info["l1_loss"].item())
    assert losses[-1] < losses[0] / 10


def test_bfloat16_autocast_trains_and_acts(policy):
    batch = batch_of(policy.config)
    expected = policy.eval()(batch)[0].item()
    with torch.autocast("cpu", torch.bfloat16):
        assert policy(batch)[0].item() == pytest.approx(expected, rel=0.05)
        policy.train()(batch)[0].backward()
    assert all(p.grad.isfinite().all() for p in policy.parameters())


# Control


def test_queue_serves_the_chunk_and_ignores_observations_meanwhile(policy):
    first, later = observation_of(policy.config), observation_of(policy.config, seed=1)
    chunk = policy.predict_action_chunk(first)
    actions = [policy.select_action(first if step == 0 else later) for step in range(4)]
    torch.testing.assert_close(torch.stack(actions[:3], dim=1), chunk[:, :3])
    torch.testing.assert_close(actions[3], policy.predict_action_chunk(later)[:, 0])


def test_reset_forgets_the_queue(policy):
    first, later = observation_of(policy.config), observation_of(policy.config, seed=1)
    policy.select_action(first)
    policy.reset()
    torch.testing.assert_close(policy.select_action(later), policy.predict_action_chunk(later)[:, 0])


def test_predicting_a_chunk_leaves_the_queue_alone(policy):
    observation = observation_of(policy.config)
    policy.predict_action_chunk(observation)
    assert policy._action_queue.is_empty


@pytest.mark.parametrize("coeff", [0.01, -0.5])
def test_ensembling_averages_chunks_and_reset_starts_anew(coeff):
    config = config_of(temporal_ensemble_coeff=coeff, n_action_steps=1)
    policy = policy_of(config)
    observations = [observation_of(config, seed=s) for s in range(2)]
    chunks = [policy.predict_action_chunk(o) for o in observations]
    weight = torch.exp(torch.tensor(-coeff))
    torch.testing.assert_close(policy.select_action(observations[0]), chunks[0][:, 0])
    expected = (chunks[0][:, 1] + weight * chunks[1][:, 0]) / (1 + weight)
    torch.testing.assert_close(policy.select_action(observations[1]), expected)
    policy.reset()
    torch.testing.assert_close(policy.select_action(observations[1]), chunks[1][:, 0])


def test_action_steps_changed_later_are_checked_on_reset():
    policy = policy_of(config_of(temporal_ensemble_coeff=0.01, n_action_steps=1))
    policy.config.n_action_steps = 3
    with pytest.raises(NotImplementedError, match="n_action_steps=3"):
        policy.reset()


def test_recorded_actions_are_ignored_at_inference(policy):
    batch = batch_of(policy.config)
    expected = policy.predict_action_chunk(observation_of(policy.config))
    assert torch.equal(policy.train().predict_action_chunk(batch), expected)


def test_acting_keeps_the_training_mode_and_draws_no_dropout():
    policy = policy_of(config_of(dropout=0.5)).train()
    observation = observation_of(policy.config)
    first = policy.predict_action_chunk(observation)
    assert torch.equal(policy.predict_action_chunk(observation), first)
    assert all(m.training for m in policy.modules())


def test_missing_picture_is_a_key_error(policy):
    observation = observation_of(policy.config)
    del observation["observation.images.phone"]
    with pytest.raises(KeyError, match="observation.images.phone"):
        policy.select_action(observation)


# Checkpoints and processors


def test_loading_a_checkpoint_fetches_no_backbone_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    config = config_of(backbone_width=64, backbone_norm="frozen", backbone_layers=1)
    policy = policy_of(config)
    config.pretrained_backbone_weights = "ResNet18_Weights.IMAGENET1K_V1"
    policy.save_pretrained(tmp_path / "checkpoint")
    loaded = ACTPolicy.from_pretrained(tmp_path / "checkpoint")
    assert loaded.config.pretrained_backbone_weights == "ResNet18_Weights.IMAGENET1K_V1"
    with pytest.raises(FileNotFoundError, match="pretrained_backbone_weights=null"):
        ACTPolicy(config)


def test_checkpoint_of_another_architecture_names_tensors(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="action_head.weight"):
        ACTPolicy.from_pretrained(tmp_path, config=config_of(action=7))


def test_resizing_stands_right_before_the_device_step():
    stats = {
        "action": {"mean": torch.zeros(6), "std": torch.ones(6)},
        "observation.state": {"mean": torch.zeros(6), "std": torch.ones(6)},
        **{
            f"observation.images.{k}": {"mean": torch.zeros(3, 1, 1), "std": torch.ones(3, 1, 1)}
            for k in ("laptop", "phone")
        },
    }
    pre, post = make_act_pre_post_processors(config_of(image_size=(16, 24)), stats)
    names = [type(step).__name__ for step in pre.steps]
    assert names[2:4] == ["ImageCropResizeProcessorStep", "DeviceProcessorStep"]
    done = pre({k: v.abs().clamp(max=1) for k, v in observation_of(config_of()).items()})
    assert done["observation.images.laptop"].shape == (2, 3, 16, 24)
    assert [type(step).__name__ for step in post.steps] == [
        "UnnormalizerProcessorStep",
        "DeviceProcessorStep",
    ]


@pytest.mark.gpu
def test_cuda_gives_the_same_actions_and_trains_with_amp():
    config = config_of()
    policy = policy_of(config)
    batch = batch_of(config)
    expected = policy.predict_action_chunk(batch)
    policy.to("cuda")
    on_gpu = {k: v.cuda() for k, v in batch.items()}
    torch.testing.assert_close(policy.predict_action_chunk(on_gpu).cpu(), expected, atol=1e-3, rtol=1e-3)
    with torch.autocast("cuda", torch.bfloat16):
        loss, _ = policy.train()(on_gpu)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in policy.parameters())
