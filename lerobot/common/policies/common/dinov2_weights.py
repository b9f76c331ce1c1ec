"""Where a DINOv2 net comes from: its name, sizes and weights, of transformers or of the original release."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lerobot.common.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from lerobot.common.policies.common.dinov2 import HEAD_DIM, REGISTERS, DINOv2Config
from lerobot.common.utils.hub import find_file
from lerobot.common.utils.io_utils import read_json

SIZES = {
    "small": DINOv2Config(),
    "base": DINOv2Config(hidden_size=768, num_attention_heads=12),
    "large": DINOv2Config(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16),
    "giant": DINOv2Config(hidden_size=1536, num_hidden_layers=40, num_attention_heads=24, use_swiglu_ffn=True),
}
_HUB_NAME = re.compile(r"^(?:facebook/)?dinov2(-with-registers)?-(small|base|large|giant)$")
_ORIGINAL_NAME = re.compile(r"^dinov2_vit([sblg])14(_reg)?$")
WEIGHT_FILES = (SAFETENSORS_SINGLE_FILE, "pytorch_model.bin")

# Names of the original release -> of transformers.
_ORIGINAL = (
    (r"^(cls_token|mask_token|register_tokens)$", r"embeddings.\1"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^blocks\.(?:\d+\.)?(\d+)\.", r"encoder.layer.\1."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
    (r"\.mlp\.w12\.", ".mlp.weights_in."),
    (r"\.mlp\.w3\.", ".mlp.weights_out."),
    (r"^norm\.", "layernorm."),
)
# What wrappers put before the names, and what they keep beside the net.
_WRAPPER = re.compile(r"^(?:model|backbone|dinov2|dinov2_with_registers|body)\.")
_WRAPPER_BUFFERS = ("mean", "std", "image_mean", "image_std")


def canonical_name(name: str) -> str | None:
    """The hub id of a published net by any of its names (`dinov2-small`, `dinov2_vits14_reg`...), else None."""
    if match := _HUB_NAME.match(name):
        registers, size = match.groups()
    elif match := _ORIGINAL_NAME.match(name):
        size, registers = next(s for s in SIZES if s[0] == match[1]), match[2]
    else:
        return None
    return f"facebook/dinov2{'-with-registers' if registers else ''}-{size}"


def published_config(name: str) -> DINOv2Config | None:
    """The sizes of a published net, without any file; None for another name."""
    known = canonical_name(name)
    if known is None:
        return None
    registers = REGISTERS if "registers" in known else 0
    return dataclasses.replace(SIZES[known.rpartition("-")[2]], num_register_tokens=registers)


def resolve_config(name: str) -> DINOv2Config:
    """The sizes of the net `name`: a published one, a folder, or a hub id. Raises FileNotFoundError."""
    if not Path(name).expanduser().is_dir() and (config := published_config(name)) is not None:
        return config
    if path := find_file(name, CONFIG_NAME, required=False):
        return config_from_json(read_json(path))
    return config_from_state(read_weights(find_weights(name)))


def config_from_json(raw: dict[str, Any]) -> DINOv2Config:
    """The sizes in a transformers config.json; other entries are not needed."""
    known = {f.name for f in dataclasses.fields(DINOv2Config)}
    registers = {} if raw.get("num_register_tokens") is None else {"num_register_tokens": raw["num_register_tokens"]}
    return DINOv2Config(**{k: v for k, v in raw.items() if k in known and k != "num_register_tokens"}, **registers)


def config_from_shapes(shapes: dict[str, tuple[int, ...]]) -> DINOv2Config:
    """The sizes that tensors of a net (names of transformers) have; heads are 64 wide, as in all published nets."""
    width = shapes["embeddings.cls_token"][-1]
    stem = max((int(k.split(".")[2].removeprefix("layer")) for k in shapes if ".stem.layer" in k), default=0)
    stride = 2 ** (stem + 1) if stem else 1
    patch = shapes["embeddings.patch_embeddings.projection.weight"][-1] * stride
    swiglu = "encoder.layer.0.mlp.weights_in.weight" in shapes
    inner = shapes["encoder.layer.0.mlp.fc1.weight"][0] if not swiglu else None
    return DINOv2Config(
        hidden_size=width,
        num_hidden_layers=1 + max(int(k.split(".")[2]) for k in shapes if k.startswith("encoder.layer.")),
        num_attention_heads=max(1, width // HEAD_DIM),
        mlp_ratio=4 if swiglu else inner // width,
        patch_size=patch,
        image_size=math.isqrt(shapes["embeddings.position_embeddings"][1] - 1) * patch,
        num_register_tokens=shapes.get("embeddings.register_tokens", (1, 0, width))[1],
        use_swiglu_ffn=swiglu,
        stem_layers=stem,
        stem_width=shapes.get("embeddings.stem.conv1.weight", (DINOv2Config.stem_width,))[0],
    )


def config_from_state(state: dict[str, Tensor]) -> DINOv2Config:
    """The sizes that a state dict has."""
    return config_from_shapes({k: tuple(v.shape) for k, v in state.items()})


def find_weights(name: str) -> Path:
    """The weights file of a net: in a folder (its only one), in torch's download cache, in the hub's cache or on it.

    Raises FileNotFoundError naming the places.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        files = [folder / f for f in WEIGHT_FILES if (folder / f).is_file()]
        files += sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.pth"))
        if not files:
            raise FileNotFoundError(f"--policy.vision_backbone='{name}': no {', '.join(WEIGHT_FILES)} or *.pth there.")
        return files[0]
    published = canonical_name(name)
    original = _original_file(published) if published else None
    if original and original.is_file():
        return original
    for filename in WEIGHT_FILES:
        if path := find_file(published or name, filename, required=False):
            return path
    raise FileNotFoundError(
        f"The weights of '{published or name}' are neither in the cache (HF_HOME) nor could they be fetched "
        f"(HF_ENDPOINT names a mirror). Set --policy.vision_backbone to a folder with its {SAFETENSORS_SINGLE_FILE}, "
        "--policy.pretrained_backbone_weights to a weights file"
        + (f" (of the original release: {original.name}, also found at {original})" if original else "")
        + ", or --policy.pretrained_backbone_weights=null for random ones."
    )


