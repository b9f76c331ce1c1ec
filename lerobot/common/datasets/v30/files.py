"""The v3.0 dataset format: several episodes per parquet and mp4 file, metadata in parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.common.datasets.utils import DatasetError, resolve_inside

V30 = "v3.0"
EPISODES_DIR = "meta/episodes"
DEFAULT_TASKS_PATH = "meta/tasks.parquet"
DEFAULT_EPISODES_PATH = EPISODES_DIR + "/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DEFAULT_DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DEFAULT_VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
DEFAULT_DATA_FILE_SIZE_IN_MB = 100
DEFAULT_VIDEO_FILE_SIZE_IN_MB = 200
_TASK_COLUMNS = ("__index_level_0__", "task")
_NEEDED = ("episode_index", "length", "tasks", "data/chunk_index", "data/file_index")


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A whole parquet file; DatasetError naming it if it cannot be read."""
    try:
        with pq.ParquetFile(path) as source:
            return source.read(columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as e:
        if isinstance(e, FileNotFoundError):
            raise
        raise DatasetError(f"'{path}' cannot be read as parquet: {e}.") from e


# --- metadata -----------------------------------------------------------------------------------------------


def load_tasks(root: Path) -> dict[int, str]:
    """Read `meta/tasks.parquet` as index -> text."""
    path = Path(root) / DEFAULT_TASKS_PATH
    table = read_parquet(path)
    name = next((name for name in _TASK_COLUMNS if name in table.column_names), None)
    if name is None or "task_index" not in table.column_names:
        raise DatasetError(f"'{path}' has columns {table.column_names}; expected task_index and the task texts.")
    indices = table.column("task_index").to_pylist()
    return dict(sorted(zip(indices, table.column(name).to_pylist(), strict=True)))


def tasks_table(tasks: dict[int, str]) -> pa.Table:
    """`meta/tasks.parquet` as pandas writes a frame that has the texts as its unnamed index."""
    text = {"name": None, "field_name": _TASK_COLUMNS[0], "pandas_type": "unicode", "numpy_type": "object"}
    number = {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"}
    header = {**text, "field_name": None, "metadata": {"encoding": "UTF-8"}}
    pandas = {
        "index_columns": [_TASK_COLUMNS[0]],
        "column_indexes": [header],
        "columns": [{**number, "metadata": None}, {**text, "metadata": None}],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    columns = {"task_index": pa.array(list(tasks), pa.int64()), _TASK_COLUMNS[0]: pa.array(list(tasks.values()))}
    return pa.table(columns).replace_schema_metadata({"pandas": json.dumps(pandas)})


def episode_files(root: Path) -> list[Path]:
    """The files below `meta/episodes`, in the order of their rows; FileNotFoundError without any."""
    paths = sorted((Path(root) / EPISODES_DIR).glob("*/*.parquet"))
    if not paths:
        raise FileNotFoundError(2, "no episode metadata", str(Path(root) / EPISODES_DIR))
    return paths


def load_episodes(root: Path) -> dict[int, dict]:
    """Read `meta/episodes` without the statistics: episode index -> row."""
    rows = []
    for path in episode_files(root):
        try:
            with pq.ParquetFile(path) as source:
                names = [name for name in source.schema_arrow.names if not name.startswith("stats/")]
        except (pa.ArrowException, OSError) as e:
            raise DatasetError(f"'{path}' cannot be read as parquet: {e}.") from e
        if missing := [name for name in _NEEDED if name not in names]:
            raise DatasetError(f"'{path}' lacks the columns {missing}.")
        rows += read_parquet(path, names).to_pylist()
    return {row["episode_index"]: row for row in sorted(rows, key=lambda row: row["episode_index"])}


def load_episodes_stats(root: Path) -> dict[int, dict[str, dict[str, np.ndarray]]]:
    """Per-episode statistics: episode index -> {feature: {statistic: array}}."""
    result = {}
    for path in episode_files(root):
        table = read_parquet(path)
        names = [name for name in table.column_names if name.startswith("stats/")]
        for row in table.select(["episode_index", *names]).to_pylist():
            stats = result[row.pop("episode_index")] = {}
            for name, value in row.items():
                if value is not None:
                    feature, statistic = name.removeprefix("stats/").rsplit("/", 1)
                    stats.setdefault(feature, {})[statistic] = np.atleast_1d(np.array(value))
    return result


def as_v30_info(info: dict, data_files_size_in_mb: int, video_files_size_in_mb: int) -> dict:
    """`info.json` of a v2.1 dataset in the fields and order of v3.0."""
    sizes = {"data_files_size_in_mb": data_files_size_in_mb, "video_files_size_in_mb": video_files_size_in_mb}
    if bad := {name: size for name, size in sizes.items() if not size > 0}:
        raise ValueError(f"{bad}: expected sizes above 0.")
    head = ("robot_type", "total_episodes", "total_frames", "total_tasks")
    return {
        "codebase_version": V30,
        **{name: info[name] for name in head},
        "chunks_size": 1000,  # files, not episodes
        **sizes,
        "fps": info["fps"],
        "splits": info["splits"],
        "data_path": DEFAULT_DATA_PATH,
        "video_path": DEFAULT_VIDEO_PATH if info["video_path"] else None,
        "features": info["features"],
    }


# --- rows of episodes ---------------------------------------------------------------------------------------


def locate_episodes(root: Path, episodes: dict[int, dict], wanted: Iterable[int], named: dict[int, Path]):
    """Where the rows of episodes stand: episode index -> (file, first row).

    The column `episode_index` decides: LeRobot 0.3.4's converter names the previous file for the first
    episode of a file. `named` holds the files that the metadata name, which are looked into first. DatasetError
    for an episode that is nowhere or has another number of rows.
    """
    found: dict[int, tuple[Path, int, int]] = {}
    wanted = list(wanted)
    looked_into: set[Path] = set()
    others = sorted((Path(root) / "data").glob("*/*.parquet"))
    for path in [*dict.fromkeys(named[index] for index in wanted), *others]:
        if path not in looked_into and any(index not in found for index in wanted):
            found.update(_episodes_of_file(resolve_inside(root, path.relative_to(root))))
            looked_into.add(path)
    for index in wanted:
        length = episodes[index]["length"]
        if index not in found:
            raise DatasetError(f"Episode {index} has no rows in '{named[index]}' or another file of '{root}/data'.")
        if found[index][2] != length:
            path, _, rows = found[index]
            raise DatasetError(f"Episode {index}, file '{path}': {rows} rows, but {EPISODES_DIR} says length {length}.")
    return {index: found[index][:2] for index in wanted}


def _episodes_of_file(path: Path) -> dict[int, tuple[Path, int, int]]:
    """Episode index -> (file, first row, number of rows)."""
    column = read_parquet(path, ["episode_index"])
    if not column.column_names:
        raise DatasetError(f"File '{path}': columns ['episode_index'] are missing.")
    values = column.column(0).to_numpy()
    starts = np.flatnonzero(np.diff(values, prepend=values[:1] - 1)) if len(values) else np.array([], int)
    counts = np.diff(np.append(starts, len(values)))
    if len(set(values[starts].tolist())) < len(starts):
        raise DatasetError(f"File '{path}': the rows of an episode do not stand together.")
    return {int(values[s]): (path, int(s), int(n)) for s, n in zip(starts, counts, strict=True)}
