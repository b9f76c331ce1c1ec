"""From a robot's readings to the batch that a policy sees, and from its action back to the robot's parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from lerobot.common.constants import ACTION, OBS_STR, TASK
from lerobot.configs.types import FeatureType, PolicyFeature


def prepare_observation_for_inference(
    observation: Mapping[str, np.ndarray],
    device: torch.device | str,
    task: str | None = None,
    robot_type: str | None = None,
) -> dict[str, Any]:
    """A batch of one from arrays: pictures uint8 (H, W, C) become float32 (1, C, H, W) in [0, 1]."""
    batch: dict[str, Any] = {}
    for name, array in observation.items():
        value = torch.from_numpy(array)
        if "image" in name:
            value = value.permute(2, 0, 1).contiguous()
            value = value.to(torch.float32) / 255 if value.dtype is torch.uint8 else value.to(torch.float32)
        batch[name] = value.unsqueeze(0).to(device)
    return {**batch, TASK: task or "", "robot_type": robot_type or ""}


def build_inference_frame(
    observation: Mapping[str, Any],
    device: torch.device | str,
    ds_features: dict[str, dict],
    task: str | None = None,
    robot_type: str | None = None,
) -> dict[str, Any]:
    """A batch of one from a robot's values by part, arranged as the dataset's features are."""
    from lerobot.common.datasets.feature_utils import build_dataset_frame

    frame = build_dataset_frame(ds_features, observation, OBS_STR)
    return prepare_observation_for_inference(frame, device, task, robot_type)


def make_robot_action(action_tensor: torch.Tensor, ds_features: dict[str, dict]) -> dict[str, float]:
    """(A,) or (1, A) -> {part: value}, named as the dataset's action; ValueError for another width."""
    values, names = action_tensor.detach().reshape(-1).tolist(), ds_features[ACTION]["names"]
    if len(values) != len(names):
        raise ValueError(f"The action has {len(values)} values, the dataset's has {len(names)}: {names}.")
    return dict(zip(names, values, strict=True))


def raise_feature_mismatch_error(provided_features: set[str], expected_features: set[str]) -> None:
    """ValueError with what is missing and what is too much."""
    missing, extra = sorted(expected_features - provided_features), sorted(provided_features - expected_features)
    raise ValueError(
        f"Feature mismatch between dataset/environment and policy config. Missing features: {missing}. Extra "
        f'features: {extra}. Use --rename_map={{"<name here>": "<name of the checkpoint>"}}.'
    )


def validate_visual_features_consistency(cfg, features: dict[str, PolicyFeature]) -> None:
    """ValueError unless the cameras of one side are among those of the other."""
    wanted = {name for name, f in cfg.input_features.items() if f.type is FeatureType.VISUAL}
    given = {name for name, f in features.items() if f.type is FeatureType.VISUAL}
    if not (wanted <= given or given <= wanted):
        raise_feature_mismatch_error(given, wanted)
