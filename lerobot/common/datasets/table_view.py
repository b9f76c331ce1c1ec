"""The columns of a dataset with the calls of a table of the library `datasets`, which LeRobot keeps them in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from lerobot.common.datasets.frame_table import FrameTable, ImageColumn
from lerobot.common.utils.images import pictures_as_float

FORMATS = ("torch", "numpy", "python", None)


class Column(list):
    """The values of one column; also indexed by a list of row numbers, and an array where NumPy wants one."""

    def __getitem__(self, rows):
        if isinstance(rows, (list, tuple, range, np.ndarray, torch.Tensor)) and np.ndim(rows):
            return Column(list.__getitem__(self, int(row)) for row in rows)
        return list.__getitem__(self, rows if isinstance(rows, slice) else int(rows))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        values = [value.numpy() if isinstance(value, torch.Tensor) else value for value in self]
        return np.asarray(values, dtype=dtype)


class TableView:
    """Rows and columns of a dataset: numbers as tensors, pictures float32 (C, H, W), texts; videos have no column.

    `view[3]` is a row {column: value}, `view[2:5]` or `view[[1, 7]]` {column: list of values}, `view["action"]` a
    `Column`. `select`, `filter`, `with_format` and the like give another view of the same table.
    """

    def __init__(
        self,
        table: FrameTable,
        rows: Sequence[int] | None = None,
        columns: Sequence[str] | None = None,
        format: str | None = "torch",
        transform: Callable[[dict[str, list]], dict[str, Any]] | None = None,
    ):
        if format not in FORMATS:
            raise ValueError(f"Unknown format '{format}'; expected one of {FORMATS}.")
        self._table, self._columns = table, list(table.column_names if columns is None else columns)
        self._rows = range(len(table)) if rows is None else [int(row) for row in rows]
        self._format, self._transform = format, transform

    # --- what is in it --------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def num_rows(self) -> int:
        """Rows."""
        return len(self)

    @property
    def num_columns(self) -> int:
        """Columns."""
        return len(self._columns)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return len(self), len(self._columns)

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, in order."""
        return list(self._columns)

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def __repr__(self) -> str:
        return f"TableView(columns={self._columns}, num_rows={len(self)})"

    # --- values ---------------------------------------------------------------------------------------------

    def __getitem__(self, key):
        if isinstance(key, str):
            self._check([key])
            return self._values(key, self._rows)
        if isinstance(key, slice):
            return self._batch(self._rows[key])
        if np.ndim(key):
            return self._batch([self._row(one) for one in key])
        batch = self._batch([self._row(key)])
        return {name: values[0] for name, values in batch.items()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def iter(self, batch_size: int, drop_last_batch: bool = False) -> Iterator[dict[str, list]]:
        """Batches {column: values} of consecutive rows."""
        for start in range(0, len(self), batch_size):
            if not drop_last_batch or start + batch_size <= len(self):
                yield self[start : start + batch_size]

    def _row(self, index: int) -> int:
        if not -len(self) <= int(index) < len(self):
            raise IndexError(f"Row {int(index)} is outside of a table with {len(self)} rows.")
        return self._rows[int(index)]

    def _batch(self, rows: Sequence[int]) -> dict[str, Any]:
        batch = {name: self._values(name, rows) for name in self._columns}
        return batch if self._transform is None else self._transform(batch)

    def _values(self, name: str, rows: Sequence[int]) -> Column:
        column = self._table[name]
        if isinstance(column, list):
            return Column(column[row] for row in rows)
        if isinstance(column, ImageColumn):
            values = [pictures_as_float(column[row]) for row in rows]
        elif isinstance(rows, range):
            values = column[rows.start : rows.stop : rows.step].unbind() if len(rows) else []
        else:
            values = column[torch.tensor(rows, dtype=torch.int64)].unbind() if len(rows) else []
        if self._format == "numpy":
            return Column(value.numpy()[()] for value in values)
        if self._format != "torch":
            return Column(value.tolist() for value in values)
        return Column(values)

    def unique(self, column: str) -> list:
        """The different values of a column, in order of appearance."""
        values = self._values(column, self._rows)
        return list(dict.fromkeys(v.item() if isinstance(v, (torch.Tensor, np.generic)) else v for v in values))

    def to_dict(self) -> dict[str, list]:
        """{column: values as Python has them}."""
        plain = self.with_format(None)
        return {name: list(plain[name]) for name in self._columns}

    def to_pandas(self):
        """A pandas DataFrame; ImportError without pandas."""
        import pandas

        return pandas.DataFrame(self.to_dict())

    # --- other views ----------------------------------------------------------------------------------------

    def _view(self, **changes) -> TableView:
        now = {"rows": self._rows, "columns": self._columns, "format": self._format, "transform": self._transform}
        return TableView(self._table, **{**now, **changes})

    def _check(self, names: Sequence[str]) -> None:
        if unknown := [name for name in names if name not in self._columns]:
            raise KeyError(f"No columns {unknown}; there are {self._columns}.")

    def select(self, indices) -> TableView:
        """These rows, in this order."""
        return self._view(rows=[self._row(index) for index in indices])

    def select_columns(self, column_names: str | Sequence[str]) -> TableView:
        """These columns only."""
        names = [column_names] if isinstance(column_names, str) else list(column_names)
        self._check(names)
        return self._view(columns=names)

    def remove_columns(self, column_names: str | Sequence[str]) -> TableView:
        """All columns but these."""
        names = [column_names] if isinstance(column_names, str) else list(column_names)
        self._check(names)
        return self._view(columns=[name for name in self._columns if name not in names])

    def filter(self, function: Callable, input_columns: str | Sequence[str] | None = None) -> TableView:
        """The rows for which `function` of the row, or of the values of `input_columns`, is true."""
        names = [input_columns] if isinstance(input_columns, str) else input_columns
        view = self if names is None else self.select_columns(names)
        kept = []
        for place, row in enumerate(view):
            if function(row) if names is None else function(*(row[name] for name in names)):
                kept.append(self._rows[place])
        return self._view(rows=kept)

    def take(self, n: int) -> TableView:
        """The first `n` rows."""
        return self._view(rows=self._rows[:n])

    def skip(self, n: int) -> TableView:
        """All rows but the first `n`."""
        return self._view(rows=self._rows[n:])

    def with_format(self, type: str | None = None, columns: Sequence[str] | None = None, **_) -> TableView:
        """Values as "torch", "numpy" or Python objects (None), of these columns."""
        return self._view(format=type, columns=self._columns if columns is None else columns, transform=None)

    def with_transform(self, transform: Callable[[dict[str, list]], dict[str, Any]] | None) -> TableView:
        """Rows and batches go through `transform`, {column: list} -> {column: list}."""
        return self._view(transform=transform)

    def set_format(self, type: str | None = None, columns: Sequence[str] | None = None, **_) -> None:
        """`with_format`, in place."""
        self.__dict__.update(self.with_format(type, columns).__dict__)

    def reset_format(self) -> None:
        """Values as Python objects, in place."""
        self.set_format(None)

    def set_transform(self, transform: Callable[[dict[str, list]], dict[str, Any]] | None) -> None:
        """`with_transform`, in place."""
        self._transform = transform
