"""What a run depended on, written into every checkpoint: versions, source, machine, seed, data, command."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lerobot.__version__ import __version__
from lerobot.common.constants import PRETRAINED_MODEL_DIR
from lerobot.common.training.checkpoint import RECORD_NAME
from lerobot.common.utils.io_utils import read_json

PACKAGES = (
    "torch numpy draccus av opencv-python opencv-python-headless pyarrow safetensors huggingface_hub transformers "
    "accelerate mujoco gymnasium"
).split()


def make_record(cfg, dataset, plan) -> dict[str, Any]:
    """Everything that has to be the same for the run to come out the same, as JSON values."""
    return {
        "lerobot": __version__,
        "command": shlex.join([sys.executable, *sys.argv]),
        "versions": versions(),
        "source": git_state(Path(__file__).parents[3]),
        "device": device_description(cfg.policy.device),
        "seed": cfg.seed,
        "batches": plan.to_dict(),
        "dataset": describe_dataset(dataset),
    }


def versions() -> dict[str, str]:
    """Python, system, and the packages that compute, as far as they are installed."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, Any] | None:
    """{"commit", "changed": files that differ from it} of a checkout; None outside one or without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout

    try:
        changed = [line[3:] for line in git("status", "--porcelain", "--untracked-files=no").splitlines()]
        return {"commit": git("rev-parse", "HEAD").strip(), "changed": changed}
    except (OSError, subprocess.SubprocessError):
        return None


def device_description(device: str) -> dict[str, Any]:
    """The device and what computes on it."""
    found: dict[str, Any] = {"device": str(device), "cpu_cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if torch.device(device).type == "cuda":
        found |= {
            "name": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def describe_dataset(dataset) -> dict[str, Any]:
    """Which frames are trained on, what they mean, and their statistics."""
    meta = dataset.meta
    return {
        "repo_id": meta.repo_id,
        "root": str(meta.root),
        "revision": meta.revision,
        "fingerprint": dataset_fingerprint(meta),
        "episodes": list(dataset.episode_indices),
        "frames": dataset.num_frames,
        "fps": meta.fps,
        "robot_type": meta.robot_type,
        "units": meta.info.get("units"),
        "sim": bool(meta.info.get("sim")),
        "tasks": [meta.tasks[i] for i in sorted(meta.tasks)],
        "features": {
            key: {name: feature.get(name) for name in ("dtype", "shape", "names")}
            for key, feature in meta.features.items()
        },
        "stats": {
            key: {name: torch.as_tensor(value).tolist() for name, value in entry.items()}
            for key, entry in meta.stats.items()
        },
    }


def dataset_fingerprint(meta) -> str:
    """A hash that changes when frames, features, tasks or statistics of a dataset do (not when it is moved)."""
    episodes = [[i, meta.episodes[i]["length"]] for i in sorted(meta.episodes)]
    features = {key: [feature["dtype"], list(feature["shape"])] for key, feature in meta.features.items()}
    state_and_action = [k for k in sorted(meta.stats) if k.startswith(("observation.", "action")) and "image" not in k]
    stats = {
        key: {name: torch.as_tensor(value, dtype=torch.float64).tolist() for name, value in meta.stats[key].items()}
        for key in state_and_action
    }
    tasks = sorted(meta.tasks.items())
    text = json.dumps([meta.fps, episodes, features, tasks, stats], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def read_record(checkpoint: str | Path) -> dict[str, Any] | None:
    """The record of a checkpoint (its step folder, or the pretrained_model in it); None where it has none."""
    for folder in (Path(checkpoint), Path(checkpoint) / PRETRAINED_MODEL_DIR):
        if (folder / RECORD_NAME).is_file():
            return read_json(folder / RECORD_NAME)
    return None
