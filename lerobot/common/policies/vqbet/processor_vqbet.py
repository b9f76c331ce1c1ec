"""Processors of VQ-BeT."""

from __future__ import annotations

from lerobot.common.policies.vqbet.configuration_vqbet import VQBeTConfig
from lerobot.common.processor import make_default_pre_post_processors


def make_vqbet_pre_post_processors(config: VQBeTConfig, dataset_stats: dict | None = None):
    """(preprocessor, postprocessor): rename, batch axis, device, normalize | unnormalize, to the CPU.

    dataset_stats: statistics by feature. Pictures are resized when `config.image_size` is set.
    """
    return make_default_pre_post_processors(config, dataset_stats)
