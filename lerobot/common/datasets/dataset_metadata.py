"""What a dataset says about itself: the files under `meta/`."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path

from packaging.version import Version

from lerobot.common.constants import HF_LEROBOT_HOME
from lerobot.common.datasets.backward_compatibility import BackwardCompatibilityError
from lerobot.common.datasets.compute_stats import aggregate_stats
from lerobot.common.datasets.episode_tables import EpisodeTable, InfoDict, TaskTable
from lerobot.common.datasets.frame_table import EpisodeFile
from lerobot.common.datasets.hub_download import download_files
from lerobot.common.datasets.recovery import discard_unfinished
from lerobot.common.datasets.utils import (
    CODEBASE_VERSION,
    EPISODES_PATH,
    EPISODES_STATS_PATH,
    INFO_PATH,
    PICTURE_DTYPES,
    STATS_PATH,
    TASKS_PATH,
    DatasetError,
    append_jsonlines,
    backward_compatible_episodes_stats,
    check_version_compatibility,
    create_empty_dataset_info,
    get_features_from_robot,
    load_episodes,
    load_episodes_stats,
    load_info,
    load_stats,
    load_tasks,
    normalize_features,
    picture_size,
    resolve_inside,
    serialize_stats,
    write_info,
    write_jsonlines,
)
from lerobot.common.datasets.v30 import files as v30
from lerobot.common.datasets.video_utils import get_video_info

CHUNK_SETTINGS = ("chunks_size", "data_files_size_in_mb", "video_files_size_in_mb")


def dataset_folder(repo_id: str | None, root: str | Path | None) -> Path:
    """`root` if given, else `$HF_LEROBOT_HOME/<repo_id>`; ValueError without either."""
    if root:
        return Path(root).expanduser()
    if repo_id is None:
        raise ValueError(
            "Which dataset? Set --dataset.root to a folder, or --dataset.repo_id to a hub id 'owner/name'."
        )
    return HF_LEROBOT_HOME / repo_id


def takes_newer_order(names: str) -> Callable:
    """Let a `create(cls, repo_id, fps, ...)` take a dict in third place and after it what LeRobot 0.4 has there."""

    def decorate(create: Callable) -> Callable:
        @functools.wraps(create)
        def wrapper(cls, *args, **options):
            if len(args) > 2 and isinstance(args[2], dict):
                options |= dict(zip(names.split(), args[2:], strict=False))
                args = args[:2]
            return create(cls, *args, **options)

        return wrapper

    return decorate


class LeRobotDatasetMetadata:
    """Metadata of a v2.0, v2.1 or v3.0 dataset, read from `root` (any `repo_id`, None included), else from the hub.

    `stats` describes the whole dataset: {feature: {min, max, mean, std, count}} as float64 arrays, pictures
    (3, 1, 1) in [0, 1]. Raises FileNotFoundError when the dataset is nowhere, CompatibilityError for other
    format versions and DatasetError for contradictory files. `metadata_buffer_size` of LeRobot 0.4 has no effect:
    an episode is on disk when it is saved. Where only the file of the statistics is missing there are none
    (`lacks_stats`), with a warning.
    """

    lacks_stats = False

    def __init__(
        self,
        repo_id: str | None = None,
        root: str | Path | None = None,
        revision: str | None = None,
        force_cache_sync: bool = False,
        metadata_buffer_size: int = 1,
    ):
        self.repo_id, self.revision = repo_id, revision or CODEBASE_VERSION
        self._episodes_stats: dict[int, dict] | None = None
        self.root = dataset_folder(repo_id, root)
        try:
            if force_cache_sync:
                raise FileNotFoundError(self.root)
            self._load()
        except (FileNotFoundError, NotADirectoryError) as e:
            missing = e.filename or self.root
            try:
                download_files(repo_id, self.root, self.revision, missing, allow_patterns="meta/")
            except FileNotFoundError:
                if Path(missing) not in (self.root / EPISODES_STATS_PATH, self.root / STATS_PATH):
                    raise
                self.lacks_stats = True
                fix = f"python lerobot/scripts/check_dataset.py {self.root} --fix"
                logging.warning(
                    "'%s' does not exist; the dataset is read without statistics. Compute: %s", missing, fix
                )
            self._load()
        if revision is None:  # what is missing comes from the version that is on disk
            self.revision = self.info["codebase_version"]

    def _load(self) -> None:
        if not (self.root / INFO_PATH).exists() and (self.root / "meta_data" / "info.json").exists():
            raise BackwardCompatibilityError(str(self.root), Version("1.6"))
        self.info = InfoDict(load_info(self.root))
        check_version_compatibility(self.repo_id or str(self.root), self._version)
        self._check_files_fit_version()
        if discard_unfinished(self.root):
            self.info = InfoDict(load_info(self.root))
        if self.is_v30 and self.total_episodes == 0:
            self._set_tasks({})
            listed = {}
        elif self.is_v30:
            self._set_tasks(v30.load_tasks(self.root))
            listed = v30.load_episodes(self.root)
        else:
            self._set_tasks(load_tasks(self.root)[0])
            listed = load_episodes(self.root)
        # Rows beyond info.json belong to an episode that is just being saved.
        self.episodes = EpisodeTable((index, row) for index, row in listed.items() if index < self.total_episodes)
        self._check_episodes()
        self._load_stats()

    def _set_tasks(self, tasks: dict[int, str]) -> None:
        self.tasks = TaskTable(tasks)
        self.task_to_task_index = {task: index for index, task in tasks.items()}

    def _check_files_fit_version(self) -> None:
        """DatasetError if info.json names a version whose files are not there, but those of another one."""
        old, new = (self.root / EPISODES_PATH).exists(), (self.root / v30.DEFAULT_TASKS_PATH).exists()
        if old != new and new != self.is_v30:
            written = "v3.0" if new else "v2.1 or v2.0"
            raise DatasetError(
                f"'{self.root / INFO_PATH}' says codebase_version {self.info['codebase_version']}, but the files "
                f"are those of {written}; correct codebase_version."
            )

    def _load_stats(self) -> None:
        if self.lacks_stats:
            self.stats, self._episodes_stats = {}, {index: {} for index in self.episodes}
        elif self.is_v30:
            if not self.total_episodes:
                self.stats, self._episodes_stats = {}, {}
            elif (self.root / STATS_PATH).exists():
                self.stats = load_stats(self.root)
            else:
                self.stats = self._aggregate(self.episodes_stats)
        elif not self.has_episode_stats:
            self.stats = load_stats(self.root)
            self._episodes_stats = backward_compatible_episodes_stats(dict(self.stats), self.episodes)
        else:
            self.stats = self._aggregate(self.episodes_stats)

    def _aggregate(self, episodes_stats: dict[int, dict]) -> dict[str, dict]:
        return aggregate_stats([stats for stats in episodes_stats.values() if stats])

    @property
    def episodes_stats(self) -> dict[int, dict[str, dict]]:
        """Statistics of each episode; those of v3.0 are read when they are first asked for."""
        if self._episodes_stats is None:
            stats = (v30.load_episodes_stats if self.is_v30 else load_episodes_stats)(self.root)
            if lacking := [index for index in self.episodes if index not in stats]:
                place = v30.EPISODES_DIR if self.is_v30 else EPISODES_STATS_PATH
                raise DatasetError(f"'{self.root / place}' lacks episodes {lacking[:10]}.")
            self._episodes_stats = {index: stats[index] for index in self.episodes}
        return self._episodes_stats

    def _check_episodes(self) -> None:
        path = self.root / (v30.EPISODES_DIR if self.is_v30 else EPISODES_PATH)
        if lacking := [index for index in range(self.total_episodes) if index not in self.episodes]:
            raise DatasetError(f"'{path}' lacks episodes {lacking[:10]}; info.json has {self.total_episodes}.")
        frames = sum(row["length"] for row in self.episodes.values())
        if frames != self.total_frames:
            raise DatasetError(
                f"'{path}': the lengths add up to {frames}, but total_frames in '{self.root / INFO_PATH}' is "
                f"{self.total_frames}."
            )

    @classmethod
    @takes_newer_order("features robot_type root use_videos")
    def create(
        cls,
        repo_id: str | None,
        fps: int,
        root: str | Path | None = None,
        robot=None,
        robot_type: str | None = None,
        features: dict | None = None,
        use_videos: bool = True,
        *,
        codebase_version: str = CODEBASE_VERSION,
        data_files_size_in_mb: int = v30.DEFAULT_DATA_FILE_SIZE_IN_MB,
        video_files_size_in_mb: int = v30.DEFAULT_VIDEO_FILE_SIZE_IN_MB,
    ) -> LeRobotDatasetMetadata:
        """Start a v2.1 or v3.0 dataset on disk; a dict in third place is taken as `features` (LeRobot 0.3 and later).

        FileExistsError if the folder exists; ValueError if features are missing or malformed.
        """
        if codebase_version not in (CODEBASE_VERSION, v30.V30):
            raise ValueError(
                f"codebase_version '{codebase_version}' cannot be written; expected '{CODEBASE_VERSION}' "
                f"or '{v30.V30}'."
            )
        meta = cls.__new__(cls)
        meta.repo_id, meta.root, meta.revision = repo_id, dataset_folder(repo_id, root), CODEBASE_VERSION
        if robot is not None:
            features, robot_type = get_features_from_robot(robot, use_videos), robot.robot_type
            for name, camera in robot.cameras.items():
                if camera.fps not in (None, fps):
                    logging.warning("Camera '%s' runs at %s fps, the dataset at %s.", name, camera.fps, fps)
        if features is None:
            raise ValueError("A new dataset needs features={name: {dtype, shape, names}}, or a robot that has them.")
        features = normalize_features(features)
        for key, feature in features.items():
            if feature["dtype"] in PICTURE_DTYPES:
                _check_picture_feature(key, feature, use_videos)
        if meta.root.exists():
            raise FileExistsError(
                f"'{meta.root}' exists; give another root, or open it with LeRobotDataset to add episodes."
            )
        meta.info = create_empty_dataset_info(codebase_version, fps, robot_type, features, use_videos)
        if meta.is_v30:
            meta.info = v30.as_v30_info(meta.info, data_files_size_in_mb, video_files_size_in_mb)
        meta.info = InfoDict(meta.info)
        meta._set_tasks({})
        meta.episodes, meta._episodes_stats, meta.stats = EpisodeTable(), {}, {}
        if not meta.is_v30:
            for name in (TASKS_PATH, EPISODES_PATH, EPISODES_STATS_PATH):
                write_jsonlines([], meta.root / name)
        write_info(meta.info, meta.root)
        return meta

    def add_task(self, task: str) -> int:
        """Number of a task text, a new one if it is unknown; written to disk by `save_episode`."""
        if task not in self.task_to_task_index:
            index = max(self.tasks, default=-1) + 1
            self.tasks[index], self.task_to_task_index[task] = task, index
        return self.task_to_task_index[task]

    def save_episode_tasks(self, tasks: list[str]) -> None:
        """Number the task texts of an episode; ValueError if one is there twice."""
        if len(set(tasks)) < len(tasks):
            raise ValueError(f"Tasks are given once each; found {tasks}.")
        for task in tasks:
            self.add_task(task)

    def save_episode(self, episode_index: int, length: int, tasks: list[str], stats: dict) -> None:
        """Count a v2.1 episode whose files are in place. `info.json` comes last: it decides what exists."""
        known_tasks = self.info["total_tasks"]
        for task in tasks:
            self.add_task(task)
        if len(self.tasks) > known_tasks:
            write_jsonlines(({"task_index": i, "task": t} for i, t in self.tasks.items()), self.root / TASKS_PATH)
        row = {"episode_index": episode_index, "tasks": tasks, "length": length}
        stats_row = {"episode_index": episode_index, "stats": serialize_stats(stats)}
        append_jsonlines(stats_row, self.root / EPISODES_STATS_PATH)
        append_jsonlines(row, self.root / EPISODES_PATH)
        self.update_video_info(episode_index)
        total = self.total_episodes + 1
        self.info.update(
            total_episodes=total,
            total_frames=self.total_frames + length,
            total_tasks=len(self.tasks),
            total_videos=total * len(self.video_keys),
            total_chunks=self.get_episode_chunk(total - 1) + 1,
            splits={"train": f"0:{total}"},
        )
        write_info(self.info, self.root)
        self.count_episode(row, stats)

    def uncount_last_episode(self) -> None:
        """Let `info.json` of a v2.1 dataset no longer count the newest episode; its files are left to be removed."""
        stats, total = dict(self.episodes_stats), self.total_episodes - 1
        row = self.episodes.pop(total)
        stats.pop(total)
        self._episodes_stats, self.stats = stats, self._aggregate(stats) if stats else {}
        self.info.update(
            total_episodes=total,
            total_frames=self.total_frames - row["length"],
            total_videos=total * len(self.video_keys),
            total_chunks=self.get_episode_chunk(total - 1) + 1 if total else 0,
            splits={"train": f"0:{total}"} if total else {},
        )
        write_info(self.info, self.root)

    def count_episode(self, row: dict, stats: dict) -> None:
        """Remember an episode that is on disk."""
        if self._episodes_stats is not None:
            self._episodes_stats[row["episode_index"]] = stats
        self.episodes[row["episode_index"]] = row
        self.stats = aggregate_stats([self.stats, stats] if self.stats else [stats])

    def update_video_info(self, episode_index: int) -> None:
        """Describe each camera's video in `features[key]["info"]`, once."""
        for key in self.video_keys:
            if not (self.features[key].get("info") or self.features[key].get("video_info")):
                self.features[key]["info"] = get_video_info(self.root / self.get_video_file_path(episode_index, key))

    # --- where files are ------------------------------------------------------------------------------------

    def get_episode_chunk(self, episode_index: int) -> int:
        """Number of the folder that holds an episode's files (v2.0, v2.1)."""
        return episode_index // self.chunks_size

    def get_data_file_path(self, ep_index: int) -> Path:
        """Parquet file of an episode, relative to the root."""
        return Path(self.data_path.format(**self._place(ep_index, "data")))

    def get_video_file_path(self, ep_index: int, vid_key: str) -> Path:
        """Video file of an episode and camera, relative to the root."""
        return Path(self.video_path.format(video_key=vid_key, **self._place(ep_index, f"videos/{vid_key}")))

    def _place(self, ep_index: int, columns: str) -> dict[str, int]:
        """The fields of a file name template."""
        if not self.is_v30:
            return {"episode_chunk": self.get_episode_chunk(ep_index), "episode_index": ep_index}
        if ep_index not in self.episodes:
            raise IndexError(f"Episode {ep_index} of '{self.root}' does not exist; it has {len(self.episodes)}.")
        row = self.episodes[ep_index]
        place = {name: row.get(f"{columns}/{name}") for name in ("chunk_index", "file_index")}
        if None in place.values():
            raise DatasetError(f"Episode {ep_index} has no {columns}/file_index in '{self.root / v30.EPISODES_DIR}'.")
        return place

    def video_start(self, ep_index: int, vid_key: str) -> float:
        """Seconds into its video file at which an episode begins."""
        return self.episodes[ep_index][f"videos/{vid_key}/from_timestamp"] if self.is_v30 else 0.0

    def locate_rows(self, ep_indices: list[int]) -> list[EpisodeFile]:
        """The parquet rows of episodes."""
        if not self.is_v30:
            return [EpisodeFile(i, self.episodes[i]["length"], self.data_file(i)) for i in ep_indices]
        named = {index: self.data_file(index) for index in ep_indices}
        places = v30.locate_episodes(self.root, self.episodes, ep_indices, named)
        return [EpisodeFile(i, self.episodes[i]["length"], *places[i]) for i in ep_indices]

    def data_file(self, ep_index: int) -> Path:
        """Full path of an episode's parquet file; DatasetError if it leaves the root."""
        return resolve_inside(self.root, self.get_data_file_path(ep_index))

    def video_file(self, ep_index: int, vid_key: str) -> Path:
        """Full path of an episode's video; DatasetError if it leaves the root."""
        return resolve_inside(self.root, self.get_video_file_path(ep_index, vid_key))

    def get_task_index(self, task: str) -> int | None:
        """Number of a task text, None if it is unknown."""
        return self.task_to_task_index.get(task)

    # --- fields of info.json --------------------------------------------------------------------------------

    @property
    def _version(self) -> Version:
        return Version(self.info["codebase_version"])

    @property
    def is_v30(self) -> bool:
        """Whether files hold several episodes (v3.0)."""
        return self._version.major == 3

    @property
    def has_episode_stats(self) -> bool:
        """Whether statistics are stored per episode (v2.1, v3.0) and not only for the whole dataset (v2.0)."""
        return self._version >= Version("2.1")

    @property
    def data_path(self) -> str:
        """Template of the parquet file names."""
        return self.info["data_path"]

    @property
    def video_path(self) -> str | None:
        """Template of the video file names."""
        return self.info["video_path"]

    @property
    def data_files_size_in_mb(self) -> int | None:
        """Size at which the next parquet file of v3.0 begins; None before, with a file for each episode."""
        return self.info.get("data_files_size_in_mb")

    @property
    def video_files_size_in_mb(self) -> int | None:
        """Size at which the next video file of v3.0 begins; None before, with a file for each episode."""
        return self.info.get("video_files_size_in_mb")

    def get_chunk_settings(self) -> dict[str, int | None]:
        """`chunks_size` and the sizes of files in MB."""
        return {name: getattr(self, name) for name in CHUNK_SETTINGS}

    def update_chunk_settings(
        self,
        chunks_size: int | None = None,
        data_files_size_in_mb: int | None = None,
        video_files_size_in_mb: int | None = None,
    ) -> None:
        """Change how a v3.0 dataset is divided into files from the next episode on; what is None stays."""
        values = chunks_size, data_files_size_in_mb, video_files_size_in_mb
        given = {name: value for name, value in zip(CHUNK_SETTINGS, values, strict=True) if value is not None}
        if bad := {name: value for name, value in given.items() if not value > 0}:
            raise ValueError(f"{bad}: expected values above 0.")
        if not self.is_v30:
            raise DatasetError(f"'{self.root}' is v{self._version}: its files hold one episode each.")
        self.info.update(given)
        write_info(self.info, self.root)

    @property
    def robot_type(self) -> str | None:
        """Robot that was recorded."""
        return self.info.get("robot_type")

    @property
    def fps(self) -> int | float:
        """Frames per second."""
        return self.info["fps"]

    @property
    def features(self) -> dict[str, dict]:
        """Every feature: {dtype, shape, names}."""
        return self.info["features"]

    @property
    def image_keys(self) -> list[str]:
        """Cameras stored as pictures in parquet."""
        return [key for key, feature in self.features.items() if feature["dtype"] == "image"]

    @property
    def video_keys(self) -> list[str]:
        """Cameras stored as videos."""
        return [key for key, feature in self.features.items() if feature["dtype"] == "video"]

    @property
    def camera_keys(self) -> list[str]:
        """All cameras, in feature order."""
        return [key for key, feature in self.features.items() if feature["dtype"] in ("image", "video")]

    @property
    def names(self) -> dict[str, list | dict | None]:
        """Names of the dimensions of each feature."""
        return {key: feature["names"] for key, feature in self.features.items()}

    @property
    def shapes(self) -> dict[str, tuple]:
        """Shape of each feature."""
        return {key: tuple(feature["shape"]) for key, feature in self.features.items()}

    @property
    def dtypes(self) -> dict[str, str]:
        """Type of each feature."""
        return {key: feature["dtype"] for key, feature in self.features.items()}

    @property
    def total_episodes(self) -> int:
        """Episodes in the dataset."""
        return self.info["total_episodes"]

    @property
    def total_frames(self) -> int:
        """Frames in the dataset."""
        return self.info["total_frames"]

    @property
    def total_tasks(self) -> int:
        """Different task texts."""
        return self.info.get("total_tasks", len(self.tasks))

    @property
    def total_chunks(self) -> int:
        """Folders that the episodes are spread over."""
        return -(-self.total_episodes // self.chunks_size)

    @property
    def chunks_size(self) -> int:
        """Episodes per folder."""
        return self.info.get("chunks_size", 1000)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(repo_id={self.repo_id!r}, root='{self.root}', fps={self.fps}, "
            f"episodes={self.total_episodes}, frames={self.total_frames}, features={list(self.features)})"
        )


def _check_picture_feature(key: str, feature: dict, use_videos: bool) -> None:
    channels, height, width = picture_size(feature)
    if channels != 3:
        raise ValueError(f"Picture feature '{key}' has shape {feature['shape']}; 3 channels are needed.")
    if feature["dtype"] == "video" and not use_videos:
        raise ValueError(f"Feature '{key}' has dtype video, but use_videos=False; use dtype 'image' for it.")
    if feature["dtype"] == "video" and (height % 2 or width % 2):
        raise ValueError(f"Video feature '{key}' has shape {feature['shape']}; height and width must be even.")
