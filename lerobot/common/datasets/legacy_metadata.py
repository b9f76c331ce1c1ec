"""Functions of LeRobot 0.1's `lerobot.common.datasets.utils` that scripts call and this package itself does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lerobot.common.datasets.utils import (
    EPISODES_PATH,
    EPISODES_STATS_PATH,
    TASKS_PATH,
    append_jsonlines,
    serialize_stats,
)


class IterableNamespace(SimpleNamespace):
    """A nested dict whose entries are read as attributes or items."""

    def __init__(self, dictionary: Mapping[str, Any] | None = None, **kwargs: Any):
        super().__init__()
        for key, value in {**(dictionary or {}), **kwargs}.items():
            setattr(self, key, IterableNamespace(value) if isinstance(value, dict) else value)

    def __iter__(self) -> Iterator[str]:
        return iter(vars(self))

    def __getitem__(self, key: str) -> Any:
        return vars(self)[key]

    def items(self):
        """Pairs of name and value."""
        return vars(self).items()

    def keys(self):
        """The names."""
        return vars(self).keys()

    def values(self):
        """The values."""
        return vars(self).values()


def get_nested_item(obj: Mapping[str, Any], flattened_key: str, sep: str = "/") -> Any:
    """`obj["a"]["b"]` for the key "a/b"."""
    for key in flattened_key.split(sep):
        obj = obj[key]
    return obj


def write_task(task_index: int, task: str, local_dir: Path) -> None:
    """Append a line to `meta/tasks.jsonl`."""
    append_jsonlines({"task_index": task_index, "task": task}, Path(local_dir) / TASKS_PATH)


def write_episode(episode: dict, local_dir: Path) -> None:
    """Append a line to `meta/episodes.jsonl`."""
    append_jsonlines(episode, Path(local_dir) / EPISODES_PATH)


def write_episode_stats(episode_index: int, episode_stats: dict, local_dir: Path) -> None:
    """Append a line to `meta/episodes_stats.jsonl`."""
    row = {"episode_index": episode_index, "stats": serialize_stats(episode_stats)}
    append_jsonlines(row, Path(local_dir) / EPISODES_STATS_PATH)
