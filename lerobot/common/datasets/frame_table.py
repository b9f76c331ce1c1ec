"""The per-frame columns of a dataset: numbers in memory as tensors, PNG pictures read on demand."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lerobot.common.datasets.utils import DatasetError

PICTURE_CACHE_BYTES = 2**30  # compressed pictures of image datasets kept in memory, per process


@dataclass(frozen=True)
class EpisodeFile:
    """One episode and the parquet file that holds its rows, from `first_row` on (None: it holds nothing else)."""

    index: int
    length: int
    path: Path
    first_row: int | None = None


class FrameTable:
    """Columns of the loaded episodes, one row per frame, in the order of `files`.

    A numeric column is a tensor (N, *shape), (N,) for features of shape (1,); a string column is a list; an
    image column gives uint8 (C, H, W) by row number. Floats are float32, integers int64 and bools bool, as
    LeRobot's items have them. DatasetError for missing columns, empty cells, NaN or wrong row counts, naming
    file and episode.
    """

    def __init__(self, files: list[EpisodeFile], features: dict[str, dict]):
        wanted = {key: feature for key, feature in features.items() if feature["dtype"] not in ("image", "video")}
        needed = [key for key, feature in features.items() if feature["dtype"] != "video"]
        parts: dict[str, list] = {key: [] for key in wanted}
        shared: tuple[Path, pa.Table] | None = None  # the file that holds several episodes, read once
        for file in files:
            if file.first_row is None:
                table = _read_columns(file, needed, list(wanted))
            else:
                if shared is None or shared[0] != file.path:
                    shared = file.path, _read_columns(file, needed, list(wanted), whole_file=True)
                table = shared[1].slice(file.first_row, file.length)
            for key, feature in wanted.items():
                parts[key].append(_convert(table.column(key), key, feature, file))
        self.columns: dict[str, torch.Tensor | list[str] | ImageColumn] = {}
        for key, feature in features.items():
            if feature["dtype"] == "image":
                self.columns[key] = ImageColumn(key, files, feature)
            elif feature["dtype"] == "string":
                self.columns[key] = [text for part in parts[key] for text in part]
            elif feature["dtype"] != "video":
                self.columns[key] = torch.cat(parts[key]) if files else torch.empty(0)
        self._length = sum(file.length for file in files)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: str):
        return self.columns[key]

    def __contains__(self, key: str) -> bool:
        return key in self.columns

    @property
    def column_names(self) -> list[str]:
        """Names in the order of the dataset's features."""
        return list(self.columns)


def _read_columns(file: EpisodeFile, needed: list[str], columns: list[str], whole_file: bool = False) -> pa.Table:
    """Rows of an episode, or of all episodes in its file; `needed` columns must exist."""
    where = f"Episode {file.index}, file '{file.path}'"
    try:
        with pq.ParquetFile(file.path) as source:
            missing = [key for key in needed if key not in source.schema_arrow.names]
            if missing:
                raise DatasetError(f"{where}: columns {missing} are missing; found {source.schema_arrow.names}.")
            if file.first_row is not None and not whole_file:
                return _read_rows(source, columns, file.first_row, file.length)
            if file.first_row is None and source.metadata.num_rows != file.length:
                raise DatasetError(
                    f"{where}: {source.metadata.num_rows} rows, but meta/episodes.jsonl says length {file.length}."
                )
            return source.read(columns=columns, use_threads=False)  # small files
    except (pa.ArrowException, OSError) as e:
        raise DatasetError(f"{where} cannot be read as parquet: {e}.") from e


def read_episode(file: EpisodeFile) -> pa.Table:
    """All columns of the rows of one episode."""
    with pq.ParquetFile(file.path) as source:
        names = source.schema_arrow.names
    return _read_columns(file, [], names)


