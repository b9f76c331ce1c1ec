"""From pictures to keypoints: crop, ResNet, spatial softmax (Levine et al. 2016), as Diffusion and VQ-BeT use them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot.common.policies.common.resnet import ResNet
from lerobot.common.policies.common.resnet_weights import load_resnet_weights
from lerobot.common.policies.utils import get_output_shape


class SpatialSoftmax(nn.Module):
    """The expected position of each of `num_kp` softmax maps, in [-1, 1].

    input_shape: (C, H, W) of the features. Without `num_kp` every channel is a map of its own.
    """

    def __init__(self, input_shape: tuple[int, int, int], num_kp: int | None = None):
        super().__init__()
        channels, height, width = input_shape
        self.nets = nn.Conv2d(channels, num_kp, kernel_size=1) if num_kp else None
        x, y = np.meshgrid(np.linspace(-1.0, 1.0, width), np.linspace(-1.0, 1.0, height))
        grid = torch.from_numpy(np.stack([x.ravel(), y.ravel()], axis=1)).float()
        self.register_buffer("pos_grid", grid)  # (H * W, 2): x, y, row by row

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K, 2)."""
        maps = features if self.nets is None else self.nets(features)
        return maps.flatten(2).softmax(dim=-1) @ self.pos_grid


class RgbEncoder(nn.Module):
    """Picture (B, 3, H, W) -> features (B, 2K): [resize,] crop, ResNet, keypoints, linear, ReLU.

    `config` has the vision fields of Diffusion and VQ-BeT. In training one random offset crops the whole batch,
    drawn on the CPU (top, then left); otherwise the centre is taken.
    """

    def __init__(self, config):
        super().__init__()
        self.resize = getattr(config, "resize_shape", None)
        self.crop_shape, self.crop_is_random = config.crop_shape, config.crop_is_random
        self.backbone = nn.Sequential(*_make_backbone(config).children())
        size = config.crop_shape or self.resize or next(iter(config.image_shapes.values()))[1:]
        map_shape = get_output_shape(self.backbone, (1, 3, *size))[1:]
        self.pool = SpatialSoftmax(map_shape, config.spatial_softmax_num_keypoints)
        self.feature_dim = 2 * config.spatial_softmax_num_keypoints
        self.out = nn.Linear(self.feature_dim, self.feature_dim)

    def forward(self, pictures: Tensor) -> Tensor:
        if self.resize:
            pictures = F.interpolate(pictures, tuple(self.resize), mode="bilinear", antialias=True)
        if self.crop_shape:
            pictures = crop(pictures, self.crop_shape, random=self.training and self.crop_is_random)
        features = self.backbone(pictures)
        return self.out(self.pool(features).flatten(1)).relu()


def _make_backbone(config) -> ResNet:
    backbone = ResNet(
        config.vision_backbone,
        norm="group" if config.use_group_norm else "batch",
        width=config.backbone_width,
        layers=config.backbone_layers,
    )
    if config.pretrained_backbone_weights:
        load_resnet_weights(backbone, config.pretrained_backbone_weights)
    return backbone


def crop(pictures: Tensor, size: tuple[int, int], random: bool) -> Tensor:
    """Cut (height, width) out of pictures (..., H, W): at one random place for all of them, or at the centre."""
    (height, width), (h, w) = pictures.shape[-2:], size
    if random and (height, width) != (h, w):
        top = torch.randint(0, height - h + 1, (1,)).item()
        left = torch.randint(0, width - w + 1, (1,)).item()
    else:
        top, left = round((height - h) / 2), round((width - w) / 2)  # halves to the even number
    return pictures[..., top : top + h, left : left + w]
