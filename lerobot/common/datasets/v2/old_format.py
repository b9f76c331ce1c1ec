"""Reading a v1.6 dataset: all rows in one table, videos by episode, metadata in `meta_data/`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from lerobot.common.datasets.utils import DatasetError, load_json
from lerobot.common.utils.io_utils import unflatten_dict

INFO = "meta_data/info.json"
STATS = "meta_data/stats.safetensors"
VIDEO = "videos/{video_key}_episode_{episode_index:06d}.mp4"
_TENSORFLOW_TEXT = re.compile(r"^tf\.Tensor\(b['\"](.*)['\"], shape=\(\), dtype=string\)$", re.DOTALL)


class OldDataset:
    """A v1.6 dataset folder, as the hub has it (`data/train-*.parquet`) or as saved locally (`train/*.arrow`).

    `table` has all rows; `features` are those of v2.0 with the names of `motor_names` {feature: names}. Raises
    FileNotFoundError or DatasetError naming what is missing.
    """

    def __init__(self, root: Path, motor_names: dict[str, list[str]] | None = None):
        self.root = Path(root)
        self.info = load_json(self.root / INFO)
        self.table = _read_table(self.root)
        self.fps = self.info["fps"]
        episodes = self.table.column("episode_index").to_numpy()
        numbers, counts = np.unique(episodes, return_counts=True)
        if numbers.tolist() != list(range(len(numbers))) or (np.diff(episodes) < 0).any():
            raise DatasetError(f"'{root}': episode_index is not 0, 1, 2, ... in the order of the rows.")
        self.lengths = counts.tolist()
        types = _described_types(self.table.schema)
        names = motor_names or {}
        self.features = {
            key: _feature(self.table, key, types.get(key, ""), names.get(key))
            for key in self.table.column_names
            if key != "language_instruction"
        }

    @property
    def video_keys(self) -> list[str]:
        """Cameras stored as videos."""
        return [key for key, feature in self.features.items() if feature["dtype"] == "video"]

    def rows(self, episode: int) -> pa.Table:
        """The rows of one episode."""
        return self.table.slice(sum(self.lengths[:episode]), self.lengths[episode])

    def stats(self) -> dict[str, dict[str, list]]:
        """{feature: {min, max, mean, std}} as nested lists."""
        return unflatten_dict({key: value.tolist() for key, value in load_file(self.root / STATS).items()})

    def texts(self, column: str) -> list[str]:
        """A text column, freed of what a TensorFlow tensor printed around the text."""
        if column not in self.table.column_names:
            raise ValueError(f"--tasks-col={column}: no such column; there are {self.table.column_names}.")
        return [clean_text(text) for text in self.table.column(column).to_pylist()]


def clean_text(text: str) -> str:
    """`tf.Tensor(b'Pick it up', shape=(), dtype=string)` -> `Pick it up`."""
    match = _TENSORFLOW_TEXT.match(text)
    return match[1] if match else text


def _read_table(root: Path) -> pa.Table:
    files = sorted((root / "data").glob("train-*.parquet"))
    if files:
        return pa.concat_tables([pq.read_table(path) for path in files])
    files = sorted((root / "train").glob("*.arrow"))
    if not files:
        raise FileNotFoundError(f"'{root}' has neither data/train-*.parquet nor train/*.arrow.")
    tables = []
    for path in files:
        with pa.memory_map(str(path)) as source:
            tables.append(pa.ipc.open_stream(source).read_all())
    return pa.concat_tables(tables)


def _described_types(schema: pa.Schema) -> dict[str, str]:
    """Column -> type name of the `datasets` library, from the metadata that it leaves in the file."""
    described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = described.get("info", {}).get("features", {})
    return {key: value.get("_type", "") for key, value in features.items() if isinstance(value, dict)}


def _feature(table: pa.Table, key: str, kind: str, names: list[str] | None) -> dict:
    column = table.column(key)
    type_, first = column.type, column[0].as_py()
    if pa.types.is_struct(type_) and (kind == "VideoFrame" or "timestamp" in [field.name for field in type_]):
        return {"dtype": "video", "shape": None, "names": ["height", "width", "channels"]}
    if pa.types.is_struct(type_):
        picture = cv2.imdecode(np.frombuffer(first["bytes"], np.uint8), cv2.IMREAD_UNCHANGED)
        return {"dtype": "image", "shape": picture.shape, "names": ["height", "width", "channels"]}
    if isinstance(first, list):
        length = len(first)
        if names is not None and len(names) != length:
            raise ValueError(f"The robot has {len(names)} motors, but '{key}' has {length} numbers.")
        inner = type_.value_type
        dtype = "float32" if pa.types.is_floating(inner) else str(inner)
        motors = names or [f"motor_{i}" for i in range(length)]
        return {"dtype": dtype, "shape": (length,), "names": {"motors": motors}}
    dtype = {"float": "float32", "double": "float64"}.get(str(type_), str(type_))
    return {"dtype": dtype, "shape": (1,), "names": None}
