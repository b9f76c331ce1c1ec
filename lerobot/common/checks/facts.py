"""What dataset, checkpoint and robot say about themselves, side by side in one form, so that they can be compared."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from lerobot.common.checks.devices import calibrated_units
from lerobot.common.checks.robot import recorded_units
from lerobot.common.constants import ACTION, OBS_IMAGES, OBS_STATE
from lerobot.common.evaluation.open_loop import joint_names
from lerobot.configs.types import FeatureType


@dataclass
class Facts:
    """One side of a comparison. What is not known is None or empty; `label` is what messages call it.

    cameras: key -> (C, H, W). stats: feature -> statistic -> array. sizes: width of state and action.
    """

    label: str
    cameras: dict[str, tuple[int, ...]] = field(default_factory=dict)
    joints: list[str] = field(default_factory=list)  # of the action
    sizes: dict[str, int] = field(default_factory=dict)
    fps: float | None = None
    units: str | None = None
    tasks: list[str] = field(default_factory=list)
    stats: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    episode_lengths: list[int] = field(default_factory=list)

    @property
    def median_episode(self) -> float:
        """Frames of the middle episode; 0 without episodes."""
        return statistics.median(self.episode_lengths) if self.episode_lengths else 0.0


def dataset_facts(meta) -> Facts:
    """Of a LeRobotDatasetMetadata."""
    from lerobot.common.datasets.utils import dataset_to_policy_features

    features = dataset_to_policy_features(meta.features)
    named = ACTION in meta.features and meta.features[ACTION].get("names")
    return Facts(
        label=f"the dataset {meta.root}",
        cameras={k: tuple(f.shape) for k, f in features.items() if f.type is FeatureType.VISUAL},
        joints=joint_names(meta.features[ACTION]) if named else [],
        sizes={k: features[k].shape[0] for k in (OBS_STATE, ACTION) if k in features},
        fps=meta.fps,
        units=recorded_units(meta.info.get("units"), meta.features.get(ACTION, {}), meta.stats),
        tasks=list(meta.tasks.values()),
        stats=_arrays(meta.stats),
        episode_lengths=[row["length"] for row in meta.episodes.values()],
    )


def checkpoint_facts(folder, config, stats: dict, record: dict[str, Any] | None) -> Facts:
    """Of a checkpoint: its configuration, its processors' statistics, and its training record where it has one."""
    dataset = (record or {}).get("dataset", {})
    features = {**config.input_features, **config.output_features}
    action = dataset.get("features", {}).get(ACTION, {})
    return Facts(
        label=f"the checkpoint {folder}",
        cameras={k: tuple(f.shape) for k, f in features.items() if f.type is FeatureType.VISUAL},
        joints=joint_names(action) if action.get("names") else [],
        sizes={k: features[k].shape[0] for k in (OBS_STATE, ACTION) if k in features},
        fps=dataset.get("fps"),
        units=recorded_units(dataset.get("units"), action, dataset.get("stats", {})),
        tasks=dataset.get("tasks", []),
        stats=_arrays(stats),
    )


def robot_facts(config) -> Facts:
    """Of the configuration of a robot with arms and cameras and its calibration files (no device is touched)."""
    joints = [f"{arm}_{motor}" for arm, bus in config.follower_arms.items() for motor in bus.motors]
    cameras = {
        f"{OBS_IMAGES}.{name}": (3, camera.height, camera.width)
        for name, camera in config.cameras.items()
        if getattr(camera, "height", None)
    }
    rates = {camera.fps for camera in config.cameras.values() if getattr(camera, "fps", None)}
    return Facts(
        label=f"the robot {config.type}",
        cameras=cameras,
        joints=joints,
        sizes=dict.fromkeys((OBS_STATE, ACTION), len(joints)),
        fps=min(rates, default=None),
        units=calibrated_units(config),
    )


def _arrays(stats: dict) -> dict[str, dict[str, np.ndarray]]:
    return {
        key: {name: torch.as_tensor(value).double().numpy() for name, value in entry.items()}
        for key, entry in stats.items()
    }
