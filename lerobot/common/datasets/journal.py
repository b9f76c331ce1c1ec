"""Replacing several files together or not at all, across a kill: an undo journal beside hard links to the old files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lerobot.common.datasets.utils import load_json, resolve_inside
from lerobot.common.utils.io_utils import flush_to_disk, write_json

JOURNAL = "journal.json"


def replace_together(root: Path, folder: Path, moves: dict[Path, Path]) -> None:
    """Move each source (a file in `folder`) to its target below `root`.

    Killed at any moment before this returns, `undo` puts everything back as it was; if it fails it does so itself.
    """
    try:
        _replace(root, folder, moves)
    except BaseException:
        undo(root, folder)
        raise


def _replace(root: Path, folder: Path, moves: dict[Path, Path]) -> None:
    entries = []
    for number, (source, target) in enumerate(moves.items()):
        flush_to_disk(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        backup = f"old_{number}" if target.exists() else None
        if backup is not None:
            _link(target, folder / backup)
        entries.append({"path": str(target.relative_to(root)), "backup": backup})
    write_json(entries, folder / JOURNAL)
    for source, target in moves.items():
        os.replace(source, target)
    for directory in {target.parent for target in moves.values()}:
        flush_to_disk_entry(directory)
    (folder / JOURNAL).unlink()
    flush_to_disk_entry(folder)


def undo(root: Path, folder: Path) -> list[str]:
    """Take back an interrupted `replace_together`; may itself be interrupted. Returns one sentence per file."""
    if not (folder / JOURNAL).exists():
        return []
    done = []
    for entry in load_json(folder / JOURNAL):
        path = resolve_inside(root, entry["path"])
        backup = folder / entry["backup"] if entry["backup"] else None
        if backup is None and path.exists():
            path.unlink()
            done.append(f"removed '{entry['path']}'")
        elif backup is not None and backup.exists():  # else it was put back before
            os.replace(backup, path)
            done.append(f"put back '{entry['path']}'")
    (folder / JOURNAL).unlink()
    return done


def flush_to_disk_entry(folder: Path) -> None:
    """fsync the entries of a folder, not its files."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
        flush_to_disk(target)
