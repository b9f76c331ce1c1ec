"""Layout and precision of the weights, and where they come from."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lerobot.common.policies.common.llama import init_normal
from lerobot.common.policies.factory import make_pre_post_processors
from lerobot.common.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.common.policies.smolvla.modeling_smolvla import SmolVLAPolicy, VLAFlowMatching
from lerobot.common.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors
from lerobot.common.policies.smolvla.smolvlm import SmolVLM, SmolVLMConfig
from lerobot.common.policies.smolvla.vlm_source import SIZES, VLMSource
from lerobot.common.processor import PolicyProcessorPipeline
from lerobot.common.training.checkpoint import copy_weights, write_weights
from lerobot.configs.policies import PreTrainedConfig

from .conftest import tiny_batch, tiny_config, tiny_policy

FULL_SIZE = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"


def describe(**changes) -> VLAFlowMatching:
    """The model of a configuration without memory for its weights."""
    config = SmolVLAConfig(device="cpu", **changes)
    with torch.device("meta"):
        return VLAFlowMatching(config, SmolVLMConfig.from_dict(VLMSource(config.vlm_model_name).config()))


def count(module, trainable=False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def file_size(state: dict[str, torch.Tensor]) -> int:
    """Bytes of the safetensors file: 8, a JSON header padded to 8, the tensors (wider dtypes first, then by
    name)."""
    names = {torch.float32: "F32", torch.bfloat16: "BF16"}
    header, at = {}, 0
    for name, t in sorted(state.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        size = t.numel() * t.dtype.itemsize
        header[name] = {"dtype": names[t.dtype], "shape": list(t.shape), "data_offsets": [at, at + size]}
        at += size
    text = len(json.dumps(header, separators=(",", ":")))
    return 8 + -(-text // 8) * 8 + at


def test_full_size_has_the_parameters_of_smolvla_base():
    model = describe(load_vlm_weights=True)
    parts = model.vlm_with_expert
    text = parts.vlm.model.text_model
    assert count(model) == 450_046_176 and count(model, trainable=True) == 99_880_992
    assert count(parts.vlm.model.vision_model) == 86_433_024
    assert count(parts.vlm.model.connector) == 11_796_480
    assert count(text.embed_tokens) == count(parts.vlm.lm_head) == 47_308_800
    assert (count(text.layers), count(text.norm)) == (157_317_120, 960)
    assert (count(parts.vlm), count(parts.lm_expert)) == (350_165_184, 98_245_840)
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    dtypes = [t.dtype for t in state.values()]
    assert (dtypes.count(torch.bfloat16), dtypes.count(torch.float32)) == (474, 26)
    assert file_size(state) == 906_712_520
    expert = {k.split("lm_expert.")[1]: tuple(v.shape) for k, v in state.items() if "lm_expert" in k}
    assert expert["layers.0.self_attn.k_proj.weight"] == (320, 720)
    assert expert["layers.1.self_attn.v_proj.weight"] == (320, 320)
    assert expert["layers.15.mlp.down_proj.weight"] == (720, 2048)


@pytest.mark.parametrize(
    ("flags", "trained"),
    [
        ({"train_state_proj": False}, 99_849_312),
        ({"freeze_vision_encoder": False}, 99_880_992),
        ({"train_expert_only": False}, 316_304_352),
        ({"train_expert_only": False, "freeze_vision_encoder": False}, 402_737_376),
    ],
)
def test_trainable_parameters_of_the_full_size(flags, trained):
    assert count(describe(**flags), trainable=True) == trained


def test_precision_of_randomly_built_parts():
    parts = describe().vlm_with_expert
    attention = parts.lm_expert.layers[1].self_attn
    for module, dtype in [
        (parts.vlm.model.vision_model, torch.float32),
        (parts.vlm.model.connector, torch.float32),
        (parts.vlm.lm_head, torch.float32),
        (parts.vlm.model.text_model, torch.bfloat16),
        (parts.lm_expert.layers[0], torch.bfloat16),
        (attention.k_proj, torch.float32),
        (attention.v_proj, torch.float32),
        (attention.q_proj, torch.bfloat16),
    ]:
        assert {p.dtype for p in module.parameters()} == {dtype}


@pytest.mark.parametrize(
    ("name", "layers", "expert", "cross"),
    [("SmolVLM2-256M-Video-Instruct", 30, 432, 192), ("SmolVLM2-2.2B-Instruct", 24, 1536, 2048)],
)
def test_other_sizes(name, layers, expert, cross):
    model = describe(vlm_model_name=f"HuggingFaceTB/{name}", num_vlm_layers=0)
    parts = model.vlm_with_expert
    assert len(parts.vlm.model.text_model.layers) == layers
    assert parts.expert_config.hidden_size == expert
    assert parts.lm_expert.layers[1].self_attn.k_proj.weight.shape == (cross, cross)


def test_the_pretrained_language_model_has_its_published_size():
    with torch.device("meta"):
        vlm = SmolVLM(SmolVLMConfig.from_dict(VLMSource(FULL_SIZE).config()))
    assert count(vlm) == 507_482_304


@pytest.fixture
def vlm_folder(tmp_path):
    """A local vision-language model with tokenizer and (random) weights, six text layers, in float32."""
    folder = tmp_path / "tiny_vlm"
    shutil.copytree(SIZES / "smolvla_mini", folder)
    raw = VLMSource("smolvla_mini", overrides=tiny_config().vlm_config).config()
    raw["text_config"]["num_hidden_layers"] = 6
    (folder / "config.json").write_text(json.dumps(raw))
    torch.manual_seed(0)
    vlm = SmolVLM(SmolVLMConfig.from_dict(raw))
    init_normal(vlm, 0.05)
    save_file(vlm.state_dict(), folder / "model.safetensors")
    return folder


def local_config(folder, **changes) -> SmolVLAConfig:
    return tiny_config(vlm_model_name=str(folder), vlm_config={}, **changes)


def test_pretrained_weights_come_from_a_folder_in_bfloat16(vlm_folder):
    policy = SmolVLAPolicy(local_config(vlm_folder, load_vlm_weights=True))
    stored = load_file(vlm_folder / "model.safetensors")
    for name, value in policy.model.vlm_with_expert.vlm.state_dict().items():
        assert torch.equal(value, stored[name].bfloat16())
    assert "model.text_model.layers.4.mlp.up_proj.weight" in stored  # more layers than the policy keeps


def test_pretrained_weights_come_in_several_files(vlm_folder):
    stored = load_file(vlm_folder / "model.safetensors")
    (vlm_folder / "model.safetensors").unlink()
    names = sorted(stored)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in parts.items():
        save_file({k: stored[k] for k in keys}, vlm_folder / file)
    index = {"weight_map": {k: file for file, keys in parts.items() for k in keys}}
    (vlm_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    policy = SmolVLAPolicy(local_config(vlm_folder, load_vlm_weights=True))
    weight = policy.model.vlm_with_expert.vlm.lm_head.weight
    assert torch.equal(weight, stored["lm_head.weight"].bfloat16())


def test_missing_pretrained_weights_stop_and_name_the_ways_out(vlm_folder):
    stored = load_file(vlm_folder / "model.safetensors")
    del stored["model.connector.modality_projection.proj.weight"]
    save_file(stored, vlm_folder / "model.safetensors")
    with pytest.raises(ValueError, match="lack 1 tensors.*modality_projection.*--policy.path"):
        SmolVLAPolicy(local_config(vlm_folder, load_vlm_weights=True))
    (vlm_folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="--policy.path.*--preset=smolvla_mini.*train_expert_only=false"):
        SmolVLAPolicy(local_config(vlm_folder, load_vlm_weights=True))


def test_an_unknown_language_model_names_what_ships(tmp_path):
    with pytest.raises(FileNotFoundError, match="smolvla_mini"):
        SmolVLAPolicy(tiny_config(vlm_model_name=str(tmp_path / "nowhere")))


def test_special_tokens_are_looked_up(vlm_folder):
    tokens = json.loads((vlm_folder / "tokenizer.json").read_text())["added_tokens"]
    ids = {t["content"]: t["id"] for t in tokens}
    expected = (ids["<fake_token_around_image>"], ids["<global-img>"])
    assert VLMSource(str(vlm_folder)).image_token_ids() == expected
    assert VLMSource(FULL_SIZE).image_token_ids() == (49189, 49152)
    (vlm_folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="<global-img>"):
        SmolVLAPolicy(local_config(vlm_folder, add_image_special_tokens=True))


def test_precision_along_the_way_of_pretrained_weights(vlm_folder):
    policy = SmolVLAPolicy(
        local_config(vlm_folder, load_vlm_weights=True, freeze_vision_encoder=True, train_expert_only=True)
    )
    parts, seen = policy.model.vlm_with_expert, {}

    def note(module, name):
        def hook(module, args, output):
            seen.setdefault(name, []).append((args[0].dtype, output.dtype))

        module.register_forward_hook(hook)

    prefix, expert = parts.vlm.model.text_model.layers, parts.lm_expert.layers
    note(parts.vlm.model.connector.modality_projection.proj, "connector")
    for name, layer in [
        ("prefix 0", prefix[0]),
        ("prefix 1", prefix[1]),
        ("expert 0", expert[0]),
        ("expert 1", expert[1]),
    ]:
        note(layer.input_layernorm, f"{name} norm")
        note(layer.self_attn.q_proj, f"{name} q")
        note(layer.self_attn.k_proj, f"{name} k")
        note(layer.self_attn.o_proj, f"{name} o")
    note(parts.lm_expert.norm, "final norm")
    note(policy.model.action_out_proj, "out")
    policy.forward(tiny_batch(policy.config))[0].backward()
    wide, half = torch.float32, torch.bfloat16
    expected = {"connector": (half, half), "final norm": (half, half), "out": (wide, wide)}
    for stream in ("prefix", "expert"):
        expected[f"{stream} 0 norm"] = (wide, wide)
        expected[f"{stream} 1 norm"] = (half, half)
        for name in ("0 q", "0 k", "0 o", "1 q", "1 k", "1 o"):
            expected[f"{stream} {name}"] = (half, half)
    expected["expert 1 k"] = (wide, wide)  # the projection of a cross layer
    assert {name: set(pairs) for name, pairs in seen.items()} == {n: {pair} for n, pair in expected.items()}


def test_picture_embeddings_are_scaled_in_their_own_precision():
    policy = tiny_policy()
    vlm, image = policy.model.vlm_with_expert.vlm, torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(policy.model.embed_images([image])[0], vlm.embed_images(image) * 32**0.5)
    vlm.bfloat16()
    rounded = torch.tensor(32**0.5).bfloat16()
    assert torch.equal(policy.model.embed_images([image])[0], vlm.embed_images(image) * rounded)


def test_a_checkpoint_runs_anywhere(vlm_folder, tmp_path, monkeypatch):
    config = local_config(vlm_folder, load_vlm_weights=True, add_image_special_tokens=True)
    policy = SmolVLAPolicy(config)
    batch, noise = tiny_batch(config), torch.randn(2, 5, 32)
    expected = policy.predict_action_chunk(batch, noise=noise)
    policy.save_pretrained(tmp_path / "checkpoint")
    shutil.rmtree(vlm_folder)
    moved = tmp_path / "elsewhere"
    shutil.move(tmp_path / "checkpoint", moved)
    monkeypatch.chdir(tmp_path)
    loaded = SmolVLAPolicy.from_pretrained("elsewhere")  # neither fetches nor needs the original model
    assert torch.equal(loaded.predict_action_chunk(batch, noise=noise), expected)
    loaded.save_pretrained(tmp_path / "again")
    names = {p.name for p in (moved / "tokenizer").iterdir()}
    assert names == {p.name for p in (tmp_path / "again" / "tokenizer").iterdir()}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= names


def test_a_hub_id_loads_from_the_offline_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    policy = tiny_policy()
    ones = {"mean": torch.ones(6), "std": torch.ones(6)}
    snapshot = tmp_path / "models--someone--tiny" / "snapshots" / ("0" * 40)
    pre, post = make_smolvla_pre_post_processors(policy.config, {"observation.state": ones, "action": ones})
    for part in (policy, pre, post):
        part.save_pretrained(snapshot)
    (tmp_path / "models--someone--tiny" / "refs").mkdir()
    (tmp_path / "models--someone--tiny" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config = PreTrainedConfig.from_pretrained("someone/tiny")
    loaded = SmolVLAPolicy.from_pretrained("someone/tiny", config=config)
    batch, noise = tiny_batch(policy.config), torch.randn(2, 5, 32)
    assert torch.equal(loaded.predict_action_chunk(batch, noise=noise), policy.predict_action_chunk(batch, noise=noise))
    again, _ = make_pre_post_processors(config, "someone/tiny")
    raw = {"observation.state": torch.zeros(6), "task": "Pick up the pen."}
    assert torch.equal(again(raw)["observation.language.tokens"], pre(raw)["observation.language.tokens"])
    with pytest.raises(FileNotFoundError, match="someone/else"):
        SmolVLAPolicy.from_pretrained("someone/else")


def test_a_hub_is_asked_for_the_checkpoints_own_tokenizer(tmp_path, monkeypatch):
    """A download brings single files, so those that no pipeline file names must be asked for."""
    from lerobot.common.processor import loading

    config = tiny_config()
    pre, _ = make_smolvla_pre_post_processors(config, {})
    pre.save_pretrained(tmp_path / "hub")
    SmolVLAPolicy(config).save_pretrained(tmp_path / "hub")

    def download(repository, filename, required=True, **_):
        source, target = tmp_path / "hub" / filename, tmp_path / "cache" / filename
        if not source.exists():
            return None
        target.parent.mkdir(parents=True, exist_ok=True)
        return shutil.copyfile(source, target)

    monkeypatch.setattr(loading, "find_file", download)
    loaded = PolicyProcessorPipeline.from_pretrained("someone/tiny", config_filename="policy_preprocessor.json")
    assert loaded.steps[3].input_tokenizer.get_vocab() == pre.steps[3].input_tokenizer.get_vocab()


def test_overrides_of_the_language_model_stand_in_its_saved_configuration(tmp_path):
    policy = tiny_policy()
    policy.save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "tokenizer" / "config.json").read_text())
    assert raw["text_config"]["hidden_size"] == 32 and raw["text_config"]["vocab_size"] == 576
    assert SmolVLAPolicy.from_pretrained(tmp_path).config.vlm_config == policy.config.vlm_config


def test_names_of_a_compiled_model_are_understood(tmp_path):
    policy = tiny_policy()
    policy.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file(
        {k.replace("model.", "model._orig_mod.", 1): v for k, v in state.items()},
        tmp_path / "model.safetensors",
    )
    loaded = SmolVLAPolicy.from_pretrained(tmp_path)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in policy.state_dict().items())


def test_missing_weights_are_refused_and_unknown_ones_named(tmp_path, caplog):
    policy = tiny_policy()
    policy.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file({**state, "model.stray": torch.zeros(1)}, tmp_path / "model.safetensors")
    SmolVLAPolicy.from_pretrained(tmp_path)
    assert "model.stray" in caplog.text
    with pytest.raises(ValueError, match="model.stray"):
        SmolVLAPolicy.from_pretrained(tmp_path, strict=True)
    del state["model.state_proj.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="lacks 1 .*model.state_proj.weight"):
        SmolVLAPolicy.from_pretrained(tmp_path)


def test_another_architecture_is_refused_by_shape(tmp_path):
    tiny_policy().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="another shape"):
        SmolVLAPolicy.from_pretrained(tmp_path, config=tiny_config(expert_width_multiplier=0.5))


@pytest.mark.slow
def test_the_file_on_disk_has_the_size_of_smolvla_base(tmp_path):
    config = SmolVLAConfig(
        device="cpu",
        load_vlm_weights=True,
        input_features=tiny_config(cameras=("camera1", "camera2", "camera3")).input_features,
        output_features=tiny_config().output_features,
    )
    policy = SmolVLAPolicy(config, checkpoint=tmp_path)  # as for loading: nothing is initialized or fetched
    policy.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size == 906_712_520
    write_weights(copy_weights(policy), tmp_path / "of_a_run.safetensors")
    assert (tmp_path / "of_a_run.safetensors").stat().st_size == 906_712_520


@pytest.mark.slow
def test_full_size_trains_a_step_samples_and_saves(tmp_path):
    config = SmolVLAConfig(
        device="cpu",
        input_features=tiny_config(size=(480, 640)).input_features,
        output_features=tiny_config().output_features,
    )
    policy = SmolVLAPolicy(config)
    policy.train()
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=1e-4)
    batch = tiny_batch(config, batch_size=1)
    before = policy.model.action_out_proj.weight.clone()
    loss, _ = policy.forward(batch)
    loss.backward()
    optimizer.step()
    assert loss.isfinite() and not torch.equal(policy.model.action_out_proj.weight, before)
    noise = torch.randn(1, 50, 32)
    chunk = policy.predict_action_chunk(batch, noise=noise)
    assert chunk.shape == (1, 50, 6) and chunk.isfinite().all()
    policy.save_pretrained(tmp_path)
    loaded = SmolVLAPolicy.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded.predict_action_chunk(batch, noise=noise), chunk)
