"""pi0's configuration and checkpoints: both generations, processors, tokenizer."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lerobot.common.policies.factory import make_pre_post_processors
from lerobot.common.policies.pi0.configuration_pi0 import PI0Config
from lerobot.common.policies.pi0.modeling_pi0 import EMBEDDING, HEAD, UNUSED, PI0Policy
from lerobot.common.policies.pi0.processor_pi0 import make_pi0_pre_post_processors
from lerobot.common.policies.pi0.tokenizer_source import SHIPPED
from lerobot.configs.policies import PreTrainedConfig

from .conftest import SIZES, tiny_batch, tiny_config, tiny_policy

STATS = {
    "observation.state": {"mean": torch.arange(6.0), "std": torch.full((6,), 2.0)},
    "action": {"mean": torch.arange(6.0) - 3, "std": torch.full((6,), 0.5)},
}
PALI = "model.paligemma_with_expert.paligemma."
LEGACY_FIELDS = {
    "type": "pi0",
    "n_obs_steps": 1,
    "chunk_size": 5,
    "n_action_steps": 3,
    "max_state_dim": 32,
    "max_action_dim": 32,
    "resize_imgs_with_padding": [28, 14],
    "empty_cameras": 0,
    "adapt_to_pi_aloha": False,
    "use_delta_joint_actions_aloha": False,
    "tokenizer_max_length": 16,
    "proj_width": 1024,
    "num_steps": 2,
    "use_cache": True,
    "attention_implementation": "eager",
    "freeze_vision_encoder": True,
    "train_expert_only": False,
    "train_state_proj": True,
    "device": "cpu",
}


def legacy_name(key: str) -> str:
    """A weight's name in LeRobot 0.1 to 0.3.3."""
    for new, old in (
        (f"{PALI}model.language_model.", f"{PALI}language_model.model."),
        (f"{PALI}lm_head.", f"{PALI}language_model.lm_head."),
        (f"{PALI}model.", PALI),
    ):
        if key.startswith(new):
            return old + key.removeprefix(new)
    return key


@pytest.fixture
def legacy(tmp_path) -> tuple:
    """A policy, and a folder with the same weights as LeRobot 0.1 stores them."""
    policy = tiny_policy(
        image_resolution=(14, 28), dtype="bfloat16", letterbox="top_left", legacy_rounding=True, tokenizer_max_length=16
    )
    folder = tmp_path / "legacy"
    folder.mkdir()
    weights = {legacy_name(k): v.clone() for k, v in policy.state_dict().items() if k != EMBEDDING}
    for module in ("normalize_inputs", "normalize_targets", "unnormalize_outputs"):
        name = "observation.state" if module == "normalize_inputs" else "action"
        for stat, value in STATS[name].items():
            weights[f"{module}.buffer_{name.replace('.', '_')}.{stat}"] = value.clone()
    save_file(weights, folder / "model.safetensors")
    features = {
        k: {"type": f.type.value, "shape": list(f.shape)}
        for k, f in {**policy.config.input_features, **policy.config.output_features}.items()
    }
    inputs = {k: f for k, f in features.items() if k != "action"}
    outputs = {"action": features["action"]}
    config = {**LEGACY_FIELDS, "input_features": inputs, "output_features": outputs}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "extras.json").write_text(json.dumps({"vlm_config": SIZES, "tokenizer_name": "pi0_mini"}))
    return policy, folder


def raw_observation(config) -> dict:
    observation = {k: torch.rand(1, *f.shape) for k, f in config.input_features.items()}
    return {**observation, "task": ["Grasp a lego block."]}


def test_a_legacy_configuration_is_told_by_its_fields(legacy):
    config = PreTrainedConfig.from_pretrained(legacy[1])
    assert isinstance(config, PI0Config)
    assert (config.num_inference_steps, tuple(config.image_resolution)) == (2, (14, 28))
    assert (config.letterbox, config.legacy_rounding, config.dtype) == ("top_left", True, "bfloat16")
    assert (config.freeze_vision_encoder, config.train_expert_only) == (True, False)
    preset = config.get_optimizer_preset()
    assert (preset.weight_decay, preset.grad_clip_norm) == (1e-10, 10)
    changed = PreTrainedConfig.from_pretrained(legacy[1], cli_overrides=["--num_inference_steps=4"])
    assert changed.num_inference_steps == 4


