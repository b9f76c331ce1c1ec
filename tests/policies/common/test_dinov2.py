"""DINOv2: its numbers, its names, and where its weights come from."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file

from lerobot.common.policies.common.dinov2 import DINOv2, DINOv2Config
from lerobot.common.policies.common.dinov2_weights import (
    canonical_name,
    config_from_json,
    config_from_state,
    find_weights,
    fingerprint,
    load_dinov2_weights,
    published_config,
    resolve_config,
    transformers_names,
)

TINY = DINOv2Config(hidden_size=64, num_hidden_layers=2, num_attention_heads=1, image_size=70)
KINDS = {"plain": {}, "registers": {"num_register_tokens": 4}, "swiglu": {"use_swiglu_ffn": True}}


STEM = {"stem_layers": 2, "stem_width": 4, "patch_size": 16, "image_size": 80}


def net_of(**changes) -> DINOv2:
    torch.manual_seed(0)
    net = DINOv2(dataclasses.replace(TINY, **changes))
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=0.2)
    return net


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def net(request) -> DINOv2:
    return net_of(**request.param)


def original_names(state: dict) -> dict:
    """The same tensors as the original release would name them, blocks in chunks."""
    renamed, qkv = {}, {}
    for key, value in state.items():
        key = key.removeprefix("embeddings.").replace("position_embeddings", "pos_embed")
        key = key.replace("patch_embeddings.projection", "patch_embed.proj").replace("layernorm.", "norm.")
        key = key.replace("encoder.layer.", "blocks.0.").replace("attention.output.dense", "attn.proj")
        key = key.replace("layer_scale", "ls").replace("lambda1", "gamma")
        key = key.replace("weights_in", "w12").replace("weights_out", "w3")
        head, part, tail = key.partition(".attention.attention.")
        if part:
            which, _, kind = tail.partition(".")
            qkv.setdefault(f"{head}.attn.qkv.{kind}", {})[which] = value
        else:
            renamed[key] = value
    return renamed | {k: torch.cat([v["query"], v["key"], v["value"]]) for k, v in qkv.items()}


# Numbers


@pytest.mark.parametrize("size", [(70, 70), (56, 84), (98, 42)])
def test_tokens_equal_those_of_transformers(net, size):
    transformers = pytest.importorskip("transformers")
    kind = "Dinov2WithRegisters" if net.config.num_register_tokens else "Dinov2"
    sizes = {k: v for k, v in vars(net.config).items() if v or k != "num_register_tokens"}
    theirs = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes)).eval()
    assert list(theirs.state_dict()) == list(net.state_dict())
    theirs.load_state_dict(net.state_dict())
    pictures = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = theirs(pictures, output_hidden_states=True)
        averaged = torch.stack([theirs.layernorm(h) for h in expected.hidden_states[-2:]]).mean(0)
        torch.testing.assert_close(net(pictures), expected.last_hidden_state, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(net(pictures, last_layers=2), averaged, atol=1e-5, rtol=1e-5)


def test_sides_that_are_no_multiple_of_the_patch_are_refused(net):
    with pytest.raises(ValueError, match="480x640.*14x14"):
        net(torch.zeros(1, 3, 480, 640))


def test_interpolated_positions_follow_the_weights_and_are_not_stored(net):
    net.freeze()
    before = net.embeddings.positions(2, 3)
    assert net.embeddings.positions(2, 3) is before
    net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()})
    torch.testing.assert_close(net.embeddings.positions(2, 3), before + 1)
    assert not any("table" in k for k in net.state_dict())


def test_frozen_parts_have_no_graph():
    net, pictures = net_of(), torch.randn(1, 3, 28, 28)
    net.freeze()
    assert not net(pictures).requires_grad and net.is_frozen
    net.freeze(unfrozen_layers=1)
    net(pictures).sum().backward()
    learned = {n.rpartition(".")[0].rpartition(".")[0] for n, p in net.named_parameters() if p.grad is not None}
    assert all("encoder.layer.1" in name or not name for name in learned) and net.layernorm.weight.grad is not None


def test_stem_looks_at_the_picture_before_it_is_cut_into_patches():
    net = net_of(**STEM).eval()
    picture = torch.rand(1, 3, 80, 80)
    with torch.no_grad():
        x = net.embeddings(picture)
        stem = net.embeddings.stem(picture)
    assert stem.shape == (1, 8, 10, 10) and x.shape == (1, 26, 64)
    weight = net.embeddings.patch_embeddings.projection.weight
    assert weight.shape == (64, 8, 2, 2)
    first = torch.einsum("cyx,dcyx->d", stem[0, :, :2, :2], weight) + net.embeddings.patch_embeddings.projection.bias
    torch.testing.assert_close(x[0, 1], first + net.embeddings.position_embeddings[0, 1], atol=1e-5, rtol=1e-5)
    net.freeze()
    assert not net(picture).requires_grad
    assert config_from_state(net.state_dict()) == net.config


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"stem_layers": 2}, "stem_layers=2 with patch_size=14"),
        ({"stem_layers": 5, "patch_size": 64, "image_size": 64}, "stem_layers=5.*0 to 4"),
        ({"num_attention_heads": 3}, "hidden_size=64 does not divide into num_attention_heads=3"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0, expected at least 1"),
        ({"image_size": 10}, "image_size=10 is smaller than patch_size=14"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(changes, words):
    with pytest.raises(ValueError, match=f"backbone_config: .*{words}"):
        dataclasses.replace(TINY, **changes)


# Names


@pytest.mark.parametrize(
    "name, hub_id, count, tensors",
    [
        ("dinov2-small", "facebook/dinov2-small", 22_056_576, 223),
        ("dinov2_vits14_reg", "facebook/dinov2-with-registers-small", 22_058_112, 224),
        ("dinov2_vitb14", "facebook/dinov2-base", 86_580_480, 223),
        ("facebook/dinov2-with-registers-large", "facebook/dinov2-with-registers-large", 304_372_736, 440),
        ("dinov2_vitg14", "facebook/dinov2-giant", 1_136_480_768, 727),
    ],
)
def test_published_nets_by_every_name(name, hub_id, count, tensors):
    assert canonical_name(name) == hub_id
    with torch.device("meta"):
        net = DINOv2(published_config(name))
    assert (sum(p.numel() for p in net.parameters()), len(net.state_dict())) == (count, tensors)


def test_other_names_are_not_published():
    assert canonical_name("facebook/dinov3-small") is None and published_config("resnet18") is None


@pytest.mark.parametrize("wrap", ["", "model.", "backbone.", "dinov2.", "body.", "model.backbone."])
def test_original_and_wrapped_names_are_understood(net, wrap):
    state = net.state_dict()
    for names in (state, original_names(state)):
        wrapped = {wrap + k: v for k, v in names.items()} | {"image_mean": torch.zeros(3), "std": torch.zeros(3)}
        found = transformers_names(wrapped)
        assert set(found) == set(state) and all(torch.equal(v, state[k]) for k, v in found.items())


def test_sizes_are_read_off_weights_and_configuration(net):
    assert config_from_state(net.state_dict()) == net.config
    assert config_from_json({**vars(net.config), "hidden_act": "gelu"}) == net.config


# Weights


@pytest.mark.parametrize("original", [False, True])
def test_weights_come_from_a_folder(net, tmp_path, original):
    state = {k: v.contiguous() for k, v in net.state_dict().items()}
    if original:
        torch.save(original_names(state), tmp_path / "dinov2_vits14_pretrain.pth")
    else:
        save_file(state, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(vars(net.config)))
    config = resolve_config(str(tmp_path))
    assert config == net.config
    loaded = DINOv2(config)
    load_dinov2_weights(loaded, find_weights(str(tmp_path)))
    assert fingerprint(loaded.state_dict()) == fingerprint(state)


def test_weights_of_the_original_release_are_found_in_the_download_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "dinov2_vitb14_reg4_pretrain.pth"
    file.parent.mkdir(parents=True)
    file.touch()
    assert find_weights("facebook/dinov2-with-registers-base") == file


def test_weights_of_a_net_that_only_sounds_like_a_published_one_are_not_taken_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("lerobot.common.utils.hub.hub_is_reachable", lambda: False)
    file = tmp_path / "hub" / "checkpoints" / "dinov2_vits14_pretrain.pth"
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(FileNotFoundError, match="weights of 'someone/grasping-small'"):
        find_weights("someone/grasping-small")


def test_missing_weights_without_network_name_every_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("lerobot.common.utils.hub.hub_is_reachable", lambda: False)
    with pytest.raises(FileNotFoundError) as error:
        find_weights("dinov2-small")
    for way in ("facebook/dinov2-small", "vision_backbone", "pretrained_backbone_weights=null", "vits14_pretrain.pth"):
        assert way in str(error.value)


def test_weights_of_another_net_are_refused_with_both_shapes(tmp_path):
    save_file(net_of(hidden_size=128, num_attention_heads=2).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"hidden size 64.*file \(1, 1, 128\), net \(1, 1, 64\)"):
        load_dinov2_weights(net_of(), tmp_path / "other.safetensors")
