"""Which processors a run trains with, and how raw batches reach them."""

from __future__ import annotations

import logging

import torch

from lerobot.common.constants import POLICY_PREPROCESSOR_DEFAULT_NAME
from lerobot.common.datasets.recompute import add_quantiles
from lerobot.common.datasets.utils import dataset_to_policy_features
from lerobot.common.policies.cameras import camera_table, match_cameras
from lerobot.common.policies.factory import make_pre_post_processors
from lerobot.common.processor.images import images_to_float
from lerobot.common.processor.rename import rename_stats
from lerobot.common.utils.hub import find_file
from lerobot.configs.types import FeatureType, NormalizationMode

# Typed flags that change the tokenizer step of the checkpoint that a run starts from.
TOKENIZER_FLAGS = {"policy.tokenizer_max_length": "max_length", "policy.pad_language_to": "padding"}


def match_dataset(cfg, dataset) -> None:
    """Fit the dataset to the checkpoint that a run starts from, before the policy is built.

    Puts the cameras' renaming into `cfg.rename_map` and shows it as a table; adds the task sentences to
    `cfg.policy.training_tasks` where the policy reads them. Warns of episodes that are shorter than a chunk.
    """
    features = dataset_to_policy_features(dataset.meta.features)
    cfg.rename_map = match_cameras(cfg.policy, features, cfg.rename_map)
    if table := camera_table(cfg.policy, features, cfg.rename_map):
        logging.info("%s", table)
    if hasattr(cfg.policy, "training_tasks"):
        cfg.policy.training_tasks = sorted({*cfg.policy.training_tasks, *_tasks_of(dataset)})
    _compare_chunk_with_episodes(cfg.policy, dataset)
    _add_missing_quantiles(cfg.policy, dataset)


def _add_missing_quantiles(policy, dataset) -> None:
    """Compute the quantiles of vectors that the policy is normalized by and formats before v3.0 do not store."""
    modes = (NormalizationMode.QUANTILES, NormalizationMode.QUANTILE10)
    features = {**policy.input_features, **policy.output_features}
    kinds = {name: f.type for name, f in dataset_to_policy_features(dataset.meta.features).items()} | {
        name: f.type for name, f in features.items()
    }
    missing = [
        name
        for name, stats in dataset.meta.stats.items()
        if name in kinds
        and kinds[name] is not FeatureType.VISUAL
        and policy.normalization_mapping.get(kinds[name].value) in modes
        and "q01" not in stats
    ]
    if missing:
        logging.info("The dataset stores no quantiles of %s: computing them.", ", ".join(missing))
        add_quantiles(dataset, missing)


def _compare_chunk_with_episodes(policy, dataset) -> None:
    index = dataset.episode_data_index
    shortest = int((index["to"] - index["from"]).min())
    chunk = len(policy.action_delta_indices or ())
    if chunk > shortest:
        logging.warning(
            "A chunk of %d actions is longer than the shortest episode (%d frames): every chunk of it is padded, and "
            "what is padded is not learnt. A shorter --policy.chunk_size fits better.",
            chunk,
            shortest,
        )


def _tasks_of(dataset) -> list[str]:
    if dataset.episodes is None:
        return list(dataset.meta.tasks.values())
    return [task for i in dataset.episodes for task in dataset.meta.episodes[i]["tasks"]]


def make_training_processors(cfg, dataset_stats: dict):
    """Processors for a run: new ones from the dataset's statistics; a resumed run takes those of its checkpoint.

    A run that starts from another checkpoint keeps that checkpoint's steps (tokenizer, renaming) and takes statistics
    and features from the dataset.
    """
    policy, path = cfg.policy, cfg.policy.pretrained_path
    if cfg.resume:  # those of the checkpoint, also where a legacy one keeps its statistics inside the weights
        return make_pre_post_processors(policy, path)
    if path is None:
        return make_pre_post_processors(policy, dataset_stats=dataset_stats)
    logging.info("Statistics come from the dataset, not from %s.", path)
    stats = policy.adapt_stats(rename_stats(dataset_stats, cfg.rename_map))
    changed = {"rename_observations_processor": {"rename_map": cfg.rename_map}} if cfg.rename_map else {}
    if find_file(path, f"{POLICY_PREPROCESSOR_DEFAULT_NAME}.json", required=False) is None:
        return make_pre_post_processors(policy, dataset_stats=stats, preprocessor_overrides=changed)
    typed = {name: getattr(policy, f.partition(".")[2]) for f, name in TOKENIZER_FLAGS.items() if f in cfg.typed_flags}
    if typed:
        changed["tokenizer_processor"] = typed
    normalizer = {
        "stats": stats,
        "features": {**policy.input_features, **policy.output_features},
        "norm_map": policy.normalization_mapping,
    }
    return make_pre_post_processors(
        policy,
        path,
        preprocessor_overrides={"normalizer_processor": normalizer, **changed},
        postprocessor_overrides={"unnormalizer_processor": {**normalizer, "features": policy.output_features}},
    )


def images_as_float(batch: dict, device: torch.device) -> dict:
    """A collated batch on `device`; uint8 pictures move as they are (a quarter of the bytes) and become float there."""
    return images_to_float(
        {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    )
