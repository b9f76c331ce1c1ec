"""Uploading a dataset to the hub, with a card that says what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, HfApi

from lerobot.common.datasets.utils import UNFINISHED_DIR

CARD = """---
license: {license}
task_categories:
- robotics
tags:
{tags}
configs:
- config_name: default
  data_files: data/*/*.parquet
---

This dataset was made with [LeRobot](https://github.com/huggingface/lerobot).

{episodes} episodes, {frames} frames at {fps} FPS{robot}. Tasks: {tasks}.

## Structure

[meta/info.json](meta/info.json):

```json
{info}
```
"""


def dataset_card(meta, license: str = "apache-2.0", tags: list[str] | None = None) -> str:
    """The text of the dataset's README.md."""
    return CARD.format(
        license=license,
        tags="\n".join(f"- {tag}" for tag in ["LeRobot", *(tags or [])]),
        **_numbers(meta.info),
        tasks="; ".join(list(meta.tasks.values())[:20]),
    )


def _numbers(info: dict[str, Any]) -> dict[str, Any]:
    return {
        "episodes": info.get("total_episodes", "?"),
        "frames": info.get("total_frames", "?"),
        "fps": info.get("fps", "?"),
        "robot": f", robot {info['robot_type']}" if info.get("robot_type") else "",
        "info": json.dumps(info, indent=4, ensure_ascii=False),
    }


def create_lerobot_dataset_card(
    tags: list[str] | None = None, dataset_info: dict[str, Any] | None = None, **kwargs: Any
) -> DatasetCard:
    """A card for a dataset from its `info.json`; `license`, `repo_id` and `dataset_description` may be given."""
    card = CARD.format(
        license=kwargs.get("license", "apache-2.0"),
        tags="\n".join(f"- {tag}" for tag in ["LeRobot", *(tags or [])]),
        **_numbers(dataset_info or {}),
        tasks=kwargs.get("dataset_description") or "see meta/tasks",
    )
    return DatasetCard(card)


def create_branch(repo_id: str, *, branch: str, repo_type: str | None = None) -> None:
    """Make a branch of a hub repository anew, from its main branch."""
    api = HfApi()
    if any(ref.name == branch for ref in api.list_repo_refs(repo_id, repo_type=repo_type).branches):
        api.delete_branch(repo_id, branch=branch, repo_type=repo_type)
    api.create_branch(repo_id, branch=branch, repo_type=repo_type)


def push_to_hub(
    meta,
    branch: str | None = None,
    tags: list[str] | None = None,
    license: str = "apache-2.0",
    tag_version: bool = True,
    push_videos: bool = True,
    private: bool = False,
    allow_patterns: list[str] | str | None = None,
    upload_large_folder: bool = False,
) -> str:
    """Upload the dataset folder as `meta.repo_id`, write a card if there is none, tag the format version.

    Returns the address. ValueError without a hub id 'owner/name'.
    """
    if not meta.repo_id or "/" not in meta.repo_id:
        raise ValueError(
            f"repo_id '{meta.repo_id}' is not a hub id 'owner/name'; open the dataset with one to push it."
        )
    api = HfApi()
    api.create_repo(meta.repo_id, repo_type="dataset", private=private, exist_ok=True)
    if branch:
        api.create_branch(meta.repo_id, branch=branch, repo_type="dataset", exist_ok=True)
    ignored = ["images/", f"{UNFINISHED_DIR}/", ".store/"] + ([] if push_videos else ["videos/"])
    target = {"repo_id": meta.repo_id, "repo_type": "dataset", "revision": branch}
    files = {"folder_path": Path(meta.root), "allow_patterns": allow_patterns, "ignore_patterns": ignored}
    (api.upload_large_folder if upload_large_folder else api.upload_folder)(**target, **files)
    if not api.file_exists(meta.repo_id, "README.md", repo_type="dataset", revision=branch):
        card = dataset_card(meta, license, tags).encode()
        api.upload_file(path_or_fileobj=card, path_in_repo="README.md", **target)
    if tag_version:
        version = {"repo_id": meta.repo_id, "tag": meta.info["codebase_version"], "repo_type": "dataset"}
        if any(ref.name == version["tag"] for ref in api.list_repo_refs(meta.repo_id, repo_type="dataset").tags):
            api.delete_tag(**version)
        api.create_tag(**version, revision=branch)
    return f"{api.endpoint}/datasets/{meta.repo_id}"
