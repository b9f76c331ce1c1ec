"""What SmolVLA says when it is given something it cannot use: one message, with the way out."""

import json
import logging

import pytest
import torch
from safetensors.torch import save_file

from lerobot.common.policies.factory import make_pre_post_processors
from lerobot.common.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.common.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors
from lerobot.configs.policies import PreTrainedConfig

from .conftest import tiny_batch, tiny_config, tiny_policy

TOP = "observation.images.top"


def statistics() -> dict:
    one = {"mean": torch.zeros(6), "std": torch.ones(6)}
    return {"observation.state": one, "action": one}


@pytest.fixture
def checkpoint(tmp_path):
    policy = tiny_policy()
    for part in (policy, *make_smolvla_pre_post_processors(policy.config, statistics())):
        part.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (2, 32, 32, 3), (3, 32, 32), (2, 4, 3, 32)])
def test_pictures_of_another_shape(shape):
    policy = tiny_policy()
    batch = {**tiny_batch(policy.config), TOP: torch.rand(shape)}
    with pytest.raises(ValueError, match=rf"'{TOP}' have shape .*expected \(batch, 3, height, width\)"):
        policy.predict_action_chunk(batch)


def test_no_camera_of_the_policy():
    policy = tiny_policy()
    with pytest.raises(ValueError, match=f"All image features are missing.*{TOP}.*the batch has observation.state"):
        policy.forward(tiny_batch(policy.config, leave_out=("top", "wrist")))


def test_a_camera_that_was_there_in_training_is_missed_once(caplog):
    policy = tiny_policy()
    for _ in range(2):
        policy.predict_action_chunk(tiny_batch(policy.config, leave_out=("wrist",)))
    assert caplog.text.count("lacks observation.images.wrist") == 1 and "--policy.empty_cameras=1" in caplog.text
    caplog.clear()
    policy = tiny_policy(empty_cameras=1)
    policy.predict_action_chunk(tiny_batch(policy.config, leave_out=("wrist", "empty_camera_0")))
    assert not caplog.records


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_state_that_is_not_finite(value):
    policy = tiny_policy()
    batch = tiny_batch(policy.config)
    batch["observation.state"][1, 0, 4] = value
    for use in (policy.forward, policy.select_action):
        with pytest.raises(ValueError, match=r"'observation.state' is not finite in components \[4\]"):
            use(batch)


def test_no_state():
    policy = tiny_policy()
    batch = tiny_batch(policy.config)
    del batch["observation.state"]
    with pytest.raises(ValueError, match="lacks 'observation.state', which policy 'smolvla' reads"):
        policy.forward(batch)


def test_no_task():
    pre, _ = make_smolvla_pre_post_processors(tiny_config(), statistics())
    with pytest.raises(KeyError, match=r"no 'task'.*batch\['task'\]"):
        pre({"observation.state": torch.zeros(6)})
    with pytest.raises(ValueError, match="Task .*None"):
        pre({"observation.state": torch.zeros(6), "task": None})


def test_a_feature_without_statistics():
    pre, _ = make_smolvla_pre_post_processors(tiny_config(), {"action": statistics()["action"]})
    with pytest.raises(ValueError, match="MEAN_STD.*mean and std.*'observation.state'.*--dataset.root"):
        pre({"observation.state": torch.zeros(6), "task": "go"})


def test_statistics_under_names_that_no_feature_has():
    """As in the published smolvla_base, which LeRobot runs without normalizing anything."""
    named = {f"so100.buffer.{k}": v for k, v in statistics().items()}
    pre, post = make_smolvla_pre_post_processors(tiny_config(), named)
    with pytest.raises(ValueError, match="'observation.state'.*so100.buffer.observation.state"):
        pre({"observation.state": torch.zeros(6), "task": "go"})
    with pytest.raises(ValueError, match="'action'"):
        post(torch.zeros(1, 6))


