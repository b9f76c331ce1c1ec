"""`meta.episodes`, `meta.tasks` and `meta.info` in the forms that scripts for any LeRobot release use."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any


class EpisodeTable(dict):
    """Episode number -> row {episode_index, tasks, length, ...}; a column name gives the list of its values.

    `dataset_from_index` and `dataset_to_index` are computed where the format does not store them.
    """

    def __getitem__(self, key: int | str) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        if key in ("dataset_from_index", "dataset_to_index"):
            ends, total = [], 0
            for row in self.values():
                total += row["length"]
                ends.append(total if key == "dataset_to_index" else total - row["length"])
            return ends
        return [row[key] for row in self.values()]

    @property
    def column_names(self) -> list[str]:
        """Columns that every row has."""
        first = next(iter(self.values()), {})
        return list(dict.fromkeys([*first, "dataset_from_index", "dataset_to_index"]))


class TaskTable(dict):
    """Task number -> text; also `.iloc[number].name`, `.loc[text].task_index` and `.index`, as LeRobot 0.3 has it."""

    @property
    def index(self) -> list[str]:
        """The texts in the order of their numbers."""
        return [self[number] for number in sorted(self)]

    @property
    def iloc(self) -> Mapping[int, SimpleNamespace]:
        """Row by number."""
        return {number: SimpleNamespace(name=text, task_index=number) for number, text in self.items()}

    @property
    def loc(self) -> Mapping[str, SimpleNamespace]:
        """Row by text."""
        return {text: SimpleNamespace(name=text, task_index=number) for number, text in self.items()}


class InfoDict(dict):
    """`meta/info.json` with its fields also as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"info.json has no field '{name}'; it has {list(self)}.") from None
