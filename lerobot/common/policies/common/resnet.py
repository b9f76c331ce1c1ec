"""ResNet feature extractors (He et al. 2015) with torchvision's tensor names, without torchvision."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

NORMS = ("frozen", "batch", "group")
MAX_LAYERS = 4


def fast_layout(pictures: Tensor, width: int) -> Tensor:
    """Pictures (B, C, H, W) in the memory layout in which convolutions of `width` channels are fastest.

    Channels last where the width is a multiple of 16. Narrower networks gain nothing, and with an odd batch and two
    threads the backward pass of torch 2.13 writes beyond its memory there (segmentation fault at 4 and 8 channels).
    """
    return pictures.contiguous(memory_format=torch.channels_last) if width % 16 == 0 else pictures.contiguous()


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics and affine map: (x - mean) / sqrt(var + eps) * weight + bias."""

    eps = 1e-5

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        scale, shift = (v.view(-1, 1, 1).to(x.dtype) for v in (scale, shift))
        return torch.addcmul(shift, x, scale)  # one pass over the map

    def _load_from_state_dict(self, state_dict, prefix, *args):
        state_dict.pop(f"{prefix}num_batches_tracked", None)  # files of trainable batch norms have it
        super()._load_from_state_dict(state_dict, prefix, *args)


def make_norm(kind: str, channels: int) -> nn.Module:
    """One of NORMS over `channels`; group norm has 16 channels per group, as in Diffusion Policy."""
    if kind == "frozen":
        return FrozenBatchNorm2d(channels)
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 16)), channels)


def _conv(inside: int, out: int, size: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (size // 2)
    return nn.Conv2d(inside, out, size, stride, padding, dilation=dilation, bias=False)


class _Block(nn.Module):
    """Residual block; subclasses register `downsample` last, which is torchvision's order."""

    expansion: int

    def _add_shortcut(self, inside: int, out: int, stride: int, norm: str) -> None:
        self.downsample = None
        if stride != 1 or inside != out:
            self.downsample = nn.Sequential(_conv(inside, out, 1, stride), make_norm(norm, out))

    def _shortcut(self, x: Tensor) -> Tensor:
        return x if self.downsample is None else self.downsample(x)


class BasicBlock(_Block):
    """Two 3x3 convolutions; (B, inside, H, W) -> (B, planes, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, inside: int, planes: int, stride: int, dilation: int, norm: str):
        super().__init__()
        self.conv1, self.bn1 = _conv(inside, planes, 3, stride), make_norm(norm, planes)
        self.conv2, self.bn2 = _conv(planes, planes, 3), make_norm(norm, planes)
        self._add_shortcut(inside, planes, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu_()
        y = self.bn2(self.conv2(y))
        return y.add_(self._shortcut(x)).relu_()


class Bottleneck(_Block):
    """1x1, 3x3 with stride and dilation, 1x1; (B, inside, H, W) -> (B, 4 planes, H/stride, W/stride)."""

    expansion = 4

    def __init__(self, inside: int, planes: int, stride: int, dilation: int, norm: str):
        super().__init__()
        out = planes * self.expansion
        self.conv1, self.bn1 = _conv(inside, planes, 1), make_norm(norm, planes)
        self.conv2, self.bn2 = _conv(planes, planes, 3, stride, dilation), make_norm(norm, planes)
        self.conv3, self.bn3 = _conv(planes, out, 1), make_norm(norm, out)
        self._add_shortcut(inside, out, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu_()
        y = self.bn2(self.conv2(y)).relu_()
        y = self.bn3(self.conv3(y))
        return y.add_(self._shortcut(x)).relu_()


ARCHITECTURES: dict[str, tuple[type[_Block], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """Picture (B, 3, H, W) to the map of its last layer (B, out_channels, H', W'); H' = H/32 for four.

    norm: one of NORMS. width: planes of layer1, doubled in each following layer (64 is the published net).
    layers: how many of layer1..4 are kept. dilate: layer4 keeps its resolution and dilates its later 3x3
    convolutions instead (bottleneck nets only, else NotImplementedError). Raises ValueError for another name.
    """

    def __init__(
        self, name: str, norm: str = "frozen", width: int = 64, layers: int = MAX_LAYERS, dilate: bool = False
    ):
        super().__init__()
        if name not in ARCHITECTURES:
            raise ValueError(f"Unknown backbone '{name}': expected one of {', '.join(ARCHITECTURES)}.")
        block, depths = ARCHITECTURES[name]
        if dilate and block is BasicBlock:
            raise NotImplementedError(
                f"{name} is made of basic blocks, which cannot be dilated: set "
                "replace_final_stride_with_dilation=false or vision_backbone=resnet50."
            )
        self.name, self.norm, self.width = name, norm, width
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), make_norm(norm, width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = width
        for i in range(layers):
            planes = width * 2**i
            dilated = dilate and i == MAX_LAYERS - 1
            layer = _make_layer(block, channels, planes, depths[i], 1 if i == 0 else 2, dilated, norm)
            self.add_module(f"layer{i + 1}", layer)
            channels = planes * block.expansion
        self.out_channels = channels
        self._initialize(channels)

    def _initialize(self, channels: int) -> None:
        nn.Linear(channels, 1000)  # the classifier that the original builds: a seed then gives the same weights
        self.init_weights()

    def init_weights(self) -> None:
        """Draw fresh weights: convolutions by He et al., norms at one and zero."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.GroupNorm | nn.BatchNorm2d):
                module.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name, layer in self.named_children():
            if name.startswith("layer"):
                x = layer(x)
        return x


def _make_layer(
    block: type[_Block], inside: int, planes: int, depth: int, stride: int, dilate: bool, norm: str
) -> nn.Sequential:
    dilation = stride if dilate else 1
    blocks = [block(inside, planes, 1 if dilate else stride, 1, norm)]
    out = planes * block.expansion
    blocks += [block(out, planes, 1, dilation, norm) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)
