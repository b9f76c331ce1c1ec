"""ACT-DINOv2: configuration, features of pictures, freezing, kept features, checkpoints."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from lerobot.common.policies.act_dinov2.configuration_act_dinov2 import ACTDINOv2Config
from lerobot.common.policies.act_dinov2.modeling_act_dinov2 import ACTDINOv2Policy
from lerobot.common.policies.common.dinov2 import DINOv2Config
from lerobot.common.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.common.policies.pretrained import count_parameters
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import NormalizationMode

from ..common.test_dinov2 import original_names
from ..tiny import batch_of, observation_of
from .conftest import NET, config_of, policy_of

REGISTERS = DINOv2Config(**{**vars(NET), "num_register_tokens": 4})
STEM = DINOv2Config(**{**vars(NET), "stem_layers": 2, "stem_width": 4, "patch_size": 16, "image_size": 64})
VARIANTS = {
    "grid": {},
    "registers": {"backbone_config": REGISTERS},
    "class token": {"feature_mode": "cls"},
    "grid and class token": {"feature_mode": "grid_cls", "backbone_config": REGISTERS},
    "mean": {"feature_mode": "mean"},
    "two layers": {"feature_last_n_layers": 2},
    "pooled": {"backbone_image_size": 56, "feature_pool": 2},
    "learned positions, camera vectors": {"pos_embed_2d": "learned", "camera_embed": True},
    "letterbox": {"resize_mode": "letterbox", "resize_interpolation": "bicubic"},
    "snapped cameras of two sizes": {"resize_mode": "snap", "cameras": {"a": (3, 32, 48), "b": (3, 45, 30)}},
    "last block trained": {"n_unfrozen_layers": 1},
    "all trained": {"freeze_backbone": False},
    "bfloat16": {"backbone_dtype": "bfloat16"},
    "convolutional stem": {"backbone_config": STEM, "backbone_image_size": (32, 48), "freeze_backbone": False},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def variant(request):
    return config_of(**request.param)


# Configuration


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"vision_backbone": "resnet18"}, "vision_backbone='resnet18'.*--policy.type=act"),
        ({"backbone_image_size": 220}, "backbone_image_size=220.*multiples of the patch size 14.*224"),
        ({"backbone_image_size": (224, 0)}, "backbone_image_size"),
        ({"resize_mode": "crop"}, "resize_mode='crop'.*stretch, letterbox, snap"),
        ({"resize_interpolation": "nearest"}, "resize_interpolation='nearest'"),
        ({"feature_mode": "tokens"}, "feature_mode='tokens'"),
        ({"feature_last_n_layers": 0}, "feature_last_n_layers=0"),
        ({"feature_last_n_layers": 3}, "feature_last_n_layers=3: expected 1 to 2"),
        ({"n_unfrozen_layers": -1}, "n_unfrozen_layers=-1"),
        ({"n_unfrozen_layers": 3}, "n_unfrozen_layers=3: expected 0 to 2"),
        ({"feature_pool": 2}, "feature_pool=2 does not divide the map of 2x3"),
        ({"backbone_dtype": "float8"}, "backbone_dtype='float8'"),
        ({"backbone_dtype": "bfloat16", "n_unfrozen_layers": 1}, "backbone_dtype=bfloat16.*trained"),
        ({"resize_mode": "snap", "camera_embed": True}, "resize_mode=snap"),
        ({"resize_mode": "snap", "pos_embed_2d": "learned"}, "resize_mode=snap"),
        ({"replace_final_stride_with_dilation": True}, "replace_final_stride_with_dilation"),
        ({"backbone_width": 32}, "backbone_width=32 belongs to the ResNet"),
        ({"save_frozen_backbone": False}, "save_frozen_backbone=false.*pretrained_backbone_weights"),
        ({"normalization_mapping": {"VISUAL": NormalizationMode.IDENTITY}}, "VISUAL.*MEAN_STD"),
    ],
)
def test_values_that_do_not_go_together_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        config_of(**changes)


def test_picture_smaller_than_a_patch_is_refused():
    with pytest.raises(ValueError, match="laptop.*10x48, smaller than a patch"):
        policy_of(config_of(resize_mode="snap", cameras={"laptop": (3, 10, 48)}))


def test_presets_and_defaults():
    config = ACTDINOv2Config(device="cpu")
    optimizer = config.get_optimizer_preset()
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("adamw", 1e-5, 1e-4)
    assert config.get_scheduler_preset() is None and config.action_delta_indices == list(range(100))
    assert config.freeze_backbone and config.net.hidden_size == 384 and config.backbone_is_frozen
    assert get_policy_class("act_dinov2") is ACTDINOv2Policy


def test_default_size():
    shapes = config_of(cameras={"top": (3, 480, 640)})
    features = {"input_features": shapes.input_features, "output_features": shapes.output_features}
    for key in ("observation.state", "action"):
        side = "output_features" if key == "action" else "input_features"
        features[side][key].shape = (14,)
    policy = ACTDINOv2Policy(ACTDINOv2Config(device="cpu", pretrained_backbone_weights=None, **features))
    assert count_parameters(policy, trainable=True) == 40_381_134
    assert count_parameters(policy.model.backbone) == 22_056_576
    assert [len(g["params"]) for g in policy.get_optim_params()] == [133, 0]
    assert policy.config.backbone_config == DINOv2Config()


def test_checkpoint_of_a_public_variant_is_read_by_its_field_names(tmp_path):
    config = config_of(backbone_image_size=28)
    policy = policy_of(config)
    policy.save_pretrained(tmp_path)
    ours = ("vision_backbone", "pretrained_backbone_weights", "feature", "resize", "backbone", "pos_embed_2d", "save_")
    raw = json.loads((tmp_path / "config.json").read_text())
    raw = {k: v for k, v in raw.items() if not k.startswith(ours)}
    theirs = {
        "dinov2_model_name_or_path": None,
        "dinov2_local_files_only": True,
        "dinov2_revision": None,
        "dinov2_image_size": 28,
        "dinov2_output_mode": "grid",
        "dinov2_use_last_n_layers": 1,
        "dinov2_config_json": json.dumps({**vars(NET), "hidden_act": "gelu"}),
    }
    (tmp_path / "config.json").write_text(json.dumps({**raw, **theirs}))
    loaded = ACTDINOv2Policy.from_pretrained(tmp_path, strict=True)
    assert loaded.config.backbone_image_size == 28 and loaded.config.backbone_config == NET
    assert not loaded.config.resize_antialias
    policy.config.resize_antialias = False
    observation = observation_of(config)
    assert torch.equal(loaded.select_action(observation), policy.select_action(observation))


# Every configuration


def test_what_is_trained_learns_and_the_rest_stays(variant):
    policy, batch = policy_of(variant), batch_of(variant)
    before = {n: p.clone() for n, p in policy.named_parameters()}
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=1e-3, weight_decay=0.1)
    for _ in range(2):
        loss, _ = policy.train()(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.isfinite() and policy.select_action(observation_of(variant)).shape == (2, 6)
    changed = {n for n, p in policy.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {n for n, p in policy.named_parameters() if p.requires_grad}
    of_backbone = {n for n in changed if n.startswith("model.backbone")}
    expected = [] if variant.backbone_is_frozen else policy.model.backbone.parameters()
    assert len(of_backbone) == sum(p.requires_grad for p in expected)


def test_saved_policy_loads_offline_with_the_same_actions_bit_for_bit(variant, tmp_path):
    policy = policy_of(variant)
    policy.save_pretrained(tmp_path)
    loaded = ACTDINOv2Policy.from_pretrained(tmp_path, strict=True)
    observation = observation_of(variant)
    assert torch.equal(loaded.select_action(observation), policy.select_action(observation))
    assert loaded.config == variant and PreTrainedConfig.from_pretrained(tmp_path) == variant


def test_padded_frames_have_no_gradient_and_do_not_change_the_loss(variant):
    policy, batch = policy_of(variant).train(), batch_of(variant)
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


def test_kept_features_give_the_loss_and_actions_of_computed_ones(variant):
    policy, batch = policy_of(variant).train(), batch_of(variant)
    if not policy.frozen_feature_modes():
        assert variant.resize_mode == "snap" or not variant.backbone_is_frozen
        return
    kept = policy.frozen_features(batch, "vision")
    without = {k: v for k, v in batch.items() if k not in variant.image_features} | kept
    one_camera = {k: v for k, v in without.items() if not k.startswith("frozen.observation.images.phone")}
    one_camera["observation.images.phone"] = batch["observation.images.phone"]
    losses = []
    for b in (batch, without, one_camera):
        torch.manual_seed(1)
        losses.append(policy(b)[0].item())
    assert losses[0] == losses[1] == pytest.approx(losses[2], rel=1e-6)
    assert torch.equal(policy.predict_action_chunk(without), policy.predict_action_chunk(batch))
    weights, settings = policy.frozen_inputs("vision")
    assert all(torch.equal(v, policy.model.backbone.state_dict()[k]) for k, v in weights.items())
    json.dumps(settings)


# Features


def test_a_gray_picture_reaches_the_backbone_normalized_once_with_imagenet_statistics():
    config = config_of(cameras={"laptop": (3, 32, 48)})
    dataset = {"mean": torch.full((3, 1, 1), 0.1), "std": torch.full((3, 1, 1), 0.7)}
    vector = {"mean": torch.zeros(6), "std": torch.ones(6)}
    stats = {"observation.images.laptop": dataset, "observation.state": vector, "action": vector}
    pre, _ = make_pre_post_processors(config, dataset_stats=stats)
    policy, seen = policy_of(config), []
    policy.model.backbone.embeddings.patch_embeddings.projection.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0])
    )
    policy.select_action(
        pre({"observation.images.laptop": torch.full((3, 32, 48), 0.5), "observation.state": torch.zeros(6)})
    )
    expected = (0.5 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(seen[0], expected[None, :, None, None].expand(1, 3, 28, 42), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("net", [NET, REGISTERS])
def test_map_holds_the_patch_tokens_row_by_row(net):
    config = config_of(backbone_config=net, feature_mode="grid_cls")
    policy, batch = policy_of(config), batch_of(config)
    features = policy.frozen_features(batch)
    tokens = policy.model.backbone(policy.model._resize(batch["observation.images.phone"]))
    first = 1 + net.num_register_tokens
    grid = features["frozen.observation.images.phone"]
    assert grid.shape == (2, 64, 2, 3) and tokens.shape[1] == first + 6
    torch.testing.assert_close(grid[:, :, 1, 0], tokens[:, first + 3])
    torch.testing.assert_close(features["frozen.observation.images.phone.cls"], tokens[:, 0])


def test_cameras_in_one_call_equal_one_call_each():
    config = config_of()
    policy, batch = policy_of(config), batch_of(config)
    together = policy.frozen_features(batch)
    for key in config.image_features:
        alone = policy.model.compute_features(batch, [key])["frozen." + key]
        torch.testing.assert_close(alone, together["frozen." + key])


def test_letterbox_keeps_the_ratio_and_pads_right_and_below_with_zero():
    policy = policy_of(config_of(resize_mode="letterbox", backbone_image_size=56))
    seen = policy.model._resize(torch.ones(1, 3, 30, 60))
    torch.testing.assert_close(seen, F.pad(torch.ones(1, 3, 28, 56), (0, 0, 0, 28)))


def test_snapping_rounds_down_to_whole_patches():
    policy = policy_of(config_of(resize_mode="snap"))
    assert policy.model._resize(torch.ones(1, 3, 45, 30)).shape == (1, 3, 42, 28)


def test_tokens_per_camera():
    policy = policy_of(config_of(feature_mode="grid_cls"))
    tokens = policy.model._image_tokens(batch_of(policy.config))
    assert [(t.shape, p.shape) for t, p in tokens] == [((7, 2, 16), (7, 1, 16))] * 2


def test_many_tokens_are_warned_of(caplog):
    policy_of(config_of(resize_mode="snap", cameras={"a": (3, 14 * 33, 14 * 64)}))
    assert "2112 picture tokens" in caplog.text


# Training


def test_frozen_backbone_stays_in_eval_mode_and_draws_nothing():
    policy = policy_of(config_of()).train()
    assert not any(m.training for m in policy.model.backbone.modules()) and policy.model.encoder.training
    assert policy_of(config_of(freeze_backbone=False)).train().model.backbone.training


def test_one_batch_is_learned():
    config = config_of(use_vae=False)
    policy, batch = policy_of(config).train(), batch_of(config)
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=1e-2)
    losses = []
    for step in range(150):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / 150)
        loss, _ = policy(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10


def test_bfloat16_autocast_trains_and_acts():
    policy = policy_of(config_of(feature_mode="grid_cls", camera_embed=True))
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = policy.train()(batch_of(policy.config))
        action = policy.select_action(observation_of(policy.config))
    loss.backward()
    assert loss.isfinite() and action.isfinite().all()


# Checkpoints


@pytest.mark.parametrize("prefix", ["", "model.", "backbone.", "dinov2.", "body."])
@pytest.mark.parametrize("original", [False, True])
def test_foreign_checkpoint_is_understood_from_its_shapes(tmp_path, prefix, original):
    config = config_of(backbone_config=REGISTERS, backbone_image_size=28)
    policy = policy_of(config)
    policy.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    backbone = {k.removeprefix("model.backbone."): v for k, v in state.items() if k.startswith("model.backbone.")}
    rest = {k: v for k, v in state.items() if not k.startswith("model.backbone.")}
    rest["model.encoder_img_feat_input_proj.weight"] = rest["model.encoder_img_feat_input_proj.weight"][:, :, 0, 0]
    names = original_names(backbone) if original else backbone
    wrapped = {f"model.backbone.{prefix}{k}": v.contiguous() for k, v in names.items()}
    save_file({k: v.contiguous() for k, v in {**rest, **wrapped}.items()}, tmp_path / "model.safetensors")
    raw = json.loads((tmp_path / "config.json").read_text())
    for name in ("backbone_config", "dim_model"):
        del raw[name]
    sizes = {"vision_backbone": "resnet18", "pretrained_backbone_weights": "ResNet18_Weights.IMAGENET1K_V1"}
    (tmp_path / "config.json").write_text(json.dumps({**raw, **sizes}))
    loaded = ACTDINOv2Policy.from_pretrained(tmp_path, strict=True)
    observation = observation_of(config)
    torch.testing.assert_close(loaded.select_action(observation), policy.select_action(observation))


def test_legacy_statistics_inside_the_weights_become_processors(tmp_path):
    config = config_of(cameras={"wrist_left": (3, 32, 48)})
    policy = policy_of(config)
    policy.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    for module, feature, shape in (
        ("normalize_inputs", "observation_state", (6,)),
        ("normalize_inputs", "observation_images_wrist_left", (3, 1, 1)),
        ("unnormalize_outputs", "action", (6,)),
    ):
        state |= {f"{module}.buffer_{feature}.{stat}": torch.full(shape, 2.0) for stat in ("mean", "std")}
    save_file(state, tmp_path / "model.safetensors")
    loaded = ACTDINOv2Policy.from_pretrained(tmp_path)
    pre, post = make_pre_post_processors(loaded.config, pretrained_path=tmp_path)
    done = pre({k: torch.full(f.shape, 1.0) for k, f in config.input_features.items()})
    torch.testing.assert_close(done["observation.state"], torch.full((1, 6), -0.5))
    assert post(torch.ones(1, 6)).tolist() == [[4.0] * 6]


def test_left_out_backbone_is_fetched_again_and_has_to_be_the_same(tmp_path):
    source = policy_of(config_of()).model.backbone.state_dict()
    save_file(source, tmp_path / "dinov2.safetensors")
    weights = str(tmp_path / "dinov2.safetensors")
    config = config_of(pretrained_backbone_weights=weights, save_frozen_backbone=False)
    torch.manual_seed(1)
    policy = ACTDINOv2Policy(config)
    policy.save_pretrained(tmp_path / "checkpoint")
    assert not any("backbone" in k for k in load_file(tmp_path / "checkpoint" / "model.safetensors"))
    loaded = ACTDINOv2Policy.from_pretrained(tmp_path / "checkpoint", strict=True)
    observation = observation_of(config)
    assert torch.equal(loaded.select_action(observation), policy.select_action(observation))
    save_file({k: v + 1 for k, v in source.items()}, tmp_path / "dinov2.safetensors")
    with pytest.raises(ValueError, match="SHA-256.*--policy.pretrained_backbone_weights"):
        ACTDINOv2Policy.from_pretrained(tmp_path / "checkpoint")


@pytest.mark.gpu
def test_cuda_gives_the_same_actions_and_trains_with_amp():
    config = config_of()
    policy, batch = policy_of(config), batch_of(config)
    expected = policy.predict_action_chunk(batch)
    policy.to("cuda")
    on_gpu = {k: v.cuda() for k, v in batch.items()}
    torch.testing.assert_close(policy.predict_action_chunk(on_gpu).cpu(), expected, atol=1e-3, rtol=1e-3)
    with torch.autocast("cuda", torch.bfloat16):
        loss, _ = policy.train()(on_gpu)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in policy.parameters() if p.requires_grad)
