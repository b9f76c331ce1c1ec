"""Editing datasets with the functions and names of LeRobot 0.4's `lerobot.datasets.dataset_tools`.

Each but `modify_tasks` writes a new dataset and returns it opened; the original is not touched. Without `output_dir`
it is written to `$HF_LEROBOT_HOME/<repo_id>`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lerobot.common.constants import HF_LEROBOT_HOME
from lerobot.common.datasets import edit
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset


def delete_episodes(
    dataset: LeRobotDataset,
    episode_indices: Sequence[int],
    output_dir: str | Path | None = None,
    repo_id: str | None = None,
) -> LeRobotDataset:
    """The dataset without some episodes, numbered anew; ValueError if none, unknown or all are named."""
    repo_id, folder = _place(dataset, output_dir, repo_id)
    return LeRobotDataset(repo_id, root=edit.delete_episodes(dataset, episode_indices, folder))


def split_dataset(
    dataset: LeRobotDataset,
    splits: Mapping[str, float | list[int]],
    output_dir: str | Path | None = None,
) -> dict[str, LeRobotDataset]:
    """A dataset `<repo_id>_<name>` per name, of consecutive fractions or of listed episodes."""
    repo_id = dataset.repo_id or dataset.root.name
    folder = Path(output_dir) if output_dir else HF_LEROBOT_HOME / f"{repo_id}_splits"
    written = edit.split_dataset(dataset, splits, folder)
    return {name: LeRobotDataset(f"{repo_id}_{name}", root=root) for name, root in written.items()}


def merge_datasets(
    datasets: Sequence[LeRobotDataset], output_repo_id: str, output_dir: str | Path | None = None
) -> LeRobotDataset:
    """The episodes of several datasets, one after the other; ValueError if fps, robot or features differ."""
    if not datasets:
        raise ValueError("There are no datasets to merge.")
    folder = Path(output_dir) if output_dir else HF_LEROBOT_HOME / output_repo_id
    return LeRobotDataset(output_repo_id, root=edit.merge_datasets(datasets, folder))


def remove_feature(
    dataset: LeRobotDataset,
    feature_names: str | Sequence[str],
    output_dir: str | Path | None = None,
    repo_id: str | None = None,
) -> LeRobotDataset:
    """The dataset without some features and their videos; ValueError for bookkeeping or unknown ones."""
    names = [feature_names] if isinstance(feature_names, str) else list(feature_names)
    repo_id, folder = _place(dataset, output_dir, repo_id)
    return LeRobotDataset(repo_id, root=edit.edit_dataset(dataset, folder, edit.Edit(remove=names)))


def add_features(
    dataset: LeRobotDataset,
    features: Mapping[str, tuple[Any, dict]],
    output_dir: str | Path | None = None,
    repo_id: str | None = None,
) -> LeRobotDataset:
    """The dataset with more features: name -> (array over all frames, or function (row, episode, frame) -> value;
    {dtype, shape, names})."""
    repo_id, folder = _place(dataset, output_dir, repo_id)
    return LeRobotDataset(repo_id, root=edit.edit_dataset(dataset, folder, edit.Edit(add=features)))


def add_feature(
    dataset: LeRobotDataset,
    feature_name: str,
    feature_values: Any,
    feature_info: dict,
    output_dir: str | Path | None = None,
    repo_id: str | None = None,
) -> LeRobotDataset:
    """The dataset with one more feature, as `add_features`."""
    return add_features(dataset, {feature_name: (feature_values, feature_info)}, output_dir, repo_id)


def modify_features(
    dataset: LeRobotDataset,
    add_features: Mapping[str, tuple[Any, dict]] | None = None,
    remove_features: str | Sequence[str] | None = None,
    output_dir: str | Path | None = None,
    repo_id: str | None = None,
) -> LeRobotDataset:
    """The dataset with features added, as `add_features` takes them, and others removed; ValueError for neither."""
    if not add_features and not remove_features:
        raise ValueError("Nothing to do: give add_features or remove_features.")
    removed = [remove_features] if isinstance(remove_features, str) else list(remove_features or ())
    repo_id, folder = _place(dataset, output_dir, repo_id)
    change = edit.Edit(remove=removed, add=add_features or {})
    return LeRobotDataset(repo_id, root=edit.edit_dataset(dataset, folder, change))


def modify_tasks(
    dataset: LeRobotDataset, new_task: str | None = None, episode_tasks: Mapping[int, str] | None = None
) -> LeRobotDataset:
    """The dataset with other task texts, in the place of the original: one for all, or by episode, or both.

    ValueError for neither, or for an episode that does not exist.
    """
    if new_task is None and not episode_tasks:
        raise ValueError("Nothing to do: give new_task or episode_tasks.")
    if unknown := [index for index in episode_tasks or {} if index not in dataset.meta.episodes]:
        raise ValueError(f"Episodes {unknown}; there are 0 to {dataset.meta.total_episodes - 1}.")
    change = edit.Edit(tasks=new_task, episode_tasks=dict(episode_tasks or {}))
    root = dataset.root
    edited = edit.edit_dataset(dataset, root.with_name(f".{root.name}.edited"), change)
    old = root.rename(root.with_name(f".{root.name}.before"))
    edited.rename(root)
    shutil.rmtree(old)
    return LeRobotDataset(dataset.repo_id, root=root)


def _place(dataset: LeRobotDataset, output_dir, repo_id: str | None) -> tuple[str, Path]:
    repo_id = repo_id or f"{dataset.repo_id or dataset.root.name}_modified"
    return repo_id, Path(output_dir) if output_dir else HF_LEROBOT_HOME / repo_id
