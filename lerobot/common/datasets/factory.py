"""From a training configuration to the dataset it trains on."""

from __future__ import annotations

import logging

import torch

from lerobot.common.constants import IMAGENET_STATS, REWARD
from lerobot.common.datasets.frame_store import FrameStore
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.common.datasets.recompute import replace_wrong_camera_std
from lerobot.common.datasets.transforms import ImageTransforms


class MissingStatisticsError(ValueError, KeyError):
    """A feature has no statistics where some are needed."""

    __str__ = Exception.__str__  # a KeyError's own would quote the message


def resolve_delta_timestamps(cfg, ds_meta: LeRobotDatasetMetadata) -> dict[str, list[float]] | None:
    """The seconds around a frame that a policy reads of each feature; None if it reads single frames only."""
    deltas = {}
    for key in ds_meta.features:
        indices = None
        if key == "next.reward":
            indices = cfg.reward_delta_indices
        elif key == "action":
            indices = cfg.action_delta_indices
        elif key.startswith("observation."):
            indices = cfg.observation_delta_indices
        if indices is not None:
            deltas[key] = [index / ds_meta.fps for index in indices]
    return deltas or None


def use_imagenet_stats(meta: LeRobotDatasetMetadata) -> None:
    """Replace mean and std of every camera by ImageNet's; MissingStatisticsError names a camera without."""
    for key in meta.camera_keys:
        if key not in meta.stats:
            raise MissingStatisticsError(
                f"Camera '{key}' has no statistics in '{meta.root / 'meta'}'. Recompute them (python "
                f"lerobot/scripts/check_dataset.py {meta.root} --fix), or set --dataset.use_imagenet_stats=false "
                "with a normalization that needs none."
            )
        imagenet = {name: torch.tensor(v, dtype=torch.float32) for name, v in IMAGENET_STATS.items()}
        meta.stats[key] = {**meta.stats[key], **imagenet}


def add_reward_at_end(dataset: LeRobotDataset, frames: int, deltas: list[int]) -> None:
    """Give a dataset the feature `next.reward`, read at `deltas`: 1 in the last `frames` of each episode, else 0."""
    if frames < 1:
        raise ValueError(
            f"The policy learns from '{REWARD}', which '{dataset.root}' lacks (it has {', '.join(dataset.features)}). "
            "If each episode ends in success, --dataset.reward_at_end=N makes it 1 in the last N frames."
        )
    reward = torch.zeros(len(dataset))
    for end in dataset.episode_data_index["to"].tolist():
        reward[max(0, end - frames) : end] = 1
    dataset.add_column(REWARD, reward, deltas)


def make_dataset(cfg, episodes: list[int] | None = None, return_uint8: bool = False) -> LeRobotDataset:
    """The dataset that a training configuration describes, with the time windows of its policy.

    `episodes` replaces `cfg.dataset.episodes`. Pictures are float32 in [0, 1], or uint8 with `return_uint8`.
    """
    options = cfg.dataset
    if options.repo_id is not None and not isinstance(options.repo_id, str):
        raise NotImplementedError("--dataset.repo_id must name one dataset; training on several is not supported.")
    meta = LeRobotDatasetMetadata(options.repo_id, root=options.root, revision=options.revision)
    if meta.total_episodes == 0:
        raise ValueError(f"The dataset '{meta.root}' has no episodes to train on; record some, or set --dataset.root.")
    dataset = LeRobotDataset(
        options.repo_id,
        root=options.root,
        episodes=options.episodes if episodes is None else episodes,
        delta_timestamps=resolve_delta_timestamps(cfg.policy, meta),
        image_transforms=ImageTransforms(options.image_transforms) if options.image_transforms.enable else None,
        revision=options.revision,
        tolerance_s=cfg.tolerance_s,
        video_backend=options.video_backend,
        return_uint8=return_uint8,
    )
    if cfg.policy.reward_delta_indices is not None and REWARD not in dataset.features:
        add_reward_at_end(dataset, options.reward_at_end, cfg.policy.reward_delta_indices)
    if options.use_imagenet_stats:
        use_imagenet_stats(dataset.meta)
    else:
        replace_wrong_camera_std(dataset)
    if options.frame_store and dataset.meta.camera_keys:
        store = FrameStore.open_or_fill(dataset, size=tuple(cfg.policy.image_size))
        logging.info("Pictures come from the frame store '%s'.", store.root)
        dataset.use_frame_store(store)
    return dataset
