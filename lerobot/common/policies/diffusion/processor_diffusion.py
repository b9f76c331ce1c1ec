"""Processors of Diffusion Policy."""

from __future__ import annotations

from lerobot.common.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.common.processor import make_default_pre_post_processors


def make_diffusion_pre_post_processors(config: DiffusionConfig, dataset_stats: dict | None = None):
    """(preprocessor, postprocessor): rename, batch axis, device, normalize | unnormalize, to the CPU.

    dataset_stats: statistics by feature. Pictures are resized when `config.image_size` is set.
    """
    return make_default_pre_post_processors(config, dataset_stats)
