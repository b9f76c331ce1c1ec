"""Joining datasets by name, with the function of LeRobot 0.4's `lerobot.datasets.aggregate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lerobot.common.constants import HF_LEROBOT_HOME
from lerobot.common.datasets.edit import check_alike, merge_datasets
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset


def aggregate_datasets(
    repo_ids: Sequence[str],
    aggr_repo_id: str,
    roots: Sequence[Path] | None = None,
    aggr_root: Path | None = None,
    data_files_size_in_mb: float | None = None,
    video_files_size_in_mb: float | None = None,
    chunk_size: int | None = None,
) -> LeRobotDataset:
    """Write the episodes of several datasets one after the other as `aggr_repo_id`, and return it opened.

    The folder is `aggr_root` (default: `$HF_LEROBOT_HOME/<aggr_repo_id>`), the format that of the first dataset.
    ValueError if fps, robot or features differ, or if a file or chunk size is given: files have the default sizes.
    """
    sizes = {"data_files_size_in_mb": data_files_size_in_mb, "video_files_size_in_mb": video_files_size_in_mb}
    if given := [name for name, size in {**sizes, "chunk_size": chunk_size}.items() if size is not None]:
        raise ValueError(
            f"{given}: files of a joined dataset have the default sizes; for others join v2.1 datasets and convert "
            "the result with lerobot/common/datasets/v30/convert_dataset_v21_to_v30.py."
        )
    roots = [None] * len(repo_ids) if roots is None else roots
    datasets = [LeRobotDataset(repo_id, root=root) for repo_id, root in zip(repo_ids, roots, strict=True)]
    validate_all_metadata([dataset.meta for dataset in datasets])
    folder = HF_LEROBOT_HOME / aggr_repo_id if aggr_root is None else Path(aggr_root)
    return LeRobotDataset(aggr_repo_id, root=merge_datasets(datasets, folder))


def validate_all_metadata(all_metadata: Sequence[Any]) -> tuple[int, str | None, dict[str, dict]]:
    """(fps, robot type, features) that all have; ValueError naming the first two that differ, or without any."""
    if not all_metadata:
        raise ValueError("There are no datasets to join.")
    check_alike(all_metadata)
    first = all_metadata[0]
    return first.fps, first.robot_type, first.features
