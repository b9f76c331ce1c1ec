"""Published ResNet weights: from a file, torch's download cache, or download.pytorch.org."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torch import Tensor

from lerobot.common.policies.common.resnet import ResNet

BASE_URL = "https://download.pytorch.org/models"
# File names as published with torchvision 0.13 and later; the hexadecimal part begins the file's SHA-256.
FILES = {
    "resnet18": {"IMAGENET1K_V1": "resnet18-f37072fd.pth"},
    "resnet34": {"IMAGENET1K_V1": "resnet34-b627a593.pth"},
    "resnet50": {"IMAGENET1K_V1": "resnet50-0676ba61.pth", "IMAGENET1K_V2": "resnet50-11ad3fa6.pth"},
    "resnet101": {"IMAGENET1K_V1": "resnet101-63fe2227.pth", "IMAGENET1K_V2": "resnet101-cd907fc2.pth"},
    "resnet152": {"IMAGENET1K_V1": "resnet152-394f9c45.pth", "IMAGENET1K_V2": "resnet152-f82ba261.pth"},
}
_PUBLISHED = re.compile(r"^(?:(ResNet\d+)_Weights\.)?(IMAGENET1K_V\d|DEFAULT)$")


def load_resnet_weights(backbone: ResNet, weights: str) -> None:
    """Copy pretrained weights into a backbone of the published width.

    weights: `ResNet18_Weights.IMAGENET1K_V1` and the like, or the path of a .pth or .safetensors file with
    torchvision's tensor names. Raises ValueError for weights of another net and FileNotFoundError if they can
    neither be found nor downloaded.
    """
    state = _read(weights, backbone.name)
    own = backbone.state_dict()
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    wrong = [k for k in own if k in state and state[k].shape != own[k].shape]
    if missing or wrong:
        raise ValueError(
            f"pretrained_backbone_weights='{weights}' does not fit {backbone.name} with {backbone.norm} norm "
            f"and width {backbone.width}: missing {missing[:3]}, of another shape {wrong[:3]}. Use the file "
            "of this net, or --policy.pretrained_backbone_weights=null for random weights."
        )
    backbone.load_state_dict({k: state[k] for k in own if k in state}, strict=False)


def _read(weights: str, name: str) -> dict[str, Tensor]:
    published = _PUBLISHED.match(weights)
    if published is None:
        return _read_file(Path(weights).expanduser())
    return _fetch(weights, _published_file(weights, name, *published.groups()))


def _published_file(weights: str, name: str, net: str | None, version: str) -> str:
    versions = FILES[name]
    version = max(versions) if version == "DEFAULT" else version
    if (net and net.lower() != name) or version not in versions:
        known = ", ".join(f"{name.replace('resnet', 'ResNet')}_Weights.{v}" for v in versions)
        raise ValueError(
            f"pretrained_backbone_weights='{weights}' does not belong to vision_backbone={name}; "
            f"published for it: {known}."
        )
    return versions[version]


def _read_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(
            f"pretrained_backbone_weights='{path}' is neither a file nor a published name such as "
            "ResNet18_Weights.IMAGENET1K_V1; with --policy.pretrained_backbone_weights=null they are random."
        )
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _fetch(weights: str, filename: str) -> dict[str, Tensor]:
    cached = Path(torch.hub.get_dir()) / "checkpoints" / filename
    if cached.is_file():
        return _read_file(cached)
    url = f"{BASE_URL}/{filename}"
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        reason = "HF_HUB_OFFLINE is set"
    else:
        try:
            return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
        except (URLError, OSError, RuntimeError) as e:  # RuntimeError: the hash of what came is another
            reason = str(e)
    raise FileNotFoundError(
        f"The backbone weights '{weights}' are not at {cached} and could not be had from {url} ({reason}). "
        "Put the file there (TORCH_HOME moves the folder), name a local copy with "
        "--policy.pretrained_backbone_weights=PATH, or start from random weights with "
        "--policy.pretrained_backbone_weights=null."
    )
