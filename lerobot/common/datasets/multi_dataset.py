"""Several datasets read as one."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lerobot.common.constants import HF_LEROBOT_HOME
from lerobot.common.datasets.compute_stats import aggregate_stats
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset


class MultiLeRobotDataset(torch.utils.data.Dataset):
    """The frames of `repo_ids` one after the other, each in `root/<repo_id>` (default HF_LEROBOT_HOME).

    Only features that all of them have are kept; the others are `disabled_features`. `episodes` and
    `tolerances_s` {repo_id: ...}. An item has `dataset_index` in addition; `stats` describes all datasets.
    Raises RuntimeError if they have nothing but bookkeeping in common, or frame rates differ.
    """

    def __init__(
        self,
        repo_ids: Sequence[str],
        root: str | Path | None = None,
        episodes: dict[str, list[int]] | None = None,
        image_transforms: Callable | None = None,
        delta_timestamps: dict[str, list[float]] | None = None,
        tolerances_s: dict[str, float] | None = None,
        download_videos: bool = True,
        video_backend: str | None = None,
    ):
        self.repo_ids, self.root = list(repo_ids), Path(root) if root else HF_LEROBOT_HOME
        self.delta_timestamps = delta_timestamps
        self._datasets = [
            LeRobotDataset(
                repo_id,
                root=self.root / repo_id,
                episodes=(episodes or {}).get(repo_id),
                image_transforms=image_transforms,
                delta_timestamps=delta_timestamps,
                tolerance_s=(tolerances_s or {}).get(repo_id, 1e-4),
                download_videos=download_videos,
                video_backend=video_backend,
            )
            for repo_id in self.repo_ids
        ]
        self.disabled_features = self._find_disabled_features()
        kept = [{k: v for k, v in d.meta.stats.items() if k not in self.disabled_features} for d in self._datasets]
        self.stats: dict[str, dict[str, np.ndarray]] = aggregate_stats(kept)
        self._ends = list(accumulate(len(dataset) for dataset in self._datasets))

    def _find_disabled_features(self) -> set[str]:
        common = set.intersection(*[set(dataset.features) for dataset in self._datasets])
        if not any(key == "action" or key.startswith("observation") for key in common):
            raise RuntimeError(f"The datasets {self.repo_ids} have neither observations nor actions in common.")
        rates = {repo_id: dataset.fps for repo_id, dataset in zip(self.repo_ids, self._datasets, strict=True)}
        if len(set(rates.values())) > 1:
            raise RuntimeError(f"The datasets have different frame rates: {rates}.")
        disabled = set()
        for repo_id, dataset in zip(self.repo_ids, self._datasets, strict=True):
            if extra := sorted(set(dataset.features) - common):
                logging.warning("Features %s of '%s' are left out: not every dataset has them.", extra, repo_id)
                disabled.update(extra)
        return disabled

    @property
    def repo_id_to_index(self) -> dict[str, int]:
        """Number of each dataset, as in an item's `dataset_index`."""
        return {repo_id: index for index, repo_id in enumerate(self.repo_ids)}

    @property
    def repo_index_to_id(self) -> dict[int, str]:
        """The inverse of `repo_id_to_index`."""
        return dict(enumerate(self.repo_ids))

    @property
    def fps(self) -> int | float:
        """Frames per second of all datasets."""
        return self._datasets[0].fps

    @property
    def features(self) -> dict[str, dict]:
        """Features of an item."""
        return {k: v for k, v in self._datasets[0].features.items() if k not in self.disabled_features}

    @property
    def camera_keys(self) -> list[str]:
        """Cameras of an item."""
        return [key for key in self._datasets[0].meta.camera_keys if key not in self.disabled_features]

    @property
    def video_frame_keys(self) -> list[str]:
        """Cameras stored as videos."""
        return [key for key in self._datasets[0].meta.video_keys if key not in self.disabled_features]

    @property
    def num_frames(self) -> int:
        """Frames of all datasets."""
        return self._ends[-1] if self._ends else 0

    @property
    def num_episodes(self) -> int:
        """Episodes of all datasets."""
        return sum(dataset.num_episodes for dataset in self._datasets)

    @property
    def tolerance_s(self) -> float:
        """Just below one frame: how far deltas may be from a frame, as LeRobot has it."""
        return 1 / self.fps - 1e-4

    def __len__(self) -> int:
        return self.num_frames

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"Frame {index} is outside of 0 to {len(self) - 1}.")
        index %= len(self)
        number = bisect_right(self._ends, index)
        first = self._ends[number - 1] if number else 0
        item = self._datasets[number][index - first]
        unwanted = self.disabled_features | {f"{key}_is_pad" for key in self.disabled_features}
        item = {key: value for key, value in item.items() if key not in unwanted}
        return {**item, "dataset_index": torch.tensor(number)}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.repo_ids}, frames={self.num_frames}, features={list(self.features)})"
