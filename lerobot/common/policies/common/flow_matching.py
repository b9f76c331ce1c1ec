"""What flow-matching policies share: random draws, the path, time embedding, masks, padding, sampling.

Time runs from 1 (noise) to 0 (actions): x_t = t * noise + (1 - t) * actions; velocity is noise - actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_noise(shape: tuple[int, ...], device: torch.device | str) -> Tensor:
    """Standard normal noise, float32, from torch's global generator."""
    return torch.normal(mean=0.0, std=1.0, size=shape, dtype=torch.float32, device=device)


def sample_time(
    count: int,
    device: torch.device | str,
    alpha: float = 1.5,
    beta: float = 1.0,
    scale: float = 0.999,
    offset: float = 0.001,
) -> Tensor:
    """Beta(alpha, beta) * scale + offset, float32 `(count,)`; always drawn on the CPU, then moved."""
    draws = torch.distributions.Beta(alpha, beta, validate_args=False).sample((count,))
    return (draws * scale + offset).to(device, torch.float32, non_blocking=True)  # the host need not wait for it


def noisy_actions(actions: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Point on the path `(B, T, D)` at `time` `(B,)` or `(B, T)`, and the velocity there, the regression target."""
    t = time[:, None, None] if time.ndim == 1 else time[..., None]
    return t * noise + (1 - t) * actions, noise - actions


def integrate(
    velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, num_steps: int, summed_times: bool = False
) -> Tensor:
    """Euler steps from noise `(B, T, D)` at time 1 to actions at time 0; `noise` is not changed.

    velocity: takes x `(B, T, D)` and time `(B,)`. Times are 1 - k / num_steps in double precision, rounded once;
    summed_times: a running sum of float32 steps, which drifts, as up to LeRobot 0.3.
    """
    x, dt = noise, -1.0 / num_steps
    running = torch.tensor(1.0)
    for k in range(num_steps):
        when = running.item() if summed_times else 1.0 + k * dt
        x = x + dt * velocity(x, torch.full(noise.shape[:1], when, dtype=torch.float32, device=noise.device))
        running += torch.tensor(dt)
    return x


def create_sinusoidal_pos_embedding(
    time: Tensor, dimension: int, min_period: float, max_period: float, device: torch.device | str | None = None
) -> Tensor:
    """Sine and cosine of `time` `(B,)` at periods spaced geometrically: `(B, dimension)` in double precision.

    On a device without float64 (mps) it is float32. device: where it is computed; by default where `time` is. Raises
    ValueError for an odd dimension or a time that is not 1-D.
    """
    if dimension % 2 != 0:
        raise ValueError(f"The width of the time embedding must be even, got {dimension}.")
    if time.ndim != 1:
        raise ValueError(f"The denoising time must have shape (batch,), got {tuple(time.shape)}.")
    time = time if device is None else time.to(device)
    dtype = torch.float32 if time.device.type == "mps" else torch.float64
    fraction = torch.linspace(0.0, 1.0, dimension // 2, dtype=dtype, device=time.device)
    period = min_period * (max_period / min_period) ** fraction
    angle = 2 * math.pi / period * time[:, None].to(dtype)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def make_att_2d_masks(pad_masks: Tensor, att_masks: Tensor) -> Tensor:
    """Who may attend whom, bool `(B, N, N)`: both real, and the key's block not later than the query's.

    pad_masks: bool `(B, N)`, true where a token is real. att_masks: `(B, N)` or `(1, N)`, nonzero where a
    block starts.
    """
    if pad_masks.ndim != 2 or att_masks.ndim != 2:
        raise ValueError(f"Masks must be 2-D, got {tuple(pad_masks.shape)} and {tuple(att_masks.shape)}.")
    block = att_masks.cumsum(dim=1)
    return (block[:, None, :] <= block[:, :, None]) & pad_masks[:, None, :] & pad_masks[:, :, None]


def attention_bias(mask: Tensor) -> Tensor:
    """Additive float32 form `(B, 1, Q, K)` of a bool mask `(B, Q, K)`, finite so that no row becomes NaN.

    Half of the lowest float32: kernels that scale by log2(e) stay finite, and a row without a key is uniform.
    """
    bias = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
    return bias.masked_fill_(~mask, torch.finfo(torch.float32).min / 2)[:, None]


def pad_vector(vector: Tensor, new_dim: int) -> Tensor:
    """Zero-pad the last axis on the right. Raises ValueError if it is wider than `new_dim`."""
    width = vector.shape[-1]
    if width > new_dim:
        raise ValueError(
            f"A vector of width {width} does not fit into {new_dim}: raise --policy.max_state_dim or "
            "--policy.max_action_dim."
        )
    return vector if width == new_dim else F.pad(vector, (0, new_dim - width))


def pad_tensor(tensor: Tensor, max_len: int, pad_value: float = 0) -> Tensor:
    """Pad axis 1 at its end up to `max_len`; longer tensors are returned as they are."""
    missing = max_len - tensor.shape[1]
    if missing <= 0:
        return tensor
    return F.pad(tensor, (0, 0) * (tensor.ndim - 2) + (0, missing), value=pad_value)


def resize_with_pad(images: Tensor, width: int, height: int, pad_value: float = 0, centred: bool = False) -> Tensor:
    """Scale pictures `(B, C, H, W)` to fit into `(height, width)` and pad on the left and on the top.

    centred: pad on all sides instead, the odd pixel on the right or at the bottom.
    """
    if images.ndim != 4:
        raise ValueError(f"Pictures must have shape (batch, channel, height, width), got {tuple(images.shape)}.")
    h, w = images.shape[2:]
    if (h, w) == (height, width):
        return images
    ratio = max(w / width, h / height)
    new_h, new_w = int(h / ratio), int(w / ratio)
    images = F.interpolate(images, size=(new_h, new_w), mode="bilinear", align_corners=False)
    right, bottom = ((width - new_w + 1) // 2, (height - new_h + 1) // 2) if centred else (0, 0)
    return F.pad(images, (width - new_w - right, right, height - new_h - bottom, bottom), value=pad_value)
