"""Every check of a dataset in one pass: what is wrong with it, where, and the command that repairs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lerobot.common.checks import dataset_numbers as numbers
from lerobot.common.checks.dataset_videos import PictureCheck, check_video_times
from lerobot.common.checks.finding import Finding, Where
from lerobot.common.datasets.backward_compatibility import CompatibilityError
from lerobot.common.datasets.compute_stats import NO_QUANTILES, compute_episode_stats
from lerobot.common.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.common.datasets.frame_table import FrameTable
from lerobot.common.datasets.recompute import has_credible_std
from lerobot.common.datasets.utils import DatasetError
from lerobot.common.datasets.video_utils import VideoDecodeError, VideoReader

CHECK = "python lerobot/scripts/check_dataset.py"
EDIT = "python lerobot/scripts/edit_dataset.py"
STATS_TOLERANCE = 1e-3  # of the spread


class DatasetCheck:
    """Checks the dataset in `root`; `run` gives the findings in the order in which they are found.

    `chunk`: length of action chunks in frames. `decode`: also look at every picture. Nothing is changed or
    downloaded.
    """

    def __init__(self, root: str | Path, chunk: int = 50, decode: bool = True, tolerance_s: float = 1e-4):
        self.root, self.chunk, self.decode, self.tolerance_s = Path(root), chunk, decode, tolerance_s
        self.meta: LeRobotDatasetMetadata | None = None
        self.episodes: list[numbers.Episode] = []
        self._tables: dict[int, FrameTable] = {}

    def run(self) -> Iterator[Finding]:
        """All checks."""
        try:
            self.meta = LeRobotDatasetMetadata(root=self.root)
        except (DatasetError, CompatibilityError, OSError, KeyError, ValueError) as e:
            yield Finding("structure.metadata", "error", str(e), Where(file=str(self.root / "meta")))
            return
        yield from self._load()
        for episode in self.episodes:
            yield from numbers.check_time(episode, self.meta.fps, self.tolerance_s)
            yield from self._check_tasks(episode.index, episode.tasks)
            yield from numbers.check_length(episode, self.chunk)
        if self.episodes:
            yield from self._check_joints()
            yield from self._check_stats()
        yield from self._check_videos()
        yield from self._check_leftovers()

    def _load(self) -> Iterator[Finding]:
        first = 0
        for index, row in self.meta.episodes.items():
            try:
                table = FrameTable(self.meta.locate_rows([index]), self.meta.features)
                columns = {k: v.numpy() for k, v in table.columns.items() if isinstance(v, torch.Tensor)}
                wrong = set(columns["episode_index"].tolist()) - {index}
                if wrong:
                    raise DatasetError(f"Episode {index}: the column episode_index has {sorted(wrong)[:3]}.")
                unknown = set(columns["task_index"].tolist()) - set(self.meta.tasks)
                if unknown:
                    raise DatasetError(f"Episode {index}: task_index {sorted(unknown)} has no text.")
                tasks = [self.meta.tasks[i] for i in sorted(set(columns["task_index"].tolist()))]
                self.episodes.append(numbers.Episode(index, first, columns, tasks))
                self._tables[index] = table
            except (DatasetError, OSError, KeyError) as e:
                frame = getattr(e, "frame", None)
                code = "data.unreadable" if frame is None else "data.nan"
                yield Finding(code, "error", str(e), Where(index, frame), fix=self.delete_command(index))
                yield from self._check_tasks(index, row["tasks"])
            first += row["length"]

    def _check_tasks(self, episode: int, tasks: list[str]) -> Iterator[Finding]:
        fix = f'{EDIT} --root={self.root} --output=FOLDER --tasks=\'{{"": "WHAT IS DONE"}}\''
        yield from (replace(finding, fix=fix) for finding in numbers.check_tasks(episode, tasks))

    def delete_command(self, episode: int) -> str:
        """Leaves an episode out."""
        return f'{EDIT} --root={self.root} --output=FOLDER --delete="[{episode}]"'

    def joint_names(self, key: str) -> list[str]:
        names, width = self.meta.names[key], self.meta.shapes[key][0]
        names = next(iter(names.values())) if isinstance(names, dict) else names
        return list(names) if names and len(names) == width else [str(i) for i in range(width)]

    def _check_joints(self) -> Iterator[Finding]:
        keys = [k for k in numbers.ROBOT_KEYS if k in self.meta.features and len(self.meta.shapes[k]) == 1]
        keys = [k for k in keys if self.meta.shapes[k][0] > 1]
        for key in keys:
            names = self.joint_names(key)
            yield from numbers.check_joints(self.episodes, key, names)
            yield from numbers.check_jumps(self.episodes, key, names)
        if keys:
            yield from numbers.check_units(self.episodes, keys)
            span = numbers.joint_range(self.episodes, keys[0])
            for episode in self.episodes:
                yield from numbers.check_idle_ends(episode, keys[0], span, self.meta.fps)
        if len(keys) == 2 and len({self.meta.shapes[key] for key in keys}) == 1:
            yield from numbers.check_offset(self.episodes, self.joint_names(keys[1]), self.meta.fps)

    def _check_stats(self) -> Iterator[Finding]:
        fix = f"{CHECK} {self.root} --fix"
        for episode in self.episodes if self.meta.has_episode_stats else []:
            found = compute_episode_stats(episode.columns, self.meta.features, NO_QUANTILES)
            stored = self.meta.episodes_stats[episode.index]
            for key, values in found.items():
                if key in numbers.ROBOT_KEYS and (reason := _differs(values, stored.get(key))):
                    yield Finding("stats.outdated", "warning", reason, Where(episode.index, feature=key), fix=fix)
        for key in self.meta.camera_keys:
            if key not in self.meta.stats:
                yield Finding("stats.missing", "warning", "The camera has no statistics.", Where(feature=key), fix=fix)
            elif not has_credible_std(self.meta.stats[key]):
                text = "The stored std of the camera is far too small (as LeRobot 0.3.4 to 0.4.4 compute it)."
                evidence = {"std": np.asarray(self.meta.stats[key]["std"]).ravel().tolist()}
                yield Finding("stats.camera_std", "warning", text, Where(feature=key), evidence, fix)

    def _check_videos(self) -> Iterator[Finding]:
        for episode in self.episodes:
            for key in self.meta.camera_keys:
                found = list(self._check_camera(episode, key))
                yield from (
                    f if f.severity != "error" else replace(f, fix=self.delete_command(episode.index)) for f in found
                )

    def _check_camera(self, episode: numbers.Episode, key: str) -> Iterator[Finding]:
        index, fps = episode.index, self.meta.fps
        path = start = None
        if key in self.meta.video_keys:
            try:
                path, start = self.meta.video_file(index, key), self.meta.video_start(index, key)
            except (DatasetError, KeyError) as e:
                yield Finding("structure.path", "error", str(e), Where(index, feature=key))
                return
            end = self.meta.episodes[index].get(f"videos/{key}/to_timestamp")
            found = list(check_video_times(path, index, key, len(episode), fps, start, end, self.tolerance_s))
            yield from found
            if any(finding.severity == "error" for finding in found):
                return
        if self.decode:
            yield from self._check_pictures(episode, key, path, start)

    def _check_pictures(self, episode: numbers.Episode, key: str, path: Path | None, start: float | None):
        check = PictureCheck(episode.index, key, self.meta.fps, self._moving(episode))
        frame = 0
        try:
            for picture in self._pictures(episode, key, path, start):
                check.add(picture)
                frame += 1
        except (VideoDecodeError, DatasetError, ValueError) as e:
            yield Finding("video.undecodable", "error", str(e), Where(episode.index, frame, feature=key))
            return
        yield from check.findings()

    def _pictures(self, episode: numbers.Episode, key: str, path: Path | None, start: float | None):
        if path is None:
            column = self._tables[episode.index][key]
            return (column[row].permute(1, 2, 0).numpy() for row in range(len(episode)))
        reader = VideoReader(path)
        times = [start + time for time in episode.columns["timestamp"].tolist()]
        return (picture for _, picture in reader.scan(reader.nearest(times, self.tolerance_s)))

    def _moving(self, episode: numbers.Episode) -> np.ndarray:
        key = next((k for k in numbers.ROBOT_KEYS if k in episode.columns and episode.columns[k].ndim == 2), None)
        if key is None:
            return np.zeros(len(episode), dtype=bool)
        return ~numbers.still_frames(episode.columns[key], numbers.joint_range(self.episodes, key))

    def _check_leftovers(self) -> Iterator[Finding]:
        known = {self.meta.get_data_file_path(i) for i in self.meta.episodes}
        known |= {self.meta.get_video_file_path(i, k) for i in self.meta.episodes for k in self.meta.video_keys}
        present = {
            p.relative_to(self.root) for d in ("data", "videos") for p in (self.root / d).rglob("*.*") if p.is_file()
        }
        extra = sorted(str(path) for path in present - known)
        if extra and not self.meta.is_v30:
            text = f"{len(extra)} files belong to no episode, such as '{extra[0]}'."
            yield Finding("structure.extra_files", "info", text, evidence={"files": extra[:20]})


def _differs(found: dict, stored: dict | None) -> str | None:
    """Why stored statistics are not those of the frames, None if they are."""
    if stored is None:
        return "There are no statistics."
    spread = np.maximum(np.asarray(found["max"], dtype=np.float64) - found["min"], 1e-6)
    for name in ("min", "max", "mean", "std"):
        if name not in stored or np.shape(stored[name]) != np.shape(found[name]):
            return f"The stored {name} has shape {np.shape(stored.get(name))}, expected {np.shape(found[name])}."
        if (np.abs(np.asarray(stored[name], dtype=np.float64) - found[name]) > STATS_TOLERANCE * spread).any():
            new, old = np.round(np.ravel(found[name])[:3], 4), np.round(np.ravel(stored[name])[:3], 4)
            return f"The stored {name} is {old.tolist()}, that of the frames {new.tolist()}."
    return None


def check_dataset(root: str | Path, **options) -> list[Finding]:
    """All findings about the dataset in a folder; options of `DatasetCheck`."""
    return list(DatasetCheck(root, **options).run())


def findings_as_json(findings: list[Finding]) -> str:
    """A JSON list."""
    return json.dumps([finding.to_dict() for finding in findings], indent=2, ensure_ascii=False)
