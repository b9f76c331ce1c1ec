"""Open-loop error: what a policy would have done in recorded episodes, against what was done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lerobot.common.constants import ACTION, ACTION_IS_PAD, OBS_STATE
from lerobot.common.datasets.collate import collate
from lerobot.common.processor.images import images_to_float
from lerobot.common.utils.io_utils import atomic_path, write_json


@dataclass
class OpenLoopReport:
    """Predicted and recorded chunks of N frames, T steps ahead, in the units of the recording.

    `valid` is false for steps after the end of the episode; they take no part in any error. `state` is the
    measured state of each frame where it has the width of the action, else None. `probed` has what was predicted
    with each of the probes instead (N, T, A). `str()` gives a table for the terminal.
    """

    episode_index: np.ndarray  # (N,)
    frame_index: np.ndarray  # (N,)
    predicted: np.ndarray  # (N, T, A)
    recorded: np.ndarray  # (N, T, A)
    valid: np.ndarray  # (N, T)
    joints: list[str]
    state: np.ndarray | None = None  # (N, A)
    probed: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def absolute_error(self) -> np.ndarray:
        """|predicted - recorded| (N, T, A), NaN where a step is not valid."""
        return np.where(self.valid[..., None], np.abs(self.predicted - self.recorded), np.nan)

    @property
    def overall(self) -> float:
        """Mean absolute error over valid steps and joints."""
        return float(np.nanmean(self.absolute_error))

    @property
    def per_joint(self) -> np.ndarray:
        """Mean absolute error of each joint (A,)."""
        return np.nanmean(self.absolute_error, axis=(0, 1))

    @property
    def by_horizon(self) -> np.ndarray:
        """Mean absolute error of each joint at each step ahead (T, A), NaN where no frame has that step."""
        count = self.valid.sum(axis=0)[:, None]
        return np.where(count > 0, np.nansum(self.absolute_error, axis=0) / np.maximum(count, 1), np.nan)

    @property
    def steps(self) -> int:
        """How many steps ahead any frame has."""
        return int(self.valid.any(axis=0).sum())

    @property
    def holding_still(self) -> float | None:
        """The error of a policy that always commands the present state, to compare with; None without a
        state.
        """
        if self.state is None:
            return None
        return float(np.abs(self.recorded - self.state[:, None])[self.valid].mean())

    @property
    def holding_still_by_horizon(self) -> np.ndarray | None:
        """The same at each of `steps` steps ahead (T,)."""
        if self.state is None:
            return None
        error = np.abs(self.recorded - self.state[:, None]).mean(axis=2)
        return np.array([error[self.valid[:, step], step].mean() for step in range(self.steps)])

    def first(self, steps: int) -> OpenLoopReport:
        """The same report without what lies more than `steps` steps ahead, to compare chunks of different lengths."""
        cut = {name: getattr(self, name)[:, :steps] for name in ("predicted", "recorded", "valid")}
        return replace(self, **cut, probed={name: chunk[:, :steps] for name, chunk in self.probed.items()})

    def to_dict(self) -> dict[str, Any]:
        """The errors as plain numbers; steps ahead that no frame has are null."""
        at_step = self.by_horizon.mean(axis=1)
        return {
            "overall": self.overall,
            "per_joint": dict(zip(self.joints, self.per_joint.tolist(), strict=True)),
            "by_horizon": [None if np.isnan(error) else float(error) for error in at_step],
            "holding_still": self.holding_still,
            "n_frames": len(self.frame_index),
            "episodes": sorted(set(self.episode_index.tolist())),
        }

    def save_json(self, path: str | Path) -> None:
        """Write `to_dict`."""
        write_json(self.to_dict(), path, indent=2)

    def save_parquet(self, path: str | Path) -> None:
        """Write one row per frame and valid step ahead: episode_index, frame_index, step, predicted,
        recorded.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        frame, step = np.nonzero(self.valid)
        columns = {
            "episode_index": self.episode_index[frame],
            "frame_index": self.frame_index[frame],
            "step": step,
            "predicted": list(self.predicted[frame, step]),
            "recorded": list(self.recorded[frame, step]),
        }
        with atomic_path(path) as partial:
            pq.write_table(pa.table(columns), partial)

    def __str__(self) -> str:
        horizon = self.by_horizon
        length = self.steps
        steps = sorted({1, min(10, length), length})
        columns = [self.per_joint, *(horizon[step - 1] for step in steps)]
        width = max(len(name) for name in [*self.joints, "holding still"])
        heads = ["all steps", *(f"step {step}" for step in steps)]
        episodes = len(set(self.episode_index.tolist()))
        lines = [
            f"Open-loop action error: mean |predicted - recorded|, {len(self.frame_index)} frames of "
            f"{episodes} episodes",
            f"  {'':<{width}}" + "".join(f"{head:>11}" for head in heads),
        ]
        for i, name in enumerate(self.joints):
            lines.append(f"  {name:<{width}}" + "".join(f"{column[i]:>11.3f}" for column in columns))
        lines.append(f"  {'mean':<{width}}" + "".join(f"{column.mean():>11.3f}" for column in columns))
        if self.holding_still is not None:
            lines.append(f"  {'holding still':<{width}}{self.holding_still:>11.3f}")
        return "\n".join(lines)