@pytest.mark.parametrize(
    "fields, letterbox",
    [
        ({"num_steps": 10}, "top_left"),
        ({"proj_width": 1024}, "top_left"),
        ({"use_cache": True, "attention_implementation": "eager"}, "top_left"),
        ({"image_resolution": [224, 224]}, "centre"),
        ({"paligemma_variant": "gemma_2b", "freeze_vision_encoder": True}, "centre"),
        ({}, "centre"),
    ],
)
def test_either_generation_is_told_by_any_field_that_only_it_has(fields, letterbox):
    raw = {"type": "pi0", "chunk_size": 50, **fields}
    assert PI0Config.upgrade(raw).get("letterbox", PI0Config.letterbox) == letterbox


def test_a_legacy_checkpoint_gives_the_same_actions_and_becomes_a_new_one(legacy, tmp_path):
    policy, folder = legacy
    loaded = PI0Policy.from_pretrained(folder, strict=True)
    assert {k: v.dtype for k, v in loaded.state_dict().items()} == {k: v.dtype for k, v in policy.state_dict().items()}
    pre, post = make_pre_post_processors(loaded.config, pretrained_path=folder)
    torch.testing.assert_close(loaded.legacy_stats["action"]["std"], STATS["action"]["std"])
    raw, noise = raw_observation(policy.config), torch.randn(1, 5, 32)
    batch = pre(dict(raw))
    state = STATS["observation.state"]
    torch.testing.assert_close(
        batch["observation.state"], (raw["observation.state"] - state["mean"]) / (state["std"] + 1e-8)
    )
    chunk = loaded.predict_action_chunk(batch, noise=noise)
    assert torch.equal(chunk, policy.predict_action_chunk(batch, noise=noise))
    for part in (loaded, pre, post):
        part.save_pretrained(tmp_path / "new")
    again = PI0Policy.from_pretrained(tmp_path / "new", strict=True)
    pre, post = make_pre_post_processors(again.config, pretrained_path=tmp_path / "new")
    assert torch.equal(again.predict_action_chunk(pre(dict(raw)), noise=noise), chunk)
    stored = json.loads((tmp_path / "new/config.json").read_text())
    assert stored["num_inference_steps"] == 2
    assert not {"num_steps", "letterbox", "vlm_config"} & set(stored)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"use_delta_joint_actions_aloha": True}, NotImplementedError),
        ({"n_obs_steps": 2}, ValueError),
        ({"n_action_steps": 6}, ValueError),
    ],
)
def test_legacy_configurations_that_never_worked_are_refused(change, error):
    with pytest.raises(error):
        PI0Config.upgrade({**LEGACY_FIELDS, **change})


def test_pictures_that_a_legacy_checkpoint_does_not_resize():
    assert PI0Config.upgrade({**LEGACY_FIELDS, "resize_imgs_with_padding": None})["image_resolution"] is None


def test_the_tied_embedding_is_stored_once_and_read_under_either_name(tmp_path):
    policy = tiny_policy()
    policy.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as f:
        assert HEAD in f.keys()  # noqa: SIM118  not a dict
        assert EMBEDDING not in f.keys()  # noqa: SIM118
        assert f.metadata() == {EMBEDDING: HEAD, "format": "pt"} or f.metadata() == {EMBEDDING: HEAD}
    weights = load_file(tmp_path / "model.safetensors")
    weights[EMBEDDING] = weights.pop(HEAD)
    save_file(weights, tmp_path / "model.safetensors")
    loaded = PI0Policy.from_pretrained(tmp_path, strict=True)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in policy.state_dict().items())


def test_names_without_the_leading_module_and_short_mlp_names(tmp_path):
    policy = tiny_policy()
    policy.save_pretrained(tmp_path)
    short = {
        k.removeprefix("model.").replace("action_time_mlp", "time_mlp"): v
        for k, v in load_file(tmp_path / "model.safetensors").items()
        if k != UNUSED
    }
    save_file(short, tmp_path / "model.safetensors")
    loaded = PI0Policy.from_pretrained(tmp_path, strict=True)
    same = {k: v for k, v in policy.state_dict().items() if k != UNUSED}
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in same.items())
    assert not loaded.state_dict()[UNUSED].any()


def test_a_missing_weight_is_refused(tmp_path):
    tiny_policy().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.state_proj.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="model.state_proj.bias"):
        PI0Policy.from_pretrained(tmp_path)


def test_defaults_presets_and_frames():
    config = PI0Config(device="cpu")
    optimizer, scheduler = config.get_optimizer_preset(), config.get_scheduler_preset()
    assert (optimizer.lr, optimizer.betas, optimizer.eps) == (2.5e-5, (0.9, 0.95), 1e-8)
    assert (optimizer.weight_decay, optimizer.grad_clip_norm) == (0.01, 1.0)
    assert (scheduler.peak_lr, scheduler.decay_lr) == (2.5e-5, 2.5e-6)
    assert (scheduler.num_warmup_steps, scheduler.num_decay_steps) == (1000, 30000)
    assert config.observation_delta_indices is config.reward_delta_indices is None
    assert config.action_delta_indices == list(range(50))


