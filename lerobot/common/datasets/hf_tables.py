"""Functions of LeRobot 0.4's `lerobot.datasets.utils` around tables of the library `datasets`, files and time lists.

This package reads its datasets without that library: only what returns one of its tables needs it installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lerobot.common.utils.import_utils import require_package
from lerobot.common.utils.io_utils import flatten_dict, unflatten_dict

CHUNK_FILE_PATTERN = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_DIR = "data"
VIDEO_DIR = "videos"
MB = 1024**2

# --- values -------------------------------------------------------------------------------------------------


def hf_transform_to_torch(items_dict: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Columns as tensors, in place: pictures float32 (C, H, W) in [0, 1], numbers as they are; texts and None stay."""
    for key, values in items_dict.items():
        if values and values[0] is not None:
            items_dict[key] = [_to_torch(value) for value in values]
    return items_dict


def _to_torch(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if hasattr(value, "convert"):
        picture = torch.from_numpy(np.array(value.convert("RGB")))
        return picture.permute(2, 0, 1).float().div_(255).contiguous()
    return torch.tensor(value)


def item_to_torch(item: dict[str, Any]) -> dict[str, Any]:
    """Arrays and lists of a frame as tensors, in place, but for its `task`."""
    for key, value in item.items():
        if isinstance(value, np.ndarray | list) and key != "task":
            item[key] = torch.tensor(value)
    return item


def serialize_dict(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Nested statistics as lists and numbers, for JSON; NotImplementedError for a value of another kind."""
    flat = {}
    for key, value in flatten_dict(stats).items():
        if isinstance(value, torch.Tensor | np.ndarray):
            flat[key] = value.tolist()
        elif isinstance(value, list | int | float | np.generic):
            flat[key] = value.item() if isinstance(value, np.generic) else value
        else:
            raise NotImplementedError(f"'{key}' is {type(value).__name__}; expected arrays, tensors, lists or numbers.")
    return unflatten_dict(flat)


def find_float_index(target: float, float_list: Sequence[float], threshold: float = 1e-6) -> int:
    """Where a number stands in a list, to within `threshold`; -1 if nowhere."""
    return next((i for i, value in enumerate(float_list) if abs(target - value) <= threshold), -1)


def is_float_in_list(target: float, float_list: Sequence[float], threshold: float = 1e-6) -> bool:
    """Whether a number is in a list, to within `threshold`."""
    return find_float_index(target, float_list, threshold) >= 0


def calculate_episode_data_index(hf_dataset: Any) -> dict[str, torch.Tensor]:
    """First row (`from`) and one past the last (`to`) of each run of equal `episode_index`; int64 (episodes,)."""
    column = torch.tensor(np.asarray(hf_dataset["episode_index"], dtype=np.int64))
    changes = torch.nonzero(torch.diff(column), as_tuple=True)[0] + 1
    starts = torch.cat([torch.zeros(min(1, len(column)), dtype=torch.int64), changes])
    return {"from": starts, "to": torch.cat([starts[1:], torch.full((min(1, len(column)),), len(column))])}


# --- files --------------------------------------------------------------------------------------------------


def get_file_size_in_mb(file_path: Path) -> float:
    """Size on disk in MiB."""
    return Path(file_path).stat().st_size / MB


def get_parquet_file_size_in_mb(parquet_path: str | Path) -> float:
    """Uncompressed size of a parquet file's columns in MiB."""
    groups = pq.read_metadata(parquet_path)
    return sum(groups.row_group(i).total_byte_size for i in range(groups.num_row_groups)) / MB


def get_parquet_num_frames(parquet_path: str | Path) -> int:
    """Rows of a parquet file."""
    return pq.read_metadata(parquet_path).num_rows


def get_hf_dataset_size_in_mb(hf_ds: Any) -> int:
    """Size of a `datasets` table in memory, in whole MiB."""
    return hf_ds.data.nbytes // MB


def update_chunk_file_indices(chunk_idx: int, file_idx: int, chunks_size: int) -> tuple[int, int]:
    """Chunk and number of the next file; a chunk holds `chunks_size` of them."""
    return (chunk_idx + 1, 0) if file_idx == chunks_size - 1 else (chunk_idx, file_idx + 1)


def write_tasks(tasks: Any, local_dir: Path) -> None:
    """Write a pandas frame of tasks (texts as index, column `task_index`) to `meta/tasks.parquet`."""
    from lerobot.common.datasets.v30.files import DEFAULT_TASKS_PATH

    path = Path(local_dir) / DEFAULT_TASKS_PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    tasks.to_parquet(path)


def write_episodes(episodes: Any, local_dir: Path) -> None:
    """Write a `datasets` table of episodes to the first file of `meta/episodes`; ValueError above 100 MiB."""
    from lerobot.common.datasets.v30.files import DEFAULT_DATA_FILE_SIZE_IN_MB, DEFAULT_EPISODES_PATH

    if get_hf_dataset_size_in_mb(episodes) > DEFAULT_DATA_FILE_SIZE_IN_MB:
        raise ValueError(f"The episodes take over {DEFAULT_DATA_FILE_SIZE_IN_MB} MiB; write them to several files.")
    path = Path(local_dir) / DEFAULT_EPISODES_PATH.format(chunk_index=0, file_index=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    episodes.to_parquet(path)


# --- tables of the library ----------------------------------------------------------------------------------


def _datasets():
    require_package("datasets")
    import datasets

    return datasets


def get_hf_features_from_features(features: Mapping[str, dict]) -> Any:
    """`datasets.Features` of dataset features: Image, Value, Sequence or ArrayND; videos have no column."""
    hf, columns = _datasets(), {}
    for key, feature in features.items():
        dtype, shape = feature["dtype"], tuple(feature["shape"])
        if dtype == "video":
            continue
        if dtype == "image":
            columns[key] = hf.Image()
        elif shape == (1,):
            columns[key] = hf.Value(dtype=dtype)
        elif len(shape) == 1:
            columns[key] = hf.Sequence(length=shape[0], feature=hf.Value(dtype=dtype))
        elif 2 <= len(shape) <= 5:
            columns[key] = getattr(hf, f"Array{len(shape)}D")(shape=shape, dtype=dtype)
        else:
            raise ValueError(f"Feature '{key}' of shape {shape} has no column type: expected 1 to 5 dimensions.")
    return hf.Features(columns)


def embed_images(dataset: Any) -> Any:
    """A `datasets` table with the bytes of its pictures in it, in the place of their paths."""
    from datasets.table import embed_table_storage

    form = dataset.format
    dataset = dataset.with_format("arrow").map(embed_table_storage, batched=False)
    return dataset.with_format(**form)


def load_nested_dataset(pq_dir: Path, features: Any = None, episodes: Sequence[int] | None = None) -> Any:
    """One `datasets` table of all parquet files one folder below `pq_dir`, of some episodes if they are named.

    FileNotFoundError if there are none.
    """
    paths = sorted(Path(pq_dir).glob("*/*.parquet"))
    if not paths:
        raise FileNotFoundError(f"There is no parquet file in a folder of '{pq_dir}'.")
    chosen = None if episodes is None else [("episode_index", "in", list(episodes))]
    tables = [pq.read_table(path, filters=chosen) for path in paths]
    hf = _datasets()
    table = hf.Dataset(pa.concat_tables(tables))
    return table if features is None else table.cast(features)


def to_parquet_with_hf_images(df: Any, path: Path, features: Any = None) -> None:
    """Write a pandas frame as parquet in which picture columns are those of the `datasets` library."""
    _datasets().Dataset.from_dict(df.to_dict(orient="list"), features=features).to_parquet(path)


def safe_shard(dataset: Any, index: int, num_shards: int) -> Any:
    """Part `index` of a `datasets` table in as many parts as it can be cut into, `num_shards` at most."""
    return dataset.shard(num_shards=min(dataset.num_shards, num_shards), index=index)
