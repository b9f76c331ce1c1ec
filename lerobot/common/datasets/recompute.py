"""Statistics computed again from the files of a dataset."""

from __future__ import annotations

import numpy as np

from lerobot.common.datasets.compute_stats import color_counts, color_stats, compute_episode_stats, sample_indices
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.video_utils import VideoReader

# The std of ImageNet's channels is 0.22; a camera below a tenth of that was miscomputed (LeRobot 0.3.4 to 0.4.4
# squared uint8 values), unless its pictures hardly change.
SMALLEST_CREDIBLE_STD = 0.02


def recompute_episode_stats(dataset: LeRobotDataset, episode: int, quantiles=None) -> dict[str, dict[str, np.ndarray]]:
    """Statistics of one loaded episode: videos by their sampled frames at full size, images by all of them."""
    rows = dataset.rows_of_episode(episode)
    numbers = {
        key: dataset.table[key][rows].numpy()
        for key, feature in dataset.features.items()
        if feature["dtype"] not in ("image", "video", "string")
    }
    stats = compute_episode_stats(numbers, dataset.features, quantiles)
    for key in dataset.meta.camera_keys:
        stats[key] = camera_stats(dataset, episode, key, quantiles)
    return {key: stats[key] for key in dataset.features if key in stats}


def camera_stats(dataset: LeRobotDataset, episode: int, key: str, quantiles=None) -> dict[str, np.ndarray]:
    """Statistics of one camera in one loaded episode, in [0, 1], shape (C, 1, 1)."""
    rows = dataset.rows_of_episode(episode).tolist()
    if key in dataset.meta.image_keys:
        pictures = (dataset.table[key][row].permute(1, 2, 0).numpy() for row in rows)
    else:
        rows = [rows[i] for i in sample_indices(len(rows))]
        reader = VideoReader(dataset.meta.video_file(episode, key))
        start = dataset.meta.video_start(episode, key)
        times = [start + time for time in dataset.table["timestamp"][rows].tolist()]
        pictures = (frame for _, frame in reader.scan(reader.nearest(times, dataset.tolerance_s)))
    counts = sum(color_counts(picture).astype(np.int64) for picture in pictures)
    return color_stats(counts, len(rows), quantiles)


def has_credible_std(stats: dict[str, np.ndarray]) -> bool:
    """Whether a camera's std can be what its extremes say; false for files of LeRobot 0.3.4 to 0.4.4."""
    spread = np.asarray(stats["max"]) - np.asarray(stats["min"])
    return bool((np.asarray(stats["std"]) >= SMALLEST_CREDIBLE_STD).all() or (spread < 0.1).all())
