"""`meta.episodes`, `meta.tasks` and `meta.info` in the forms that scripts for any LeRobot release use."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

FROM, TO = "dataset_from_index", "dataset_to_index"


class EpisodeRow(dict):
    """One episode of a table, which knows where its frames begin and end although the format does not store it."""

    table: EpisodeTable
    number: int

    def __missing__(self, key: str) -> Any:
        if key not in (FROM, TO):
            raise KeyError(key)
        end = self.table.ends()[self.number]
        return end if key == TO else end - self["length"]


class EpisodeTable(dict):
    """Episode number -> row {episode_index, tasks, length, ...}; a column name gives the list of its values.

    A slice or a list of numbers gives the columns of those episodes, and a negative number counts from the end.
    `dataset_from_index` and `dataset_to_index` are computed where the format does not store them.
    """

    _ends: dict[int, int] | None = None

    def __getitem__(self, key: int | str | slice | list[int]) -> Any:
        if isinstance(key, str):
            return [self[number][key] for number in self]
        if isinstance(key, slice | list):
            rows = [self[number] for number in (list(self)[key] if isinstance(key, slice) else key)]
            return {column: [row[column] for row in rows] for column in self.column_names}
        if key < 0 and -key <= len(self):
            key = list(self)[key]
        row = super().__getitem__(key)
        if type(row) is not EpisodeRow:
            row = EpisodeRow(row)
            row.table, row.number = self, key
            self[key] = row
        return row

    def ends(self) -> dict[int, int]:
        """Episode number -> position of the first frame after it."""
        if self._ends is None or len(self._ends) != len(self):
            self._ends, total = {}, 0
            for number, row in self.items():
                total += row["length"]
                self._ends[number] = total
        return self._ends

    @property
    def num_rows(self) -> int:
        """The number of episodes."""
        return len(self)

    @property
    def column_names(self) -> list[str]:
        """Columns that every row has."""
        first = next(iter(self.values()), {})
        return list(dict.fromkeys([*first, FROM, TO]))


class TaskTable(dict):
    """Task number -> text.

    Also `.iloc[number].name`, `.loc[text].task_index`, `.index` and `.columns`, as LeRobot 0.4's table by text with the
    column `task_index`.
    """

    columns = ("task_index",)

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
