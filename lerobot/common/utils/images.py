"""Resizing pictures, one rule for training and for the robot."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from lerobot.common.utils.memory import empty_batch

MOST = np.float32(255)  # of a byte
RESIZE_RULE = "antialiased bilinear on uint8"  # part of a frame store's fingerprint


def resize_images(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize (..., C, H, W) to (height, width) = `size`, not keeping the aspect ratio; same dtype and device.

    uint8 is resized with antialiased bilinear weights and rounded. Floats in [0, 1] become round(x * 255)
    first and are divided by 255 after, so that a picture resized when it was stored and one resized on the
    robot are equal bit for bit. Runs on the CPU, where uint8 pictures have a fast path (about 0.3 ms from
    480x640).
    """
    size = tuple(size)
    if tuple(images.shape[-2:]) == size:
        return images
    if images.dtype != torch.uint8:
        small = resize_images((images * 255).round_().clamp_(0, 255).to(torch.uint8), size)
        return small.to(images.dtype).div_(255)
    flat = images.reshape(-1, *images.shape[-3:]).cpu()
    # The vectorized kernel wants the channels of a pixel side by side; the numbers are the same without.
    flat = flat.contiguous(memory_format=torch.channels_last)
    small = F.interpolate(flat, size=size, mode="bilinear", antialias=True, align_corners=False)
    return small.contiguous().reshape(*images.shape[:-2], *size).to(images.device)


def pictures_as_float(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 (..., C, H, W) on the CPU -> float32 in [0, 1].

    One picture after the other, so that it is still in the processor's cache when it is divided, and by NumPy, which
    does it in one thread: two would wait for each other where a loader's workers take all cores.
    """
    result = empty_batch(pictures.shape, torch.float32)
    source, target = pictures.numpy(), result.numpy()
    if pictures.dim() < 4:
        source, target = source[None], target[None]
    for place in np.ndindex(source.shape[:-3]):
        np.copyto(target[place], source[place])
        np.divide(target[place], MOST, out=target[place])
    return result
