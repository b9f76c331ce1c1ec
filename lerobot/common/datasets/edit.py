"""Editing a dataset into a new folder: episodes left out, split or joined, features, tasks and videos changed.

The original is never touched. A killed edit continues when it is started again. v3.0 datasets are taken apart
into episodes, edited and joined again; videos are copied packet by packet unless they are to change.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.common.datasets.compute_stats import NO_QUANTILES, compute_episode_stats
from lerobot.common.datasets.conversion import Conversion, progress
from lerobot.common.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.common.datasets.episode_recorder import huggingface_metadata
from lerobot.common.datasets.frame_table import read_episode
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.utils import (
    CODEBASE_VERSION,
    DEFAULT_CHUNK_SIZE,
    DEFAULT_FEATURES,
    DEFAULT_PARQUET_PATH,
    DEFAULT_VIDEO_PATH,
    EPISODES_PATH,
    EPISODES_STATS_PATH,
    TASKS_PATH,
    create_empty_dataset_info,
    normalize_features,
    serialize_stats,
    write_jsonlines,
)
from lerobot.common.datasets.v30 import convert_dataset_v21_to_v30, convert_dataset_v30_to_v21
from lerobot.common.datasets.video_utils import VideoEncoder, check_vcodec, get_video_info, iter_video_frames


@dataclass(frozen=True)
class VideoChange:
    """Encode the videos again: codec and quality, and (height, width) if given."""

    vcodec: str = "h264"
    g: int = 2
    crf: int = 23
    size: tuple[int, int] | None = None

    def __post_init__(self):
        check_vcodec(self.vcodec)
        if self.size is not None and (min(self.size) < 2 or self.size[0] % 2 or self.size[1] % 2):
            raise ValueError(f"The size {self.size} must be two even numbers (height, width).")


@dataclass(frozen=True)
class Edit:
    """What changes in each episode. `add` {name: (values, feature)}: an array over all frames, or a function
    (row, episode, frame) -> value, and {dtype, shape, names}. `tasks`: old text -> new text, or one text for all;
    `episode_tasks`: the text of single episodes.
    """

    remove: Sequence[str] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    add: Mapping[str, tuple[np.ndarray | Callable, dict]] = field(default_factory=dict)
    tasks: Mapping[str, str] | str | None = None
    video: VideoChange | None = None
    episode_tasks: Mapping[int, str] = field(default_factory=dict)

    def check(self, features: Mapping[str, dict], tasks: Sequence[str]) -> None:
        """ValueError naming what does not fit the dataset."""
        touched = [*self.remove, *self.rename]
        if unknown := [key for key in touched if key not in features]:
            raise ValueError(f"There is no feature {unknown}; there are {list(features)}.")
        if kept := [key for key in touched if key in DEFAULT_FEATURES]:
            raise ValueError(f"{kept} belong to every dataset and can be neither removed nor renamed.")
        if clash := [key for key in [*self.rename.values(), *self.add] if key in features]:
            raise ValueError(f"There is already a feature {clash}.")
        if isinstance(self.tasks, Mapping) and (unknown := [task for task in self.tasks if task not in tasks]):
            raise ValueError(f"There is no task {unknown}; there are {list(tasks)}.")
        for name, (_, feature) in self.add.items():
            if feature.get("dtype") in ("image", "video", None) or "shape" not in feature:
                raise ValueError(f"The new feature '{name}' needs a dtype of numbers or string, and a shape.")

    def features(self, features: Mapping[str, dict]) -> dict[str, dict]:
        """Features of the edited dataset."""
        kept = {self.rename.get(k, k): dict(f) for k, f in features.items() if k not in self.remove}
        for feature in kept.values():
            if feature["dtype"] == "video" and self.video is not None:
                feature.pop("video_info", None)
                feature["info"] = None  # filled in from the first new video
                if self.video.size is not None:
                    feature |= {"shape": (*self.video.size, 3), "names": ["height", "width", "channels"]}
        return normalize_features({**kept, **{name: dict(feature) for name, (_, feature) in self.add.items()}})

    def task(self, text: str, episode: int) -> str:
        """The new text of a task in an episode."""
        if episode in self.episode_tasks:
            return self.episode_tasks[episode]
        return self.tasks if isinstance(self.tasks, str) else (self.tasks or {}).get(text, text)


def edit_dataset(dataset: LeRobotDataset, output: Path, edit: Edit) -> Path:
    """Write `dataset` with a change to `output`, which must be new; returns it. ValueError if the edit cannot be."""
    edit.check(dataset.features, list(dataset.meta.tasks.values()))
    return _write([dataset], [(0, episode) for episode in dataset.meta.episodes], output, edit)


def delete_episodes(dataset: LeRobotDataset, episode_indices: Sequence[int], output_dir: Path) -> Path:
    """Write the other episodes, numbered anew, to a new folder; ValueError if none, unknown or all are named."""
    unknown = [index for index in episode_indices if index not in dataset.meta.episodes]
    if not episode_indices or unknown:
        raise ValueError(
            f"Episodes to delete: {list(episode_indices)}; there are 0 to {dataset.meta.total_episodes - 1}."
        )
    kept = [index for index in dataset.meta.episodes if index not in set(episode_indices)]
    if not kept:
        raise ValueError("All episodes would be deleted.")
    return _write([dataset], [(0, index) for index in kept], output_dir, Edit())


def split_dataset(
    dataset: LeRobotDataset, splits: Mapping[str, float | list[int]], output_dir: Path
) -> dict[str, Path]:
    """Write a dataset per name to `output_dir/<name>`: fractions of consecutive episodes, or lists of episodes.

    Fractions are cut at rounded cumulative sums and leave the rest out. ValueError if they add up to more than 1,
    an episode is named twice, or a split gets no episode.
    """
    total, chosen = dataset.meta.total_episodes, {}
    if all(isinstance(part, list | tuple) for part in splits.values()):
        chosen = {name: list(part) for name, part in splits.items()}
    else:
        if not all(part > 0 for part in splits.values()) or math.fsum(splits.values()) > 1 + 1e-9:
            raise ValueError(f"Fractions {dict(splits)} must be above 0 and add up to at most 1.")
        begin = summed = 0.0
        for name, part in splits.items():
            summed += part
            chosen[name] = list(range(round(begin * total), round(summed * total)))
            begin = summed
    named = [index for part in chosen.values() for index in part]
    if len(set(named)) < len(named) or any(index not in dataset.meta.episodes for index in named):
        raise ValueError(f"{chosen}: every episode from 0 to {total - 1} at most once.")
    if empty := [name for name, part in chosen.items() if not part]:
        raise ValueError(f"{empty} would get no episode of {total}.")
    return {
        name: _write([dataset], [(0, i) for i in part], Path(output_dir) / name, Edit())
        for name, part in chosen.items()
    }


def merge_datasets(datasets: Sequence[LeRobotDataset], output_dir: Path) -> Path:
    """Write the episodes of several datasets one after the other; ValueError if fps, robot or features differ."""
    check_alike([dataset.meta for dataset in datasets])
    episodes = [(number, index) for number, dataset in enumerate(datasets) for index in dataset.meta.episodes]
    return _write(datasets, episodes, output_dir, Edit())


def check_alike(metas: Sequence[LeRobotDatasetMetadata]) -> None:
    """ValueError if datasets differ in what all frames of one dataset share."""
    first = metas[0]
    for other in metas[1:]:
        for what in ("fps", "robot_type", "shapes", "dtypes"):
            left, right = getattr(first, what), getattr(other, what)
            if left != right:
                raise ValueError(f"'{first.root}' has {what} {left}, '{other.root}' {right}; they cannot be merged.")


def _write(datasets: Sequence[LeRobotDataset], episodes: list[tuple[int, int]], output: Path, edit: Edit) -> Path:
    output = Path(output)
    if datasets[0].meta.is_v30:
        return _through_v21(datasets, episodes, output, edit)
    if older := [str(d.root) for d in datasets if d.meta.info["codebase_version"] != CODEBASE_VERSION]:
        raise ValueError(f"{older} are not {CODEBASE_VERSION}; convert them first.")
    writer = _EditedDataset(datasets, output, edit, episodes)
    for number, (source, episode) in enumerate(progress(episodes, "Episodes")):
        writer.write_episode(number, datasets[source], episode)
    writer.finish()
    return output


def _through_v21(datasets, episodes, output: Path, edit: Edit) -> Path:
    if output.exists() and any(output.iterdir()):
        raise FileExistsError(f"'{output}' is not empty; give a new folder.")
    work = output.with_name(f".{output.name}.episodes")
    parts = []
    for number, dataset in enumerate(datasets):
        part = work / str(number)
        if dataset.meta.is_v30 and not (part / "meta/info.json").exists():
            convert_dataset_v30_to_v21.convert(dataset, part, verify=False)
        parts.append(LeRobotDataset(root=part if dataset.meta.is_v30 else dataset.root))
    if not (work / "edited/meta/info.json").exists():
        _write(parts, episodes, work / "edited", edit)
    convert_dataset_v21_to_v30.convert(LeRobotDataset(root=work / "edited"), output, verify=False)
    shutil.rmtree(work)
    return output


class _EditedDataset:
    """A v2.1 dataset that grows episode by episode in a new folder."""

    def __init__(self, datasets: Sequence[LeRobotDataset], output: Path, edit: Edit, episodes: list[tuple[int, int]]):
        self.edit, self.meta = edit, datasets[0].meta
        self.features = edit.features(self.meta.features)
        described = repr(replace(edit, add=sorted(edit.add)))
        settings = {"from": [d.root.resolve() for d in datasets], "episodes": episodes, "edit": described}
        self.conversion = Conversion(output, settings)
        self.tasks: dict[str, int] = {}
        self.rows: list[dict] = []
        self.stats: list[dict] = []
        self.total_frames = 0

    def write_episode(self, number: int, dataset: LeRobotDataset, episode: int) -> None:
        """Write an episode of a source as number `number`."""
        table, place = self._edited_rows(number, dataset, episode)
        names = {"episode_chunk": number // DEFAULT_CHUNK_SIZE, "episode_index": number}
        self.conversion.file(DEFAULT_PARQUET_PATH.format(**names), lambda partial: pq.write_table(table, partial))
        kept = {k: v for k, v in dataset.meta.episodes_stats[episode].items() if k not in self.edit.remove}
        stats = {self.edit.rename.get(k, k): v for k, v in kept.items()}
        stats |= compute_episode_stats(self._changed_columns(table), self.features, NO_QUANTILES)
        for key in dataset.meta.video_keys:
            if key in self.edit.remove:
                continue
            new = self.edit.rename.get(key, key)
            path = DEFAULT_VIDEO_PATH.format(video_key=new, **names)
            source = dataset.meta.video_file(episode, key)
            if self.edit.video is None:
                self.conversion.copy(source, path)
            else:
                self.conversion.file(path, lambda p, s=source: encode_again(s, p, dataset.fps, self.edit.video))
                self.features[new]["info"] = self.features[new].get("info") or get_video_info(
                    self.conversion.output / path
                )
        tasks = [text for text, index in self.tasks.items() if index in set(table.column("task_index").to_pylist())]
        self.rows.append({"episode_index": number, "tasks": tasks, "length": place.length})
        self.stats.append({key: stats[key] for key in self.features if key in stats})
        self.total_frames += place.length

    def _edited_rows(self, number: int, dataset: LeRobotDataset, episode: int):
        place = dataset.meta.locate_rows([episode])[0]
        table = read_episode(place).replace_schema_metadata(None)
        texts = [self.edit.task(dataset.meta.tasks[i], episode) for i in table.column("task_index").to_pylist()]
        for text in texts:
            self.tasks.setdefault(text, len(self.tasks))
        columns = {self.edit.rename.get(k, k): table.column(k) for k in table.column_names if k not in self.edit.remove}
        for name, (values, feature) in self.edit.add.items():
            columns[name] = self._new_column(values, feature, dataset, episode, table)
        frames = np.arange(place.length)
        columns["episode_index"] = pa.array(np.full(place.length, number))
        columns["index"] = pa.array(frames + self.total_frames)
        columns["task_index"] = pa.array([self.tasks[text] for text in texts], pa.int64())
        order = [key for key, feature in self.features.items() if feature["dtype"] != "video"]
        table = pa.table({key: columns[key] for key in order})
        return table.replace_schema_metadata(huggingface_metadata(self.features)), place

    def _new_column(self, values, feature: dict, dataset: LeRobotDataset, episode: int, table: pa.Table) -> pa.Array:
        if callable(values):
            rows = table.to_pylist()
            chosen = [values(row, episode, frame) for frame, row in enumerate(rows)]
        else:
            if len(values) != dataset.meta.total_frames:
                raise ValueError(f"{len(values)} values for {dataset.meta.total_frames} frames.")
            chosen = [values[index] for index in table.column("index").to_pylist()]
        if feature["dtype"] == "string":
            return pa.array(chosen, pa.string())
        shape = tuple(feature["shape"])
        array = np.asarray(chosen, dtype=feature["dtype"]).reshape(len(chosen), *shape)
        if shape == (1,):
            return pa.array(array[:, 0])
        return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), int(np.prod(shape)))

    def _changed_columns(self, table: pa.Table) -> dict[str, np.ndarray]:
        """Columns whose statistics are new."""
        names = ["episode_index", "index", "task_index", *self.edit.add]
        return {
            name: np.array(table.column(name).to_pylist()) for name in names if self.features[name]["dtype"] != "string"
        }

    def finish(self) -> None:
        """Write the metadata."""
        tables = {
            TASKS_PATH: [{"task_index": index, "task": text} for text, index in self.tasks.items()],
            EPISODES_PATH: self.rows,
            EPISODES_STATS_PATH: [
                {"episode_index": i, "stats": serialize_stats(stats)} for i, stats in enumerate(self.stats)
            ],
        }
        for path, rows in tables.items():
            self.conversion.file(path, lambda partial, rows=rows: write_jsonlines(rows, partial))
        videos = [key for key, feature in self.features.items() if feature["dtype"] == "video"]
        info = create_empty_dataset_info(
            CODEBASE_VERSION, self.meta.fps, self.meta.robot_type, self.features, bool(videos)
        )
        info.update(
            total_episodes=len(self.rows),
            total_frames=self.total_frames,
            total_tasks=len(self.tasks),
            total_videos=len(self.rows) * len(videos),
            total_chunks=-(-len(self.rows) // DEFAULT_CHUNK_SIZE),
            splits={"train": f"0:{len(self.rows)}"},
        )
        self.conversion.finish(info)


def encode_again(source: Path, path: Path, fps: float, change: VideoChange) -> None:
    """Decode a video and encode its frames with other settings, smaller or larger if `change` says so."""
    with VideoEncoder(path, fps, change.vcodec, g=change.g, crf=change.crf) as encoder:
        for frame in iter_video_frames(source):
            if change.size is not None and frame.shape[:2] != change.size:
                shrinks = change.size[0] < frame.shape[0]
                rule = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
                frame = cv2.resize(frame, change.size[::-1], interpolation=rule)
            encoder.write(frame)
