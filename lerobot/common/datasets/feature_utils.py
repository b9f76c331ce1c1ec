"""Between what a robot names its parts and the features of a dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lerobot.common.constants import ACTION, OBS_IMAGES, OBS_PREFIX, OBS_STATE, OBS_STR
from lerobot.common.datasets.utils import DEFAULT_FEATURES, PICTURE_DTYPES, feature_problems, presence_problems
from lerobot.configs.types import FeatureType, PipelineFeatureType, PolicyFeature

PREFIXES = (f"{ACTION}.", f"{OBS_STATE}.", "state.", f"{OBS_IMAGES}.", "images.")
Parts = Mapping[str, Any]  # name -> float, (height, width, channels), or a PolicyFeature


def hw_to_dataset_features(hw_features: Parts, prefix: str, use_video: bool = True) -> dict[str, dict]:
    """Dataset features of a robot's parts: numbers become one vector, pictures a feature each.

    `prefix` is "action" or "observation". A part is `float` (or a PolicyFeature that is no picture) for a
    number, (height, width, channels) for a camera.
    """
    features: dict[str, dict] = {}
    numbers = [name for name, kind in hw_features.items() if _is_number(kind)]
    vector = {ACTION: ACTION, OBS_STR: OBS_STATE}.get(prefix)
    if numbers and vector:
        features[vector] = {"dtype": "float32", "shape": (len(numbers),), "names": numbers}
    for name, shape in hw_features.items():
        if isinstance(shape, tuple):
            features[f"{prefix}.images.{name}"] = {
                "dtype": "video" if use_video else "image",
                "shape": shape,
                "names": ["height", "width", "channels"],
            }
    return features


def _is_number(kind: Any) -> bool:
    return kind is float or (isinstance(kind, PolicyFeature) and kind.type is not FeatureType.VISUAL)


def build_dataset_frame(ds_features: dict[str, dict], values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The features under `prefix` of one frame, from a robot's values by part; KeyError for a missing part."""
    frame = {}
    for key, feature in ds_features.items():
        if key in DEFAULT_FEATURES or not key.startswith(prefix):
            continue
        if feature["dtype"] in PICTURE_DTYPES:
            frame[key] = values[key.removeprefix(f"{prefix}.images.")]
        elif feature["dtype"] == "float32" and len(feature["shape"]) == 1:
            frame[key] = np.array([values[name] for name in feature["names"]], dtype=np.float32)
    return frame


def combine_feature_dicts(*dicts: dict[str, dict]) -> dict[str, dict]:
    """The union of feature dictionaries; a vector in several of them gets all their names, once each.

    Of other features the last one counts. Raises ValueError where vectors differ in dtype.
    """
    combined: dict[str, dict] = {}
    for key, feature in ((k, f) for features in dicts for k, f in features.items()):
        old = combined.get(key)
        if old is None or not _is_vector(feature):
            combined[key] = dict(feature)
            continue
        if old["dtype"] != feature["dtype"]:
            raise ValueError(f"dtype mismatch for '{key}': {old['dtype']} vs {feature['dtype']}.")
        names = list(dict.fromkeys([*old["names"], *feature["names"]]))
        combined[key] = {**old, "names": names, "shape": (len(names),)}
    return combined


def _is_vector(feature: dict) -> bool:
    return feature["dtype"] not in (*PICTURE_DTYPES, "string") and len(feature["shape"]) == 1


# --- what a pipeline makes of a robot's parts ---------------------------------------------------------------


def create_initial_features(
    action: Parts | None = None, observation: Parts | None = None
) -> dict[PipelineFeatureType, dict[str, Any]]:
    """A robot's parts by side, as `transform_features` of a pipeline takes them."""
    return {PipelineFeatureType.ACTION: dict(action or {}), PipelineFeatureType.OBSERVATION: dict(observation or {})}


def aggregate_pipeline_dataset_features(
    pipeline,
    initial_features: dict[PipelineFeatureType, dict[str, Any]],
    *,
    use_videos: bool = True,
    patterns: Sequence[str] | None = None,
) -> dict[str, dict]:
    """Dataset features of what comes out of a pipeline; `patterns` (regular expressions) choose the numbers.

    Without `use_videos` the pictures are left out.
    """
    features: dict[str, dict] = {}
    for side, prefix in ((PipelineFeatureType.ACTION, ACTION), (PipelineFeatureType.OBSERVATION, OBS_STR)):
        parts = {}
        for name, kind in pipeline.transform_features(initial_features).get(side, {}).items():
            is_picture = isinstance(kind, tuple)
            if use_videos if is_picture else _matches(name, patterns):
                parts[_without_prefix(name)] = kind
        features |= hw_to_dataset_features(parts, prefix, use_videos)
    return features


def _matches(name: str, patterns: Sequence[str] | None) -> bool:
    return patterns is None or any(re.search(pattern, name) for pattern in patterns)


def _without_prefix(name: str) -> str:
    return next((name.removeprefix(p) for p in PREFIXES if name.startswith(p)), name.removeprefix(OBS_PREFIX))


# --- what is wrong with a frame, as text --------------------------------------------------------------------


def validate_episode_buffer(episode_buffer: Mapping[str, Any], total_episodes: int, features: Mapping) -> None:
    """Raise unless a buffer is the next episode of a dataset, with frames in every feature.

    ValueError for a missing `size` or `task`, no frames, or other keys; NotImplementedError for another number.
    """
    if missing := [key for key in ("size", "task") if key not in episode_buffer]:
        raise ValueError(f"The episode buffer lacks {missing}.")
    if episode_buffer["episode_index"] != total_episodes:
        raise NotImplementedError(
            f"The episode buffer is number {episode_buffer['episode_index']}; the next episode is {total_episodes}."
        )
    if not episode_buffer["size"]:
        raise ValueError("An episode needs at least one frame; call add_frame() first.")
    if text := presence_problems(set(episode_buffer) - {"size", "task"}, set(features)):
        raise ValueError(text)


def validate_features_presence(
    actual_features: set[str], expected_features: set[str], optional_features: set[str] = frozenset()
) -> str:
    """What is missing from a frame and what it has too much; empty if nothing."""
    return presence_problems(actual_features, expected_features, optional_features)


def validate_feature_dtype_and_shape(name: str, feature: dict, value: Any) -> str:
    """What is wrong with a value; empty if nothing. Raises NotImplementedError for an unknown dtype."""
    dtype = feature["dtype"]
    if dtype not in (*PICTURE_DTYPES, "string"):
        try:
            np.dtype(dtype)
        except TypeError as e:
            raise NotImplementedError(f"Feature '{name}' has dtype '{dtype}', which numpy does not know.") from e
    return "".join(f"{problem}.\n" for problem in feature_problems(name, feature, value))


def validate_feature_numpy_array(name: str, expected_dtype: str, expected_shape: Sequence[int], value: Any) -> str:
    """What is wrong with an array; empty if nothing."""
    return validate_feature_dtype_and_shape(name, {"dtype": expected_dtype, "shape": expected_shape}, value)


def validate_feature_image_or_video(name: str, expected_shape: Sequence[int], value: Any) -> str:
    """What is wrong with a picture; empty if nothing."""
    return validate_feature_dtype_and_shape(name, {"dtype": "image", "shape": expected_shape}, value)


def validate_feature_string(name: str, value: Any) -> str:
    """What is wrong with a text; empty if nothing."""
    return validate_feature_dtype_and_shape(name, {"dtype": "string", "shape": (1,)}, value)