@pytest.mark.parametrize(
    "change",
    [
        {"paligemma_variant": "gemma_9b"},
        {"action_expert_variant": "gemma"},
        {"dtype": "float16"},
        {"letterbox": "left"},
        {"n_action_steps": 6},
    ],
)
def test_values_that_do_not_exist_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        tiny_config(**change)


def test_a_state_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="max_state_dim=4"):
        tiny_policy(max_state_dim=4)


def test_processors():
    config = tiny_config()
    pre, post = make_pi0_pre_post_processors(config, STATS)
    assert [s._registry_name for s in pre.steps] == [
        "rename_observations_processor",
        "to_batch_processor",
        "pi0_new_line_processor",
        "tokenizer_processor",
        "device_processor",
        "normalizer_processor",
    ]
    assert [s._registry_name for s in post.steps] == ["unnormalizer_processor", "device_processor"]
    assert pre.steps[3].get_config() == {
        "max_length": 48,
        "task_key": "task",
        "padding_side": "right",
        "padding": "max_length",
        "truncation": True,
        "tokenizer_name": "pi0_mini",
    }
    tokens = pre(raw_observation(config))["observation.language.tokens"]
    assert tokens.shape == (1, 48)
    assert tokens[0, 0] == 2  # begin of sequence
    assert tokens[0, -1] == 0  # padding


def test_an_absent_tokenizer_says_what_to_do():
    with pytest.raises(FileNotFoundError, match="--preset=pi0_mini"):
        make_pi0_pre_post_processors(tiny_config(tokenizer_name="nowhere_to_be_found"), STATS)


def test_another_tokenizer_can_be_chosen_for_a_checkpoint(tmp_path):
    config = tiny_config()
    for part in (PI0Policy(config), *make_pi0_pre_post_processors(config, STATS)):
        part.save_pretrained(tmp_path / "checkpoint")
    shutil.copytree(SHIPPED / "pi0_mini", tmp_path / "other")
    config.tokenizer_name = str(tmp_path / "other")
    pre, _ = make_pre_post_processors(config, tmp_path / "checkpoint")
    assert pre.steps[3].get_config()["tokenizer_name"] == config.tokenizer_name


def test_aloha_units_are_converted_outside_of_the_normalization(tmp_path):
    stats = {
        k: {"mean": torch.full((14,), 0.25), "std": torch.full((14,), 2.0)} for k in ("observation.state", "action")
    }
    config = tiny_config(state=14, action=14, adapt_to_pi_aloha=True)
    pre, post = make_pi0_pre_post_processors(config, stats)
    for part in (pre, post):
        part.save_pretrained(tmp_path)
    PI0Policy(config).save_pretrained(tmp_path)
    for before, after in ((pre, post), make_pre_post_processors(config, pretrained_path=tmp_path)):
        state = torch.full((1, 14), 0.5)
        batch = before({**raw_observation(config), "observation.state": state, "action": state[None].clone()})
        unit = batch["observation.state"][0] * 2 + 0.25
        assert unit[[0, 1, 6]].tolist() == pytest.approx([0.5, -0.5, -0.00358], abs=1e-4)
        assert (batch["action"][0, 0] * 2 + 0.25)[[0, 1, 6]].tolist() == pytest.approx([0.5, -0.5, 0.03168], abs=1e-4)
        assert (state == 0.5).all()
        action = after(torch.full((1, 14), 0.125))[0]
        assert action[[0, 1, 13]].tolist() == pytest.approx([0.5, -0.5, 0.74388], abs=1e-4)


def test_a_fresh_policy_starts_near_the_variance_of_its_target():
    policy = PI0Policy(tiny_config())
    loss, _ = policy(tiny_batch(policy.config))
    assert math.isfinite(loss.item())
    assert 0.5 < loss.item() < 5


def test_an_unseen_sentence_warns_once(tmp_path, caplog):
    config = tiny_config(training_tasks=["Grasp a lego block."])
    config.save_pretrained(tmp_path)
    pre, _ = make_pre_post_processors(PreTrainedConfig.from_pretrained(tmp_path), dataset_stats=STATS)
    for task in ("Grasp a lego block.", "Wave.", "Wave."):
        pre({**raw_observation(config), "task": [task]})
    assert caplog.text.count("never trained on the task 'Wave.'") == 1 and "lego block.'" in caplog.text
