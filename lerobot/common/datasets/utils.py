"""The v2.0 / v2.1 dataset format: file names, metadata files, features, frame validation, time windows."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from packaging.version import Version

from lerobot.common.datasets.backward_compatibility import (
    BackwardCompatibilityError,
    ForwardCompatibilityError,
)
from lerobot.common.datasets.hub_download import NEWEST_READ
from lerobot.common.datasets.hub_download import get_repo_versions as get_repo_versions
from lerobot.common.datasets.hub_download import get_safe_version as get_safe_version
from lerobot.common.datasets.hub_download import is_valid_version as is_valid_version
from lerobot.common.utils.io_utils import flatten_dict as flatten_dict
from lerobot.common.utils.io_utils import read_json, write_json, write_text
from lerobot.common.utils.io_utils import unflatten_dict as unflatten_dict
from lerobot.configs.types import FeatureType, PolicyFeature

CODEBASE_VERSION = "v2.1"
DEFAULT_CHUNK_SIZE = 1000  # episodes per folder

INFO_PATH = "meta/info.json"
EPISODES_PATH = "meta/episodes.jsonl"
TASKS_PATH = "meta/tasks.jsonl"
STATS_PATH = "meta/stats.json"
EPISODES_STATS_PATH = "meta/episodes_stats.jsonl"
DEFAULT_PARQUET_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
DEFAULT_VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
DEFAULT_IMAGE_PATH = "images/{image_key}/episode_{episode_index:06d}/frame_{frame_index:06d}.png"
UNFINISHED_DIR = ".unfinished"  # files of the episode being recorded; nothing outside of it belongs to no episode

DEFAULT_FEATURES = {
    "timestamp": {"dtype": "float32", "shape": (1,), "names": None},
    "frame_index": {"dtype": "int64", "shape": (1,), "names": None},
    "episode_index": {"dtype": "int64", "shape": (1,), "names": None},
    "index": {"dtype": "int64", "shape": (1,), "names": None},
    "task_index": {"dtype": "int64", "shape": (1,), "names": None},
}
PICTURE_DTYPES = ("image", "video")


class DatasetError(ValueError):
    """A dataset contradicts its metadata or cannot be read; the message names file and episode.

    `frame`: the first frame of the episode that is meant, where there is one.
    """

    def __init__(self, message: str, frame: int | None = None):
        super().__init__(message)
        self.frame = frame


# --- paths --------------------------------------------------------------------------------------------------


def resolve_inside(root: Path, relative: str | Path) -> Path:
    """Return `root/relative`; DatasetError if that leaves `root` (absolute, `..`, or a symbolic link).

    Links into the blob folder of a hub cache snapshot, which is how the hub client stores files, are
    followed.
    """
    root = Path(root)
    path = root / relative
    lexical = not Path(relative).is_absolute() and ".." not in Path(relative).parts
    if lexical:
        target = path.resolve()
        if target.is_relative_to(root.resolve()):
            return path
        if root.parent.name == "snapshots" and target.is_relative_to((root.parent.parent / "blobs").resolve()):
            return path
    raise DatasetError(
        f"Path '{relative}' leaves the dataset folder '{root}'. Correct data_path/video_path in "
        f"'{root / INFO_PATH}' "
        "or replace the link by the file."
    )


# --- json lines ---------------------------------------------------------------------------------------------


def load_json(fpath: str | Path) -> Any:
    """Read a JSON file; DatasetError naming it if it is not JSON."""
    try:
        return read_json(fpath)
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise DatasetError(f"'{fpath}' is not valid JSON: {e}.") from e


def load_jsonlines(path: str | Path) -> list[Any]:
    """Read one JSON value per line; DatasetError naming file and line if one is broken."""
    rows = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    rows.append(json.loads(line))
                except json.JSONDecodeError as e:
                    raise DatasetError(f"'{path}' line {number} is not valid JSON: {e}.") from e
    return rows


def write_jsonlines(rows: Iterable[Any], path: str | Path) -> None:
    """Write one JSON value per line, atomically."""
    write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), path)


def append_jsonlines(row: Any, path: str | Path) -> None:
    """Add one line, atomically: a reader sees the old file or the new one, never half a line."""
    old = Path(path).read_text(encoding="utf-8") if Path(path).exists() else ""
    write_text(old + json.dumps(row, ensure_ascii=False) + "\n", path)


# --- metadata files -----------------------------------------------------------------------------------------


def load_info(local_dir: Path) -> dict:
    """Read `meta/info.json`, shapes as tuples; DatasetError if a needed field is absent or impossible."""
    path = Path(local_dir) / INFO_PATH
    info = load_json(path)
    needed = ("codebase_version", "fps", "features", "data_path", "total_episodes", "total_frames")
    missing = [key for key in needed if key not in info]
    if missing:
        raise DatasetError(f"'{path}' lacks {missing}.")
    _check_info(info, path)
    if not info.get("video_path") and any(f.get("dtype") == "video" for f in info["features"].values()):
        raise DatasetError(f"'{path}' has video features, but no video_path.")
    for key, feature in info["features"].items():
        if "dtype" not in feature or "shape" not in feature:
            raise DatasetError(f"'{path}': feature '{key}' lacks dtype or shape.")
        feature["shape"] = tuple(feature["shape"])
        feature.setdefault("names", None)
    return info


def _check_info(info: dict, path: Path) -> None:
    """DatasetError for a field that is not what it must be."""
    for key in ("fps", "chunks_size"):
        value = info.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise DatasetError(f"'{path}' has {key} {value!r}; expected a number above 0.")
    for key in ("total_episodes", "total_frames"):
        if isinstance(info[key], bool) or not isinstance(info[key], int) or info[key] < 0:
            raise DatasetError(f"'{path}' has {key} {info[key]!r}; expected a whole number.")
    if not is_valid_version(str(info["codebase_version"])):
        raise DatasetError(f"'{path}' has codebase_version {info['codebase_version']!r}; expected v2.0, v2.1 or v3.0.")
    if not isinstance(info["features"], dict) or not all(isinstance(f, dict) for f in info["features"].values()):
        raise DatasetError(f"'{path}': features must be an object {{name: {{dtype, shape, names}}}}.")
    for key in ("data_path", "video_path"):
        _check_template(info.get(key), key, path)


def _check_template(template: str | None, key: str, path: Path) -> None:
    """DatasetError if a path template has other fields than the formats have."""
    known = {"episode_chunk", "episode_index", "video_key", "chunk_index", "file_index"}
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template or "") if name is not None}
    except (ValueError, TypeError) as e:
        raise DatasetError(f"'{path}': {key} {template!r} is no path template: {e}.") from e
    if not fields <= known:
        raise DatasetError(f"'{path}': {key} {template!r} has {sorted(fields - known)}; known are {sorted(known)}.")


def write_info(info: dict, local_dir: Path) -> None:
    """Write `meta/info.json` atomically."""
    write_json(info, Path(local_dir) / INFO_PATH)


def load_tasks(local_dir: Path) -> tuple[dict[int, str], dict[str, int]]:
    """Read `meta/tasks.jsonl` as (index -> text, text -> index)."""
    rows = sorted(load_jsonlines(Path(local_dir) / TASKS_PATH), key=lambda row: row["task_index"])
    tasks = {row["task_index"]: row["task"] for row in rows}
    return tasks, {task: index for index, task in tasks.items()}


def load_episodes(local_dir: Path) -> dict[int, dict]:
    """Read `meta/episodes.jsonl` as episode index -> {episode_index, tasks, length}."""
    rows = load_jsonlines(Path(local_dir) / EPISODES_PATH)
    return {row["episode_index"]: row for row in sorted(rows, key=lambda row: row["episode_index"])}


def cast_stats_to_numpy(stats: dict) -> dict[str, dict[str, np.ndarray]]:
    """{feature: {statistic: nested lists}} -> the same with arrays of at least one dimension."""
    return {key: {name: np.atleast_1d(np.array(v)) for name, v in value.items()} for key, value in stats.items()}


def serialize_stats(stats: dict) -> dict:
    """The inverse of `cast_stats_to_numpy`, accepting tensors as well."""
    return {key: {name: np.asarray(value).tolist() for name, value in values.items()} for key, values in stats.items()}


def load_stats(local_dir: Path) -> dict[str, dict[str, np.ndarray]]:
    """Read the whole-dataset statistics of a v2.0 dataset."""
    return cast_stats_to_numpy(load_json(Path(local_dir) / STATS_PATH))


def write_stats(stats: dict, local_dir: Path) -> None:
    """Write whole-dataset statistics (`meta/stats.json`) atomically."""
    write_json(serialize_stats(stats), Path(local_dir) / STATS_PATH)


def load_episodes_stats(root: Path) -> dict[int, dict[str, dict[str, np.ndarray]]]:
    """Read the per-episode statistics of a v2.1 dataset."""
    rows = load_jsonlines(Path(root) / EPISODES_STATS_PATH)
    rows.sort(key=lambda row: row["episode_index"])
    return {row["episode_index"]: cast_stats_to_numpy(row["stats"]) for row in rows}


def backward_compatible_episodes_stats(stats: dict, episodes: Iterable[int]) -> dict[int, dict]:
    """v2.0 has no per-episode statistics: every episode refers to those of the whole dataset."""
    return dict.fromkeys(episodes, stats)


def create_empty_dataset_info(codebase_version: str, fps: int, *args, **kwargs) -> dict:
    """`info.json` of a dataset without episodes, with the fields of its version (v2.0, v2.1, v3.0).

    Both argument orders are accepted: (robot_type, features, use_videos) and (features, use_videos,
    robot_type).
    """
    legacy = not (args and isinstance(args[0], Mapping))
    names = ("robot_type", "features", "use_videos") if legacy else ("features", "use_videos", "robot_type")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    info = {
        "codebase_version": codebase_version,
        "robot_type": given.get("robot_type"),
        "total_episodes": 0,
        "total_frames": 0,
        "total_tasks": 0,
        "total_videos": 0,
        "total_chunks": 0,
        "chunks_size": DEFAULT_CHUNK_SIZE,
        "fps": fps,
        "splits": {},
        "data_path": DEFAULT_PARQUET_PATH,
        "video_path": DEFAULT_VIDEO_PATH if given.get("use_videos", True) else None,
        "features": given["features"],
    }
    if Version(codebase_version).major < 3:
        return info
    from lerobot.common.datasets.v30 import files as v30  # which imports this module

    return v30.as_v30_info(info, v30.DEFAULT_DATA_FILE_SIZE_IN_MB, v30.DEFAULT_VIDEO_FILE_SIZE_IN_MB)


def check_version_compatibility(
    repo_id: str | None,
    version_to_check: str | Version,
    current_version: str | Version = CODEBASE_VERSION,
    enforce_breaking_major: bool = True,
) -> None:
    """Raise unless the dataset's version is read here: the current one, earlier ones of its major, or v3.0.

    Without `enforce_breaking_major` earlier majors pass too.
    """
    found, current = Version(str(version_to_check)), Version(str(current_version))
    if found.major < current.major and enforce_breaking_major:
        raise BackwardCompatibilityError(repo_id, found)
    if (found.major, found.minor) > (current.major, current.minor) and found != NEWEST_READ:
        raise ForwardCompatibilityError(repo_id, found)


# --- features -----------------------------------------------------------------------------------------------


def normalize_features(features: dict[str, dict]) -> dict[str, dict]:
    """A copy for `info.json`: shapes as tuples, bookkeeping features last; ValueError if malformed."""
    result = {}
    for key, feature in features.items():
        if "/" in key:
            raise ValueError(f"Feature name '{key}' contains '/'; statistics are stored under '<feature>/<statistic>'.")
        if "dtype" not in feature or "shape" not in feature:
            raise ValueError(f"Feature '{key}' needs 'dtype' and 'shape'; found {sorted(feature)}.")
        if key not in DEFAULT_FEATURES:
            known = {
                "dtype": feature["dtype"],
                "shape": tuple(feature["shape"]),
                "names": feature.get("names"),
            }
            result[key] = known | {name: value for name, value in feature.items() if name not in known}
        if len(feature["shape"]) > 5:
            raise ValueError(f"Feature '{key}' has {len(feature['shape'])} dimensions; parquet columns have at most 5.")
    return {**result, **{key: dict(feature) for key, feature in DEFAULT_FEATURES.items()}}


def get_features_from_robot(robot: Any, use_videos: bool = True) -> dict[str, dict]:
    """Features of a dataset recorded with `robot`: its motors and its cameras (as video, or as images)."""
    dtype = "video" if use_videos else "image"
    cameras = {key: {"dtype": dtype, **feature} for key, feature in robot.camera_features.items()}
    return {**robot.motor_features, **cameras}


def picture_size(feature: Mapping) -> tuple[int, int, int]:
    """(channels, height, width) of a picture feature.

    The third name decides ("channel", "channels": last axis); without names the smallest axis is the channel
    axis.
    """
    shape, names = tuple(feature["shape"]), feature.get("names")
    if len(shape) != 3:
        raise ValueError(f"A picture feature needs three dimensions; found shape {shape}.")
    if isinstance(names, list | tuple) and len(names) == 3:
        channels_last = names[2] in ("channel", "channels")
    else:
        channels_last = shape[2] < shape[0]
    return (shape[2], shape[0], shape[1]) if channels_last else shape


def dataset_to_policy_features(features: dict[str, dict]) -> dict[str, PolicyFeature]:
    """What a policy sees of dataset features, in their order; pictures channel-first."""
    result = {}
    for key, feature in features.items():
        shape = tuple(feature["shape"])
        if feature["dtype"] in PICTURE_DTYPES:
            if len(shape) != 3:
                raise ValueError(f"Feature '{key}' is a picture and needs three dimensions; found shape {shape}.")
            result[key] = PolicyFeature(FeatureType.VISUAL, picture_size(feature))
        elif key == "observation.environment_state":
            result[key] = PolicyFeature(FeatureType.ENV, shape)
        elif key.startswith("observation"):
            result[key] = PolicyFeature(FeatureType.STATE, shape)
        elif key.startswith("action"):
            result[key] = PolicyFeature(FeatureType.ACTION, shape)
    return result


# --- frames -------------------------------------------------------------------------------------------------


def validate_frame(frame: Mapping[str, Any], features: dict[str, dict]) -> None:
    """ValueError listing everything in `frame` that does not fit; `timestamp` is optional."""
    expected = {key for key in features if key not in DEFAULT_FEATURES}
    found = set(frame) - {"task", "timestamp"}
    text = presence_problems(found, expected)
    for key in sorted(expected & found):
        text += "".join(f"{problem}.\n" for problem in feature_problems(key, features[key], frame[key]))
    if "task" in frame and not isinstance(frame["task"], str):
        text += f"{_wrong_type('task', 'str', frame['task'])}.\n"
    if text:
        raise ValueError(text)


def presence_problems(found: set[str], expected: set[str], optional: set[str] = frozenset()) -> str:
    """What is missing from a frame and what it has too much; empty if nothing."""
    text = ""
    if missing := expected - found:
        text += f"Missing features: {missing}\n"
    if extra := found - expected - optional:
        text += f"Extra features: {extra}\n"
    return f"Feature mismatch in `frame` dictionary:\n{text}" if text else ""


def _wrong_type(name: str, expected: str, value: Any) -> str:
    return f"The feature '{name}' is expected to be of type '{expected}', but type '{type(value)}' provided instead"


def feature_problems(name: str, feature: Mapping, value: Any) -> list[str]:
    """What is wrong with one value of a frame, as a list of sentences."""
    dtype, shape = feature["dtype"], tuple(feature["shape"])
    if dtype in PICTURE_DTYPES:
        if not isinstance(value, np.ndarray):
            pil_like = hasattr(value, "convert")
            return [] if pil_like else [_wrong_type(name, "PIL.Image' or 'np.ndarray", value)]
        c, h, w = picture_size(feature)
        if value.shape not in ((h, w, c), (c, h, w)):
            return [_wrong_shape(name, value, f"'{(h, w, c)}' or '{(c, h, w)}'")]
        return []
    if dtype == "string":
        return [] if isinstance(value, str) else [_wrong_type(name, "str", value)]
    if not isinstance(value, np.ndarray):
        return [f"The feature '{name}' is not a 'np.ndarray' of '{dtype}', but type '{type(value)}'"]
    problems = []
    if value.dtype != np.dtype(dtype):
        problems.append(f"The feature '{name}' of dtype '{value.dtype}' is not of the expected dtype '{dtype}'")
    if value.shape != shape:
        problems.append(_wrong_shape(name, value, f"'{shape}'"))
    return problems


def _wrong_shape(name: str, value: np.ndarray, expected: str) -> str:
    return f"The feature '{name}' of shape '{value.shape}' does not have the expected shape {expected}"


# --- time ---------------------------------------------------------------------------------------------------


def get_episode_data_index(episodes: Mapping[int, dict], chosen: list[int] | None = None) -> dict[str, torch.Tensor]:
    """First row (`from`) and one past the last (`to`) of each loaded episode, in the order of `chosen`."""
    order = sorted(episodes) if chosen is None else chosen
    lengths = torch.tensor([episodes[index]["length"] for index in order], dtype=torch.int64)
    ends = torch.cumsum(lengths, dim=0)
    return {"from": ends - lengths, "to": ends}


def check_timestamps_sync(
    timestamps: np.ndarray,
    episode_indices: np.ndarray,
    episode_data_index: Mapping[str, np.ndarray],
    fps: float,
    tolerance_s: float,
    raise_value_error: bool = True,
) -> bool:
    """True if successive frames of an episode are 1/fps apart within `tolerance_s`, else ValueError or False.

    Compared in float64, with the spacing of the stored float32 numbers added: far into a long episode that
    spacing alone exceeds 1e-4 s.
    """
    timestamps, episode_indices = np.asarray(timestamps), np.asarray(episode_indices)
    if timestamps.shape != episode_indices.shape:
        raise ValueError(f"timestamps {timestamps.shape} and episode indices {episode_indices.shape} differ in shape.")
    steps = np.diff(timestamps.astype(np.float64))
    slack = tolerance_s + np.spacing(np.abs(timestamps[1:]).astype(np.float32)).astype(np.float64)
    wrong = np.abs(steps - 1 / fps) > slack
    inner_ends = np.asarray(episode_data_index["to"])[:-1]
    wrong[inner_ends - 1] = False
    if not wrong.any():
        return True
    if not raise_value_error:
        return False
    examples = [
        {
            "timestamps": timestamps[i : i + 2].tolist(),
            "diff": steps[i],
            "episode_index": int(episode_indices[i]),
        }
        for i in np.flatnonzero(wrong)[:5]
    ]
    raise ValueError(
        f"{int(wrong.sum())} pairs of successive timestamps are not 1/fps = {1 / fps:.6f} s apart (tolerance "
        f"{tolerance_s} s). First ones: {examples}. Correct fps in {INFO_PATH} or the timestamps, or raise "
        f"tolerance_s."
    )


def check_delta_timestamps(
    delta_timestamps: Mapping[str, list[float]],
    fps: float,
    tolerance_s: float,
    raise_value_error: bool = True,
) -> bool:
    """True if every delta is a multiple of 1/fps within `tolerance_s` (ValueError or False otherwise)."""
    wrong = {
        key: bad
        for key, deltas in delta_timestamps.items()
        if (bad := [delta for delta in deltas if abs(delta * fps - round(delta * fps)) / fps > tolerance_s])
    }
    if wrong and raise_value_error:
        raise ValueError(f"delta_timestamps must be multiples of 1/fps = {1 / fps:.6f} s; these are not: {wrong}.")
    return not wrong


def get_delta_indices(delta_timestamps: Mapping[str, list[float]], fps: float) -> dict[str, list[int]]:
    """Seconds to frames."""
    return {key: [round(delta * fps) for delta in deltas] for key, deltas in delta_timestamps.items()}


def cycle(iterable: Iterable) -> Iterator:
    """Iterate over `iterable` again and again, calling iter() on it each time."""
    while True:
        yield from iterable
