"""The 1-D U-Net of Diffusion Policy, conditioned by feature-wise linear modulation (Perez et al. 2018)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lerobot.common.policies.diffusion.configuration_diffusion import FINAL_GROUPS, DiffusionConfig


class DiffusionSinusoidalPosEmb(nn.Module):
    """Sine and cosine embedding of timesteps, wavelengths from 2 pi to 20000 pi."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, timesteps: Tensor) -> Tensor:
        """(B,) -> (B, dim)."""
        half = self.dim // 2
        steps = torch.arange(half, device=timesteps.device)
        frequencies = (steps * -(math.log(10000) / (half - 1))).exp()
        angles = timesteps.unsqueeze(-1) * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class DiffusionConv1dBlock(nn.Module):
    """Convolution of the same length, group norm, Mish."""

    def __init__(self, inp_channels: int, out_channels: int, kernel_size: int, n_groups: int = 8):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(inp_channels, out_channels, kernel_size, padding=kernel_size // 2),
            nn.GroupNorm(n_groups, out_channels),
            nn.Mish(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class DiffusionConditionalResidualBlock1d(nn.Module):
    """Two convolution blocks with a shortcut; the condition modulates between them.

    The condition gives a scale and a shift, h = scale * h + shift (the scale is around 0 at first, not around 1),
    or with use_film_scale_modulation=false a shift alone.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        cond_dim: int,
        kernel_size: int = 3,
        n_groups: int = 8,
        use_film_scale_modulation: bool = False,
    ):
        super().__init__()
        self.use_film_scale_modulation = use_film_scale_modulation
        self.conv1 = DiffusionConv1dBlock(in_channels, out_channels, kernel_size, n_groups)
        modulation = 2 * out_channels if use_film_scale_modulation else out_channels
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(cond_dim, modulation))
        self.conv2 = DiffusionConv1dBlock(out_channels, out_channels, kernel_size, n_groups)
        same = in_channels == out_channels
        self.residual_conv = nn.Identity() if same else nn.Conv1d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (B, in, T), cond (B, cond_dim) -> (B, out, T)."""
        h = self.conv1(x)
        modulation = self.cond_encoder(cond).unsqueeze(-1)
        if self.use_film_scale_modulation:
            scale, shift = modulation.chunk(2, dim=1)
            h = scale * h + shift
        else:
            h = h + modulation
        return self.conv2(h) + self.residual_conv(x)


class DiffusionConditionalUnet1d(nn.Module):
    """Predicts the noise in a sequence of actions; each stage but the last halves the time axis on the way down."""

    def __init__(self, config: DiffusionConfig, global_cond_dim: int):
        super().__init__()
        self.config = config
        embedding = config.diffusion_step_embed_dim
        self.diffusion_step_encoder = nn.Sequential(
            DiffusionSinusoidalPosEmb(embedding),
            nn.Linear(embedding, 4 * embedding),
            nn.Mish(),
            nn.Linear(4 * embedding, embedding),
        )
        action, dims = config.action_feature.shape[0], tuple(config.down_dims)
        stages = list(zip((action, *dims[:-1]), dims, strict=True))

        def block(inside: int, out: int) -> nn.Module:
            return DiffusionConditionalResidualBlock1d(
                inside,
                out,
                embedding + global_cond_dim,
                config.kernel_size,
                config.n_groups,
                config.use_film_scale_modulation,
            )

        self.down_modules = nn.ModuleList()
        for i, (inside, out) in enumerate(stages):
            stage = nn.ModuleList([block(inside, out), block(out, out)])
            stage.append(nn.Identity() if i == len(stages) - 1 else nn.Conv1d(out, out, 3, 2, 1))
            self.down_modules.append(stage)
        self.mid_modules = nn.ModuleList([block(dims[-1], dims[-1]) for _ in range(2)])
        self.up_modules = nn.ModuleList()
        for out, inside in reversed(stages[1:]):
            stage = [block(2 * inside, out), block(out, out), nn.ConvTranspose1d(out, out, 4, 2, 1)]
            self.up_modules.append(nn.ModuleList(stage))
        self.final_conv = nn.Sequential(
            DiffusionConv1dBlock(dims[0], dims[0], config.kernel_size, FINAL_GROUPS),
            nn.Conv1d(dims[0], action, 1),
        )

    def forward(self, x: Tensor, timestep: Tensor, global_cond: Tensor | None = None) -> Tensor:
        """x (B, H, A), timestep int64 (B,), global_cond (B, G) -> (B, H, A)."""
        cond = self.diffusion_step_encoder(timestep)
        if global_cond is not None:
            cond = torch.cat([cond, global_cond], dim=-1)
        x, skips = x.transpose(1, 2), []
        for first, second, shrink in self.down_modules:
            x = second(first(x, cond), cond)
            skips.append(x)
            x = shrink(x)
        for block in self.mid_modules:
            x = block(x, cond)
        for first, second, grow in self.up_modules:  # the skip of the first stage is left over
            x = torch.cat([x, skips.pop()], dim=1)
            x = grow(second(first(x, cond), cond))
        return self.final_conv(x).transpose(1, 2)
