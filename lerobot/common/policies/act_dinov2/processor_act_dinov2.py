"""Processors of ACT-DINOv2."""

from __future__ import annotations

from lerobot.common.policies.act_dinov2.configuration_act_dinov2 import ACTDINOv2Config
from lerobot.common.processor import make_default_pre_post_processors


def make_act_dinov2_pre_post_processors(config: ACTDINOv2Config, dataset_stats: dict | None = None):
    """(preprocessor, postprocessor): rename, batch axis, device, normalize | unnormalize, to the CPU.

    dataset_stats: statistics by feature; mean and std of pictures are ImageNet's in any case, since the backbone was
    trained with them. Pictures are resized beforehand when `config.image_size` is set.
    """
    return make_default_pre_post_processors(config, config.adapt_stats(dataset_stats or {}))
