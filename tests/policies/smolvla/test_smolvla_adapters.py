"""Low-rank adapters on SmolVLA: what they train, their files, merging."""

import json
import logging
import re

import pytest
import torch
from safetensors.torch import load_file

from lerobot.common.policies.adapters import add_adapter, export_merged, merge_adapter
from lerobot.common.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.configs.default import PeftConfig
from lerobot.configs.policies import PreTrainedConfig

from .conftest import tiny_batch, tiny_policy

pytest.importorskip("peft")
FROZEN = {"freeze_vision_encoder": True, "train_expert_only": True}


@pytest.fixture
def base(tmp_path):
    tiny_policy(**FROZEN).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def load(base):
    def load(**settings):
        config = PreTrainedConfig.from_pretrained(base)
        config.pretrained_path = str(base)
        policy = SmolVLAPolicy.from_pretrained(base, config=config)
        add_adapter(policy, PeftConfig(**{"r": 4, **settings}))
        return policy

    return load


def train_a_little(policy) -> None:
    policy.train()
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        policy.forward(tiny_batch(policy.config))[0].backward()
        optimizer.step()
    policy.eval()


def chunk(policy):
    return policy.predict_action_chunk(tiny_batch(policy.config), noise=torch.ones(2, 5, 32))


def test_the_default_layers_are_those_of_the_expert_and_the_projections_beside_it(load):
    policy = load()
    adapted = {n.partition(".lora_A")[0] for n, _ in policy.named_parameters() if ".lora_A" in n}
    expert = [n for n in adapted if re.search(r"lm_expert\.layers\.\d\.self_attn\.[qv]_proj$", n)]
    assert len(expert) == 8 and len(adapted) == 13
    assert all(("lora_" in n) == p.requires_grad for n, p in policy.named_parameters())


def test_only_the_adapter_is_trained_and_all_of_it(load, base):
    policy = load()
    fresh, before = chunk(policy), {n: p.clone() for n, p in policy.named_parameters()}
    torch.testing.assert_close(fresh, chunk(SmolVLAPolicy.from_pretrained(base)))  # fresh adapters change nothing
    train_a_little(policy)
    changed = {n for n, p in policy.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {n for n in before if "lora_" in n}
    assert (chunk(policy) - fresh).abs().max() > 1e-4


def test_an_adapter_is_saved_alone_and_loaded_onto_its_base(load, base, tmp_path):
    policy = load()
    train_a_little(policy)
    policy.save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert "base_model.model.model.state_proj.lora_A.weight" in stored and len(stored) == 26
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (settings["peft_type"], settings["r"]) == ("LORA", 4)
    assert settings["base_model_name_or_path"] == str(base)
    loaded = SmolVLAPolicy.from_pretrained(tmp_path / "adapter")
    assert loaded.config.use_peft and torch.equal(chunk(loaded), chunk(policy))
    assert any(p.requires_grad for p in loaded.parameters())
    train_a_little(loaded)  # it can be trained further
    loaded.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again" / "adapter_model.safetensors").keys() == stored.keys()


def test_peft_itself_reads_the_files(load, base, tmp_path):
    import peft

    policy = load()
    train_a_little(policy)
    policy.save_pretrained(tmp_path / "adapter")
    wrapped = peft.PeftModel.from_pretrained(SmolVLAPolicy.from_pretrained(base), str(tmp_path / "adapter"))
    torch.testing.assert_close(chunk(wrapped.base_model.model), chunk(policy))


def test_merging_gives_an_ordinary_policy(load, tmp_path):
    policy = load()
    train_a_little(policy)
    expected = chunk(policy)
    policy.save_pretrained(tmp_path / "adapter")
    export_merged(tmp_path / "adapter", tmp_path / "merged")
    merged = SmolVLAPolicy.from_pretrained(tmp_path / "merged", strict=True)
    assert not merged.config.use_peft
    torch.testing.assert_close(chunk(merged), expected, atol=1e-5, rtol=0)
    merge_adapter(policy)
    assert list(policy.state_dict()) == list(merged.state_dict())
    with pytest.raises(ValueError, match="no adapter"):
        export_merged(tmp_path / "merged", tmp_path / "again")


def test_layers_may_be_trained_whole(load, tmp_path):
    policy = load(target_modules='["action_in_proj"]', full_training_modules=["action_out_proj"])
    train_a_little(policy)
    trained = {n for n, p in policy.named_parameters() if p.requires_grad}
    assert len(trained) == 4 and sum("action_out_proj" in n for n in trained) == 2
    policy.save_pretrained(tmp_path / "adapter")
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert "base_model.model.model.action_out_proj.weight" in stored and len(stored) == 4
    assert torch.equal(chunk(SmolVLAPolicy.from_pretrained(tmp_path / "adapter")), chunk(policy))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_modules": "nothing"}, "--peft.target_modules=nothing"),
        ({"method_type": "magic"}, "--peft.method_type=magic: expected one of .*LORA"),
        ({"method_type": "LOHA", "init_type": "gaussian"}, "--peft.init_type=gaussian has no meaning"),
        ({"target_modules": r".*text_model.*q_proj"}, "runs without gradients.*--policy.train_expert_only=false"),
    ],
)
def test_settings_that_do_not_fit_are_refused(load, settings, message):
    with pytest.raises(ValueError, match=message):
        load(**settings)


def test_from_zero_there_is_nothing_to_adapt():
    with pytest.raises(ValueError, match="--policy.path"):
        add_adapter(tiny_policy(), PeftConfig())


def test_an_adapted_policy_is_not_adapted_again(load):
    with pytest.raises(ValueError, match="has an adapter already"):
        add_adapter(load(), PeftConfig())


def test_a_base_that_was_moved_is_named(load, base, tmp_path):
    load().save_pretrained(tmp_path / "adapter")
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="belongs to the policy .*base_model_name_or_path"):
        SmolVLAPolicy.from_pretrained(tmp_path / "adapter")


def test_a_warning_tells_of_a_base_with_random_parts(load, caplog):
    with caplog.at_level(logging.WARNING):
        load()
    assert "load_vlm_weights=false" in caplog.text
