"""What the vision fields of Diffusion and VQ-BeT may hold, checked in one place."""

from __future__ import annotations

from lerobot.common.policies.common.resnet import MAX_LAYERS

PUBLISHED_WIDTH = 64


def check_backbone(config) -> None:
    """Raise ValueError unless the backbone's name, weights, norm and size go together."""
    if not config.vision_backbone.startswith("resnet"):
        raise ValueError(f"vision_backbone='{config.vision_backbone}': expected a ResNet, for example resnet18.")
    if not 1 <= config.backbone_layers <= MAX_LAYERS:
        raise ValueError(f"backbone_layers={config.backbone_layers}: expected 1 to {MAX_LAYERS}.")


def check_weights(config) -> None:
    """Raise ValueError for pretrained weights in a net that they do not fit; asked when the net is built."""
    weights = config.pretrained_backbone_weights
    if weights and config.use_group_norm:
        raise ValueError(
            f"pretrained_backbone_weights='{weights}' were trained with batch norm: set --policy.use_group_norm=false, "
            "or --policy.pretrained_backbone_weights=null for random weights."
        )
    if weights and config.backbone_width != PUBLISHED_WIDTH:
        raise ValueError(
            f"pretrained_backbone_weights='{weights}' does not fit backbone_width={config.backbone_width}: set "
            "--policy.pretrained_backbone_weights=null."
        )


def takes_one_size(config) -> bool:
    """Whether pictures have to have the size that the network was built for: neither resize nor crop makes it."""
    return config.crop_shape is None and getattr(config, "resize_shape", None) is None


def check_pictures(config) -> None:
    """Raise ValueError for pictures that are not (3, H, W), smaller than the crop, or of unequal size."""
    for key, feature in config.image_features.items():
        if len(feature.shape) != 3 or feature.shape[0] != 3:
            raise ValueError(f"'{key}' has shape {tuple(feature.shape)}; '{config.type}' takes pictures (3, H, W).")
    sizes = {key: shape[1:] for key, shape in config.image_shapes.items()}
    resized = getattr(config, "resize_shape", None)
    for key, (height, width) in sizes.items():
        h, w = config.crop_shape or (1, 1)
        if min(h, w) < 1:
            raise ValueError(f"crop_shape=({h}, {w}): expected (height, width) from 1 on, or null for no crop.")
        if not resized and (h > height or w > width):
            raise ValueError(
                f"crop_shape=({h}, {w}) is larger than '{key}' with {height}x{width} pixels: lower "
                "--policy.crop_shape, or set it to null for no crop."
            )
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"'{config.type}' takes cameras of one size, found {sizes}: set --policy.image_size=[height,width]."
        )