@torch.inference_mode()
def open_loop_error(
    policy,
    preprocessor,
    postprocessor,
    dataset,
    episodes: Sequence[int] | None = None,
    *,
    every: int = 15,
    batch_size: int = 32,
    seed: int = 0,
    probes: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] | None = None,
) -> OpenLoopReport:
    """Predict a chunk at every `every`-th frame of recorded episodes and compare it with what was recorded.

    `dataset` is a LeRobotDataset with the time windows that the policy trains with; `episodes` (None: all)
    selects among the loaded ones. The policy sees the frame and nothing of its own past. `seed` fixes the
    noise of policies that draw some. Each of `probes` changes a batch of frames as the dataset gives it
    (uint8 pictures, state and sentences), and the policy predicts that, too, with the same noise. Raises
    ValueError if the dataset has no action window or none of the episodes.
    """
    rows = _frame_rows(dataset, episodes, every)
    device = torch.device(policy.config.device)
    deltas = policy.config.action_delta_indices or [0]
    parts: dict[str, list[Tensor]] = {}
    policy.eval()
    policy.reset()

    def predict(number: int, batch: dict[str, Any]) -> Tensor:
        torch.manual_seed(seed + number)
        chunk = policy.predict_action_chunk(preprocessor(images_to_float(batch)))
        if not torch.isfinite(chunk).all():
            raise ValueError("The policy predicts actions that are not finite: its weights, or statistics, hold NaN.")
        return _in_recorded_units(chunk, postprocessor)

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for number, batch in enumerate(DataLoader(dataset, batch_size, sampler=rows, collate_fn=collate)):
            if ACTION_IS_PAD not in batch:
                raise ValueError(
                    f"The dataset gives one action per frame; pass delta_timestamps with '{ACTION}' for the "
                    f"policy's {len(deltas)} steps (make_dataset does)."
                )
            # A policy may also learn actions before the frame; its predictions start at the frame.
            now = deltas.index(0)
            recorded, is_pad = batch[ACTION][:, now:], batch[ACTION_IS_PAD][:, now:]
            predicted = predict(number, batch)
            length = min(predicted.shape[1], recorded.shape[1])
            piece = {
                "episode_index": batch["episode_index"].flatten(),
                "frame_index": batch["frame_index"].flatten(),
                "predicted": predicted[:, :length],
                "recorded": recorded[:, :length],
                "valid": ~is_pad[:, :length],
            }
            if OBS_STATE in batch and batch[OBS_STATE].shape[-1] == recorded.shape[-1]:
                state = batch[OBS_STATE]
                seen = policy.config.observation_delta_indices or [0]
                piece["state"] = state if state.ndim == 2 else state[:, seen.index(0)]
            for name, change in (probes or {}).items():
                piece[f"probe {name}"] = predict(number, change(batch))[:, :length]
            for key, value in piece.items():
                parts.setdefault(key, []).append(value.cpu())
    arrays = {key: torch.cat(values).numpy() for key, values in parts.items()}
    probed = {name: arrays.pop(f"probe {name}") for name in probes or {}}
    return OpenLoopReport(joints=joint_names(dataset.features[ACTION]), probed=probed, **arrays)


def executed_steps(config) -> int:
    """How many actions of a chunk a policy carries out before it plans again (VQ-BeT: all of them)."""
    return getattr(config, "n_action_steps", None) or getattr(config, "action_chunk_size", 1)


def _frame_rows(dataset, episodes: Sequence[int] | None, every: int) -> list[int]:
    index = dataset.episode_data_index
    spans = zip(dataset.episode_indices, index["from"].tolist(), index["to"].tolist(), strict=True)
    rows = [
        row
        for episode, first, end in spans
        if episodes is None or episode in episodes
        for row in range(first, end, every)
    ]
    if not rows:
        raise ValueError(f"None of the episodes {episodes} is loaded; the dataset has {dataset.episode_indices}.")
    return rows


def _in_recorded_units(chunk: Tensor, postprocessor) -> Tensor:
    """Postprocess a chunk (B, T, A) step by step, as it would be executed."""
    return torch.stack([postprocessor(step) for step in chunk.float().unbind(dim=1)], dim=1)


def joint_names(feature: dict[str, Any]) -> list[str]:
    """One name per component of a vector feature; datasets store a list, a dict with one list, or nothing."""
    names = feature.get("names")
    if isinstance(names, dict):
        names = [name for group in names.values() for name in group]
    width = feature["shape"][0]
    return [str(name) for name in names] if names and len(names) == width else [f"joint_{i}" for i in range(width)]
