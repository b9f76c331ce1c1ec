"""Statistics computed again from the files of a dataset."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from tqdm import tqdm

from lerobot.common.datasets.compute_stats import (
    DEFAULT_QUANTILES,
    NO_QUANTILES,
    aggregate_stats,
    color_counts,
    color_stats,
    compute_episode_stats,
    sample_indices,
)
from lerobot.common.datasets.journal import replace_together
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.recovery import RecordingFolder
from lerobot.common.datasets.utils import EPISODES_STATS_PATH, STATS_PATH, serialize_stats, write_jsonlines
from lerobot.common.datasets.v30 import files as v30
from lerobot.common.datasets.v30.writer import episodes_table
from lerobot.common.datasets.video_utils import VideoReader
from lerobot.common.utils.io_utils import write_json

# The std of ImageNet's channels is 0.22; a camera below a tenth of that was miscomputed (LeRobot 0.3.4 to 0.4.4
# squared uint8 values), unless its pictures hardly change.
SMALLEST_CREDIBLE_STD = 0.02


def recompute_episode_stats(
    dataset: LeRobotDataset, episode: int, quantiles=NO_QUANTILES
) -> dict[str, dict[str, np.ndarray]]:
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


def add_quantiles(dataset: LeRobotDataset, names: list[str]) -> None:
    """Put the quantiles of vector features into `dataset.meta.stats`, as v3.0 has them: per episode, then averaged."""
    episodes = []
    for episode in dataset.episode_indices:
        rows = dataset.rows_of_episode(episode)
        columns = {name: dataset.table[name][rows].numpy() for name in names}
        episodes.append(compute_episode_stats(columns, dataset.features, DEFAULT_QUANTILES))
    for name, stats in aggregate_stats(episodes).items():
        dataset.meta.stats[name] |= {k: v for k, v in stats.items() if k.startswith("q")}


def camera_stats(dataset: LeRobotDataset, episode: int, key: str, quantiles=NO_QUANTILES) -> dict[str, np.ndarray]:
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


def replace_wrong_camera_std(dataset: LeRobotDataset) -> None:
    """Give `dataset.meta.stats` a right std where a camera's cannot be right, from up to 20 loaded episodes."""
    for key in dataset.meta.camera_keys:
        stats = dataset.meta.stats.get(key)
        if stats is None or has_credible_std(stats):
            continue
        places = np.linspace(0, dataset.num_episodes - 1, min(20, dataset.num_episodes)).round().astype(int)
        parts = [{key: camera_stats(dataset, dataset.episode_indices[place], key)} for place in places]
        logging.warning(
            "The stored std of '%s' is wrong (as LeRobot 0.3.4 to 0.4.4 compute it) and was computed again from %d "
            "episodes. Repair the dataset: python lerobot/scripts/check_dataset.py %s --fix",
            key,
            len(parts),
            dataset.root,
        )
        dataset.meta.stats[key] = {**stats, "std": aggregate_stats(parts)[key]["std"]}


def repair_stats(root: Path) -> None:
    """Compute the statistics of a whole dataset again and put them in place, all together."""
    dataset = LeRobotDataset(root=root)
    meta = dataset.meta
    quantiles = DEFAULT_QUANTILES if meta.is_v30 else NO_QUANTILES
    stats = {
        e: recompute_episode_stats(dataset, e, quantiles) for e in tqdm(meta.episodes, "Statistics", unit="episode")
    }
    folder = RecordingFolder(meta.root)
    moves = {}
    if meta.is_v30:
        for number, path in enumerate(v30.episode_files(meta.root)):
            table = v30.read_parquet(path)
            rows = table.select([n for n in table.column_names if not n.startswith("stats/")]).to_pylist()
            new = episodes_table(rows, [stats[row["episode_index"]] for row in rows])
            pq.write_table(new, folder.path / f"episodes_{number}.parquet")
            moves[folder.path / f"episodes_{number}.parquet"] = path
    elif meta.has_episode_stats:
        lines = [{"episode_index": e, "stats": serialize_stats(values)} for e, values in stats.items()]
        write_jsonlines(lines, folder.path / "episodes_stats.jsonl")
        moves[folder.path / "episodes_stats.jsonl"] = meta.root / EPISODES_STATS_PATH
    if meta.is_v30 or not meta.has_episode_stats:
        write_json(serialize_stats(aggregate_stats(list(stats.values()))), folder.path / "stats.json")
        moves[folder.path / "stats.json"] = meta.root / STATS_PATH
    replace_together(meta.root, folder.path, moves)
    folder.release()
