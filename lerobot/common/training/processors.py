"""Which processors a run trains with, and how raw batches reach them."""

from __future__ import annotations

import logging

import torch

from lerobot.common.constants import POLICY_PREPROCESSOR_DEFAULT_NAME
from lerobot.common.policies.factory import make_pre_post_processors
from lerobot.common.processor.images import images_to_float
from lerobot.common.processor.rename import rename_stats
from lerobot.common.utils.hub import find_file


def make_training_processors(cfg, dataset_stats: dict):
    """Processors for a run: new ones from the dataset's statistics; a resumed run takes those of its checkpoint.

    A run that starts from another checkpoint keeps that checkpoint's steps (tokenizer, renaming) and takes statistics
    and features from the dataset.
    """
    policy, path = cfg.policy, cfg.policy.pretrained_path
    if path is None or find_file(path, f"{POLICY_PREPROCESSOR_DEFAULT_NAME}.json", required=False) is None:
        return make_pre_post_processors(policy, dataset_stats=dataset_stats)
    if cfg.resume:
        return make_pre_post_processors(policy, path)
    logging.info("Statistics come from the dataset, not from %s.", path)
    features = {**policy.input_features, **policy.output_features}
    normalizer = {
        "stats": rename_stats(dataset_stats, cfg.rename_map),
        "features": features,
        "norm_map": policy.normalization_mapping,
    }
    overrides = {"normalizer_processor": normalizer}
    if cfg.rename_map:
        overrides["rename_observations_processor"] = {"rename_map": cfg.rename_map}
    return make_pre_post_processors(
        policy,
        path,
        preprocessor_overrides=overrides,
        postprocessor_overrides={"unnormalizer_processor": {**normalizer, "features": policy.output_features}},
    )


def images_as_float(batch: dict, device: torch.device) -> dict:
    """A collated batch on `device`; uint8 pictures move as they are (a quarter of the bytes) and become float there."""
    return images_to_float(
        {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    )
