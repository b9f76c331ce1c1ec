"""Can a dataset be read at all? Version, files, tasks, and the first picture of every camera."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lerobot.common.checks.finding import Finding, Where

READABLE = ("v2.0", "v2.1", "v3.0")


def check_reading(root: str | Path) -> tuple[Any, list[Finding]]:
    """(LeRobotDatasetMetadata or None, findings) of the dataset in a folder."""
    root = Path(root).expanduser()
    info, findings = _read_info(root)
    if info is None:
        return None, findings
    version = info.get("codebase_version", "none")
    if version not in READABLE:
        message = f"The dataset is in format {version}; {', '.join(READABLE)} can be read."
        fix = f"python lerobot/scripts/convert_dataset.py --root={root}"
        return None, [Finding("dataset.version", "error", message, evidence={"version": version}, fix=fix)]
    from lerobot.common.datasets.lerobot_dataset import LeRobotDatasetMetadata

    try:
        meta = LeRobotDatasetMetadata(None, root)
    except (ValueError, OSError, KeyError, TypeError) as e:
        fix = "copy the dataset's meta folder again, or record again"
        return None, [Finding("dataset.metadata", "error", f"The metadata cannot be used: {e}", fix=fix)]
    return meta, [*check_tasks(meta), *check_episode_files(meta), *check_pictures(meta)]


def _read_info(root: Path) -> tuple[dict | None, list[Finding]]:
    path = root / "meta" / "info.json"
    place = Where(file=str(path))
    if not path.is_file():
        found = sorted(p.parents[1] for p in root.glob("*/meta/info.json"))
        message = f"{root} is no dataset: there is no meta/info.json."
        fix = f"--dataset.root={found[0]}" if found else "--dataset.root=FOLDER with meta/, data/ and videos/"
        return None, [Finding("dataset.absent", "error", message, place, fix=fix)]
    try:
        return json.loads(path.read_text()), []
    except json.JSONDecodeError as e:
        message = f"meta/info.json is not valid JSON: {e}."
        return None, [Finding("dataset.metadata", "error", message, place, fix="copy the file again")]


def check_tasks(meta) -> list[Finding]:
    """That every episode has a sentence that says what is done."""
    empty = [index for index, task in meta.tasks.items() if not task.strip()]
    without = [index for index, row in meta.episodes.items() if not row.get("tasks")]
    if not (empty or without or not meta.tasks):
        return []
    what = f"episodes {without[:10]} have none" if without else "a sentence is empty" if empty else "there is none"
    message = f"Task sentences are missing: {what}."
    evidence = {"episodes": without, "empty": empty}
    fix = "write the sentences into meta/tasks.jsonl and meta/episodes.jsonl (policies with language read them)"
    return [Finding("dataset.tasks", "error", message, evidence=evidence, fix=fix)]


def check_episode_files(meta) -> list[Finding]:
    """That the files of every episode are there."""
    missing = []
    for episode in meta.episodes:
        paths = [meta.data_file(episode), *(meta.video_file(episode, key) for key in meta.video_keys)]
        missing += [(episode, path) for path in paths if not path.is_file()]
    if not missing:
        return []
    episodes = sorted({episode for episode, _ in missing})
    message = f"{len(missing)} files are absent, first {missing[0][1].relative_to(meta.root)}."
    left = [i for i in meta.episodes if i not in episodes]
    fix = f"copy them again, or train without: --dataset.episodes={json.dumps(left).replace(' ', '')}"
    place = Where(episode=episodes[0], file=str(missing[0][1]))
    return [Finding("dataset.files", "error", message, place, {"episodes": episodes}, fix)]


def check_pictures(meta) -> list[Finding]:
    """That the first picture of each camera decodes and has the size that the metadata says."""
    from lerobot.common.datasets.video_utils import decode_video_frames

    findings = []
    for key in meta.video_keys:
        path = next((p for e in meta.episodes if (p := meta.video_file(e, key)).is_file()), None)
        if path is None:
            continue
        place = Where(feature=key, file=str(path))
        try:
            shape = tuple(decode_video_frames(path, [0.0], tolerance_s=0.5 / meta.fps).shape[1:])
        except (ValueError, OSError, IndexError, RuntimeError) as e:
            message = f"The video cannot be decoded: {' '.join(str(e).split()) or 'it has no frames'}."
            fix = f"ffmpeg -i {path} -c:v libx264 repaired.mp4 (if that fails too, copy it again)"
            findings.append(Finding("dataset.decode", "error", message, place, fix=fix))
            continue
        expected = tuple(meta.features[key]["shape"])
        if sorted(shape) != sorted(expected):
            message = f"Pictures are {list(shape)} (channels, height, width), meta/info.json says {list(expected)}."
            evidence = {"found": list(shape), "stated": list(expected)}
            fix = f"write {[*shape[1:], shape[0]]} into meta/info.json under {key}"
            findings.append(Finding("dataset.picture_size", "error", message, place, evidence, fix))
    return findings
