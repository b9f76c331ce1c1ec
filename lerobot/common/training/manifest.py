"""The manifest of a checkpoint: size and SHA-256 of every file, which tell a whole checkpoint from a damaged one."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from lerobot.common.constants import (
    CHECKPOINTS_DIR,
    LAST_CHECKPOINT_LINK,
    PRETRAINED_MODEL_DIR,
    SAFETENSORS_SINGLE_FILE,
    TRAINING_STATE_DIR,
    TRAINING_STEP,
)
from lerobot.common.utils.io_utils import read_json, write_json

MANIFEST_NAME = "manifest.json"
FORMAT = 1


class DamagedCheckpointError(ValueError):
    """A checkpoint is not what was written."""


def write_manifest(folder: Path, step: int) -> None:
    """Describe every file below `folder`; written last, before the folder gets its final name."""
    files = {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    data = {"format": FORMAT, "step": step, "written": time.time(), "files": files}
    write_json(data, folder / MANIFEST_NAME, indent=2)


def sha256(path: Path) -> str:
    """Hash of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def damage(folder: Path) -> list[str]:
    """What is wrong with a checkpoint folder, one sentence per file; empty for a whole one.

    A checkpoint without manifest (LeRobot's own, or an older one of ours) is only looked at for the files that every
    checkpoint has.
    """
    manifest = folder / MANIFEST_NAME
    if not manifest.is_file():
        needed = [f"{PRETRAINED_MODEL_DIR}/{SAFETENSORS_SINGLE_FILE}", f"{TRAINING_STATE_DIR}/{TRAINING_STEP}"]
        return [f"{name} is absent" for name in needed if not (folder / name).is_file()]
    try:
        files = read_json(manifest)["files"]
    except (ValueError, KeyError, TypeError) as e:
        return [f"{MANIFEST_NAME} cannot be read ({e})"]
    return [fault for name, entry in files.items() if (fault := _fault(folder / name, name, entry))]


def _fault(path: Path, name: str, entry: dict) -> str | None:
    if not path.is_file():
        return f"{name} is absent"
    if (size := path.stat().st_size) != entry["size"]:
        return f"{name} has {size} bytes, {entry['size']} were written"
    return f"{name} has other contents than were written" if sha256(path) != entry["sha256"] else None


def checkpoints_of(output_dir: Path) -> list[Path]:
    """The step folders of a run, the one written last at the end (temporary ones are not listed)."""
    found = [p for p in (Path(output_dir) / CHECKPOINTS_DIR).glob("*") if p.name.isdigit() and p.is_dir()]
    return sorted(found, key=lambda p: (_written(p), int(p.name)))


def _written(folder: Path) -> float:
    manifest = folder / MANIFEST_NAME
    try:
        return float(read_json(manifest)["written"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0  # without a readable manifest: older than any with one


def newest_whole_checkpoint(output_dir: Path) -> tuple[Path | None, dict[str, list[str]]]:
    """The checkpoint written last that is undamaged, and what is wrong with the ones written after it."""
    damaged = {}
    for folder in reversed(checkpoints_of(output_dir)):
        faults = damage(folder)
        if not faults:
            return folder, damaged
        damaged[str(folder)] = faults
    link = Path(output_dir) / CHECKPOINTS_DIR / LAST_CHECKPOINT_LINK
    return (link.resolve(), damaged) if link.is_dir() and not damaged else (None, damaged)


def require_whole(folder: Path) -> None:
    """DamagedCheckpointError unless every file is as it was written; names the newest whole checkpoint of that run."""
    faults = damage(folder)
    if not faults:
        return
    other, _ = newest_whole_checkpoint(folder.parent.parent)
    way = f"--config_path={other / PRETRAINED_MODEL_DIR}" if other else "an earlier copy of the checkpoint"
    raise DamagedCheckpointError(f"The checkpoint {folder} is damaged: {'; '.join(faults)}. Resume from {way}.")