def _read_rows(source: pq.ParquetFile, columns: list[str], first: int, length: int) -> pa.Table:
    """Some rows of a file; only the row groups that hold them are read."""
    groups, begin, offset = [], 0, 0
    for group in range(source.metadata.num_row_groups):
        end = begin + source.metadata.row_group(group).num_rows
        if begin < first + length and end > first:
            offset = offset if groups else first - begin
            groups.append(group)
        begin = end
    return source.read_row_groups(groups, columns=columns, use_threads=False).slice(offset, length)


def _convert(column: pa.ChunkedArray, key: str, feature: dict, file: EpisodeFile) -> torch.Tensor | list[str]:
    """One column of one episode as a tensor (length, *shape) or list of strings."""
    where = f"Episode {file.index}, file '{file.path}', column '{key}'"
    values = column.combine_chunks()
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    shape = () if feature["shape"] == (1,) else feature["shape"]
    while True:
        if values.null_count:
            raise DatasetError(f"{where}: row {values.is_null().index(True).as_py()} is empty.")
        if not _is_list(values.type):
            break
        values = values.flatten()
    if feature["dtype"] == "string":
        return values.to_pylist()
    if len(values) != file.length * int(np.prod(shape)):
        raise DatasetError(f"{where}: {len(values)} numbers, expected {file.length} rows of shape {shape}.")
    array = values.to_numpy(zero_copy_only=False).reshape(file.length, *shape)
    if array.dtype.kind == "f" and (bad := np.isnan(array)).any():
        rows = np.flatnonzero(bad.reshape(file.length, -1).any(axis=1))
        text = f"{where}: NaN in {len(rows)} of {file.length} rows, first in row {rows[0]}. Remove or record the "
        raise DatasetError(text + "episode again.", int(rows[0]))
    dtypes = {"f": np.float32, "i": np.int64, "u": np.int64, "b": np.bool_}
    if array.dtype.kind not in dtypes:
        raise DatasetError(f"{where}: type {column.type}, expected {feature['dtype']}.")
    return torch.from_numpy(array.astype(dtypes[array.dtype.kind]))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


class ImageColumn:
    """PNG (or JPEG) cells of an image feature; whole episodes are read, the least recently used dropped."""

    def __init__(self, key: str, files: list[EpisodeFile], feature: dict):
        self._key, self._files = key, files
        self._starts = np.cumsum([0, *[file.length for file in files]])
        gray = 1 in (feature["shape"][0], feature["shape"][-1])
        color = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR_RGB
        self._flags = color | cv2.IMREAD_IGNORE_ORIENTATION
        self._cells: OrderedDict[int, pa.ChunkedArray] = OrderedDict()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> torch.Tensor:
        """uint8 (C, H, W) of one row."""
        return torch.from_numpy(self.picture(row)).permute(2, 0, 1)

    def picture(self, row: int) -> np.ndarray:
        """uint8 (H, W, C) of one row, as OpenCV has it."""
        position = int(np.searchsorted(self._starts, row, side="right")) - 1
        file = self._files[position]
        local = int(row - self._starts[position])
        cell = self._episode(position)[local].as_py()
        where = f"Episode {file.index}, file '{file.path}', column '{self._key}', row {local}"
        data = cell and cell["bytes"]
        if not data:
            raise DatasetError(f"{where}: no picture stored.")
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), self._flags)
        if image is None:
            raise DatasetError(f"{where}: the picture cannot be decoded.")
        return np.atleast_3d(image)

    def _episode(self, position: int) -> pa.ChunkedArray:
        if position in self._cells:
            self._cells.move_to_end(position)
        else:
            self._cells[position] = _read_columns(self._files[position], [], [self._key]).column(self._key)
            while len(self._cells) > 1 and sum(c.nbytes for c in self._cells.values()) > PICTURE_CACHE_BYTES:
                self._cells.popitem(last=False)
        return self._cells[position]

    def __getstate__(self):
        return {**self.__dict__, "_cells": OrderedDict()}  # a worker reads its own