def _original_file(hub_id: str) -> Path:
    """Where torch keeps a published net as it was released first."""
    size = hub_id.rpartition("-")[2]
    registers = "_reg4" if "registers" in hub_id else ""
    return Path(torch.hub.get_dir()) / "checkpoints" / f"dinov2_vit{size[:1]}14{registers}_pretrain.pth"


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """A weights file (.safetensors, else one of torch) with the names of transformers. Raises FileNotFoundError."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"--policy.pretrained_backbone_weights='{path}' is no file; expected 'auto', a weights file or null."
        )
    if path.suffix == ".safetensors":
        return transformers_names(load_file(path))
    return transformers_names(torch.load(path, map_location="cpu", weights_only=True))


def transformers_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names of transformers, whatever wrapper or release they come from; qkv is split."""
    renamed = {}
    for key, value in state.items():
        name = transformers_name(key)
        if name in _WRAPPER_BUFFERS:
            continue
        if ".attn.qkv." in name:
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[name.replace(".attn.qkv.", f".attention.attention.{part}.")] = piece.clone()
        else:
            renamed[name] = value
    return renamed


def transformers_name(key: str) -> str:
    """One tensor's name; qkv keeps its own, since it is three tensors there."""
    while _WRAPPER.match(key):
        key = _WRAPPER.sub("", key)
    for pattern, new in _ORIGINAL:
        key = re.sub(pattern, new, key)
    return key


def load_dinov2_weights(backbone: nn.Module, path: str | Path) -> None:
    """Copy a weights file into a net. Raises ValueError naming the tensors that do not fit."""
    state, own = read_weights(path), backbone.state_dict()
    state = {k: v.squeeze(1) if k.endswith("mask_token") and v.dim() == 3 else v for k, v in state.items()}
    missing = [k for k in own if k not in state and not k.endswith("mask_token")]
    wrong = [
        f"{k}: file {tuple(v.shape)}, net {tuple(own[k].shape)}"
        for k, v in state.items()
        if k in own and v.shape != own[k].shape
    ]
    unknown = [k for k in state if k not in own]
    if missing or wrong or unknown:
        raise ValueError(
            f"'{path}' does not fit the backbone (hidden size {backbone.config.hidden_size}, "
            f"{backbone.config.num_hidden_layers} layers): missing {missing[:3]}, of another shape {wrong[:3]}, "
            f"unknown {unknown[:3]}. Set --policy.vision_backbone to the net of this file."
        )
    backbone.load_state_dict(state, strict=False)


def fingerprint(state: dict[str, Tensor]) -> str:
    """SHA-256 over names and bytes of tensors, in the order of the names."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
