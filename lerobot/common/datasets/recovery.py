"""What a killed recording leaves behind: found when the dataset is opened, and removed.

An episode of v2.1 counts from the moment `meta/info.json` counts it; that file is replaced last. Those of v3.0
share files, which a journal puts back. While an episode is recorded, `.unfinished/` exists and is locked by the
recording process, so that opening the dataset meanwhile disturbs nothing.
"""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

from lerobot.common.datasets.journal import JOURNAL, undo
from lerobot.common.datasets.utils import (
    EPISODES_PATH,
    EPISODES_STATS_PATH,
    INFO_PATH,
    TASKS_PATH,
    UNFINISHED_DIR,
    load_json,
    load_jsonlines,
    write_jsonlines,
)

try:
    import fcntl
except ImportError:  # Windows has no flock: one process per dataset is the user's care there
    fcntl = None

_EPISODE_FILE = re.compile(r"^episode_(\d+)\.(parquet|mp4)$")


class RecordingFolder:
    """`<root>/.unfinished`, held by one process while it records an episode.

    RuntimeError if another process holds it.
    """

    def __init__(self, root: Path):
        self.path = Path(root) / UNFINISHED_DIR
        self.path.mkdir(parents=True, exist_ok=True)
        self._handle = open(self.path / "lock", "w")  # noqa: SIM115 - held until release()
        if fcntl is not None:
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as e:
                self._handle.close()
                raise RuntimeError(f"Another process records into '{root}'; stop it first.") from e

    def release(self) -> None:
        """Remove the folder with everything in it and give the lock back."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._handle.close()


def discard_unfinished(root: Path) -> list[str]:
    """Remove what an interrupted recording left in the dataset at `root`; return one sentence per removal.

    Nothing happens while a process is recording into it, or if the folder cannot be written.
    """
    if not (Path(root) / UNFINISHED_DIR).is_dir():
        return []
    try:
        folder = RecordingFolder(root)
    except (RuntimeError, OSError):
        return []
    done = []
    if len(list(folder.path.iterdir())) > 1:
        done.append("removed the episode that was being recorded")
    for journal in sorted(folder.path.rglob(JOURNAL)):  # an episode's own folder has its journal
        done += undo(Path(root), journal.parent)
    info = load_json(Path(root) / INFO_PATH)
    if not str(info["codebase_version"]).startswith("v3"):
        done += _remove_uncounted(Path(root), info)
    for partial in (Path(root) / "meta").glob(".*.part"):  # a file that was being replaced
        partial.unlink()
    folder.release()
    if done:
        logging.warning("Dataset '%s' was left by an interrupted recording: %s.", root, "; ".join(done))
    return done


def drop_last_episode(meta) -> None:
    """Take the newest episode out of a v2.1 dataset (its metadata); killed on the way, it is there or gone entirely.

    ValueError for a v3.0 dataset, whose episodes share files, and for one without episodes.
    """
    if meta.is_v30 or meta.total_episodes == 0:
        what = f"is {meta.info['codebase_version']}" if meta.is_v30 else "has no episode"
        raise ValueError(f"The last episode of '{meta.root}' cannot be taken out: the dataset {what}.")
    folder = RecordingFolder(meta.root)  # while it exists, whoever opens the dataset next would finish the removal
    meta.uncount_last_episode()
    _remove_uncounted(meta.root, meta.info)
    folder.release()


def _remove_uncounted(root: Path, info: dict) -> list[str]:
    """Remove the files and lines of a v2.1 episode that info.json does not count."""
    done = _remove_files(root, info["total_episodes"])
    limits = {
        EPISODES_PATH: ("episode_index", info["total_episodes"]),
        EPISODES_STATS_PATH: ("episode_index", info["total_episodes"]),
        TASKS_PATH: ("task_index", info["total_tasks"]),
    }
    for name, (key, limit) in limits.items():
        if (path := root / name).exists():
            rows = load_jsonlines(path)
            kept = [row for row in rows if row[key] < limit]
            if len(kept) < len(rows):
                write_jsonlines(kept, path)
                done.append(f"removed {len(rows) - len(kept)} lines from {name}")
    return done


def _remove_files(root: Path, total_episodes: int) -> list[str]:
    removed = []
    for folder in ("data", "videos"):
        for path in (root / folder).rglob("episode_*"):
            match = _EPISODE_FILE.match(path.name)
            if match and int(match[1]) >= total_episodes:
                path.unlink()
                removed.append(f"removed '{path.relative_to(root)}'")
    return removed
