"""Pictures: from bytes to floats, cropping, resizing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from lerobot.common.constants import OBS_IMAGE
from lerobot.common.processor.registry import ProcessorStepRegistry
from lerobot.common.processor.steps import Features, ObservationProcessorStep
from lerobot.common.utils.images import pictures_as_float, resize_images
from lerobot.configs.types import PipelineFeatureType


def images_to_float(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with its uint8 pictures (keys `observation.image...`) as float32 in [0, 1].

    The one place where bytes become floats: call it on a training batch, after moving it to the device if it
    is a GPU (a quarter of the bytes to move).
    """
    return {key: _as_float(value) if _is_bytes(key, value) else value for key, value in batch.items()}


def _as_float(pictures: torch.Tensor) -> torch.Tensor:
    return pictures_as_float(pictures) if pictures.device.type == "cpu" else pictures.to(torch.float32).div_(255)


def _is_bytes(key: str, value: Any) -> bool:
    return key.startswith(OBS_IMAGE) and isinstance(value, torch.Tensor) and value.dtype is torch.uint8


@ProcessorStepRegistry.register("image_crop_resize_processor")
@dataclass
class ImageCropResizeProcessorStep(ObservationProcessorStep):
    """Crops and resizes every picture (..., C, H, W), float in [0, 1] or uint8, of the observation.

    `crop_params_dict` maps a name to (top, left, height, width); `resize_size` is (height, width). Pictures
    that have this size already are left alone. Applies to names that contain "image".
    """

    crop_params_dict: dict[str, tuple[int, int, int, int]] | None = None
    resize_size: tuple[int, int] | None = None

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        for name, value in observation.items():
            # A pad mask (image names with _is_pad, _padding_mask) has fewer axes than a picture.
            if "image" in name and isinstance(value, torch.Tensor) and value.ndim >= 3:
                observation[name] = self._resize(self._crop(name, value))
        return observation

    def _crop(self, name: str, image: torch.Tensor) -> torch.Tensor:
        if name not in (self.crop_params_dict or {}):
            return image
        top, left, height, width = self.crop_params_dict[name]
        if top + height > image.shape[-2] or left + width > image.shape[-1]:
            raise ValueError(
                f"Crop (top, left, height, width) = {(top, left, height, width)} does not fit into the "
                f"{image.shape[-2]}x{image.shape[-1]} pictures of '{name}': change crop_params_dict."
            )
        return image[..., top : top + height, left : left + width]

    def _resize(self, image: torch.Tensor) -> torch.Tensor:
        return image if self.resize_size is None else resize_images(image, tuple(self.resize_size))

    def get_config(self) -> dict[str, Any]:
        return {"crop_params_dict": self.crop_params_dict, "resize_size": self.resize_size}

    def transform_features(self, features: Features) -> Features:
        side = PipelineFeatureType.OBSERVATION
        changed = {
            name: replace(f, shape=(f.shape[0], *self._size_of(name, f.shape))) if "image" in name else f
            for name, f in features.get(side, {}).items()
        }
        return {**features, side: changed}

    def _size_of(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.resize_size is not None:
            return tuple(self.resize_size)
        return tuple((self.crop_params_dict or {}).get(name, shape)[-2:])
