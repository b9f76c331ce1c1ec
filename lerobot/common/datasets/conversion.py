"""What every conversion between formats shares: a new folder, one file after the other, resumable, verified."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.utils import INFO_PATH, DatasetError
from lerobot.common.datasets.video_utils import VideoReader
from lerobot.common.utils.io_utils import atomic_path, read_json, write_json

WORK_DIR = ".converting"


class Conversion:
    """Writes a dataset to `output`; a file that is there is complete, and `meta/info.json` comes last.

    A killed conversion continues where it stopped. FileExistsError if `output` holds something else,
    ValueError if it was begun from another source or with other settings.
    """

    def __init__(self, output: Path, settings: dict):
        self.output, self.notes = Path(output), Path(output) / WORK_DIR
        settings = json.loads(json.dumps(settings, default=str))
        if (self.notes / "settings.json").exists():
            found = read_json(self.notes / "settings.json")
            if found != settings:
                raise ValueError(
                    f"'{output}' holds a conversion begun with {found}, not {settings}; delete it or choose another "
                    "--output."
                )
            logging.info("Continuing the conversion in '%s'.", output)
        elif self.output.exists() and any(self.output.iterdir()):
            raise FileExistsError(f"'{output}' is not empty; give a new folder with --output.")
        else:
            write_json(settings, self.notes / "settings.json")

    def file(self, relative: str | Path, write: Callable[[Path], object]) -> object:
        """Let `write` make a file unless it is there; returns what `write` returned then, a JSON value."""
        note = self.notes / "done" / f"{relative}.json"
        if not note.exists():
            with atomic_path(self.output / relative) as partial:
                result = write(partial)
            write_json(result, note)
        return read_json(note)

    def copy(self, source: Path, relative: str | Path) -> None:
        """Copy a file unless it is there."""
        self.file(relative, lambda partial: shutil.copyfile(source, partial) and None)

    def finish(self, info: dict) -> None:
        """Write info.json, which makes it a dataset, and forget the notes."""
        write_json(info, self.output / INFO_PATH)
        shutil.rmtree(self.notes)


def progress(items, what: str, unit: str = "episode"):
    """`items` with a progress bar."""
    return tqdm(items, desc=what, unit=unit)


def verify_same(source: LeRobotDataset, output: LeRobotDataset, decode: bool = True) -> int:
    """DatasetError unless both datasets hold the same numbers, texts and decoded pictures; returns frames compared."""
    if len(source) != len(output) or source.num_episodes != output.num_episodes:
        raise DatasetError(f"'{output.root}' has {len(output)} frames, '{source.root}' {len(source)}.")
    for key, column in source.table.columns.items():
        other = output.table[key]
        if key == "task_index":  # numbers may differ, texts not
            column, other = ([d.meta.tasks[int(i)] for i in d.table[key]] for d in (source, output))
        if key in source.meta.image_keys:
            same = all(torch.equal(column[row], other[row]) for row in range(len(source)))
        else:
            same = torch.equal(column, other) if isinstance(column, torch.Tensor) else column == other
        if not same:
            raise DatasetError(f"Column '{key}' of '{output.root}' differs from '{source.root}'.")
    if decode:
        for episode in progress(source.episode_indices, "Comparing pictures"):
            for key in source.meta.video_keys:
                verify_episode_video(source, output, episode, key)
    return len(source)


def verify_episode_video(source: LeRobotDataset, output: LeRobotDataset, episode: int, key: str) -> None:
    """DatasetError unless an episode has the same pictures in both datasets."""
    frames = [_pictures(dataset, episode, key) for dataset in (source, output)]
    for index, (old, new) in enumerate(zip(*frames, strict=True)):
        if not np.array_equal(old[1], new[1]):
            raise DatasetError(f"Episode {episode}, camera '{key}', frame {index} differs in '{output.root}'.")


def _pictures(dataset: LeRobotDataset, episode: int, key: str):
    reader, start = VideoReader(dataset.meta.video_file(episode, key)), dataset.meta.video_start(episode, key)
    times = [start + t for t in dataset.table["timestamp"][dataset.rows_of_episode(episode)].tolist()]
    return reader.scan(reader.nearest(times, dataset.tolerance_s))


def argument_parser(description: str) -> argparse.ArgumentParser:
    """The flags that all conversions have."""
    parser = argparse.ArgumentParser(
        description=description.split("\n\n")[0],
        epilog=description.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, help="folder of the dataset to convert")
    parser.add_argument("--repo-id", help="hub id of the dataset to convert, if --root is not given")
    parser.add_argument("--output", type=Path, required=True, help="new folder; the original is not touched")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, write nothing")
    parser.add_argument("--no-verify", action="store_true", help="do not compare every frame afterwards")
    return parser


def report(output: Path, frames: int, verified: bool) -> None:
    """One line on what was done."""
    print(f"Wrote '{output}'" + (f"; {frames} frames compared with the original." if verified else "."))