@pytest.mark.parametrize("keep", [0, 7, 200, -100])
def test_a_truncated_weights_file(checkpoint, keep):
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match="model.safetensors is truncated or not a safetensors file"):
        SmolVLAPolicy.from_pretrained(checkpoint)


def test_a_corrupted_weights_file(checkpoint):
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:8] + b"x" * 1000)
    with pytest.raises(ValueError, match="not a safetensors file"):
        SmolVLAPolicy.from_pretrained(checkpoint)


def test_truncated_weights_of_the_language_model(tmp_path):
    source = tiny_policy().source
    source.save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(source.config()))
    (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    config = tiny_config(vlm_model_name=str(tmp_path), vlm_config={}, load_vlm_weights=True)
    with pytest.raises(ValueError, match="model.safetensors is truncated"):
        SmolVLAPolicy(config)
    save_file({"lm_head.weight": torch.zeros(3, 4)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="does not fit its config.json: tensor lm_head.weight"):
        SmolVLAPolicy(config)


def test_a_configuration_of_a_newer_version(checkpoint, caplog):
    file = checkpoint / "config.json"
    raw = json.loads(file.read_text())
    raw |= {"rtc_config": None, "compile_model": False, "pretrained_revision": "main", "dream": {"deep": 3}}
    raw["input_features"]["observation.hologram"] = {"type": "HOLOGRAM", "shape": [3]}
    file.write_text(json.dumps(raw))
    policy = SmolVLAPolicy.from_pretrained(checkpoint)
    (warning,) = [r.message for r in caplog.records if "unknown fields" in r.message]
    assert "dream" in warning and "pretrained_revision" in warning and "compile_model" not in warning
    assert "observation.hologram" not in policy.config.input_features


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "smolvla9"}, "type 'smolvla9'; known policies: .*smolvla"),
        ({"chunk_size": "many"}, "chunk_size='many' cannot be read"),
        ({"n_action_steps": 99}, "n_action_steps=99"),
    ],
)
def test_a_configuration_that_cannot_be_used(checkpoint, change, message):
    file = checkpoint / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        PreTrainedConfig.from_pretrained(checkpoint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunk_size": 0, "n_action_steps": 0}, "chunk_size=0: expected at least 1"),
        ({"num_steps": 0}, "num_steps=0"),
        ({"tokenizer_max_length": 0}, "tokenizer_max_length=0"),
        ({"empty_cameras": -1}, "empty_cameras=-1: expected at least 0"),
        ({"min_period": 0.0}, "0 < min_period < max_period"),
        ({"expert_width_multiplier": 0.0}, "expert_width_multiplier"),
        ({"pad_language_to": "shortest"}, "longest or max_length"),
        ({"num_expert_layers": 3}, "4 text layers .* --policy.num_expert_layers=3"),
    ],
)
def test_numbers_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        tiny_policy(**change)


def test_a_damaged_processor_file_is_named(checkpoint):
    (checkpoint / "policy_preprocessor.json").write_text("{")
    config = PreTrainedConfig.from_pretrained(checkpoint)
    with pytest.raises(ValueError, match=r"policy_preprocessor.json is not valid JSON"):
        make_pre_post_processors(config, checkpoint)


def test_a_configuration_that_is_no_json(checkpoint):
    (checkpoint / "config.json").write_text('{"type": "smol')
    with pytest.raises(ValueError, match="config.json is not valid JSON.*damaged"):
        SmolVLAPolicy.from_pretrained(checkpoint)


def test_no_tokenizer_and_no_network(checkpoint, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (checkpoint / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises((FileNotFoundError, ValueError), match="(?s)okenizer.*--policy.vlm_model_name"):
        make_pre_post_processors(PreTrainedConfig.from_pretrained(checkpoint), checkpoint)


def test_half_precision_and_autocast_give_finite_actions(caplog):
    policy = tiny_policy().to(torch.bfloat16)
    with caplog.at_level(logging.WARNING), torch.autocast("cpu", torch.bfloat16):
        assert policy.predict_action_chunk(tiny_batch(policy.config)).isfinite().all()
