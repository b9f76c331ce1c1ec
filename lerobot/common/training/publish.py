"""Publishing a checkpoint: weights, processors, model card and results in one folder, now or with a network."""

from __future__ import annotations

import json
import logging
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from lerobot.common.constants import HF_LEROBOT_HOME
from lerobot.common.utils.hub import hub_is_reachable
from lerobot.common.utils.io_utils import read_json, write_json

QUEUE = HF_LEROBOT_HOME / "upload_queue"
STAGE_NAME = "hub"
CARD_NAME = "README.md"
PUSH = "python lerobot/scripts/push_pretrained.py"


def stage(output_dir: Path, checkpoint: Path, card: str, extras: tuple[str, ...]) -> Path:
    """Put what is published into `<output_dir>/hub`: the checkpoint's files, the card, and `extras` of the run."""
    folder = output_dir / STAGE_NAME
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(checkpoint, folder)
    for name in extras:
        shutil.copy(output_dir / name, folder / name)
    (folder / CARD_NAME).write_text(card, encoding="utf-8")
    return folder


def publish(folder: Path, repo_id: str, private: bool | None = None, queue: Path | None = None, api=None) -> str | None:
    """Upload a folder; without a network or rights it is queued and None is returned. Queued ones go first.

    Where the queue cannot be written (a read-only home) the folder is uploaded at once, or a warning says how to.
    """
    queue = queue or QUEUE
    entry = queue / f"{datetime.now():%Y%m%d-%H%M%S}-{repo_id.replace('/', '_')}.json"
    job = {"repo_id": repo_id, "folder": str(folder.resolve()), "private": private}
    try:
        write_json(job, entry)
    except OSError as e:
        logging.warning("Uploads cannot be queued (%s); HF_LEROBOT_HOME can point to a folder that is writable.", e)
        return _try_upload(job, api, f"Later: {PUSH} --repo_id={repo_id} --pretrained_path={job['folder']}")
    return push_pending(queue, api).get(repo_id)


def push_pending(queue: Path | None = None, api=None) -> dict[str, str]:
    """Upload everything that is queued, oldest first; returns {repo_id: address}. What fails stays in the queue."""
    done: dict[str, str] = {}
    for entry in sorted((queue or QUEUE).glob("*.json")):
        job = read_json(entry)
        if not Path(job["folder"]).is_dir():
            logging.warning("%s was queued for %s and is gone; the entry is dropped.", job["folder"], job["repo_id"])
            entry.unlink()
            continue
        address = _try_upload(job, api, f"It is queued: {PUSH} --pending=true")
        if address:
            done[job["repo_id"]] = address
            entry.unlink()
    return done


def _try_upload(job: dict[str, Any], api, otherwise: str) -> str | None:
    try:
        return upload(job, api)
    except (OSError, HfHubHTTPError, OfflineModeIsEnabled) as e:
        logging.warning("%s was not uploaded (%s). %s", job["repo_id"], " ".join(str(e).split())[:200], otherwise)
        return None


def upload(job: dict[str, Any], api=None) -> str:
    """Upload {"repo_id", "folder", "private", "branch"}; returns the address. Raises OSError without a network."""
    if api is None:
        if not hub_is_reachable():
            offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "is there a network?"
            raise OSError(f"the hub cannot be reached ({offline}); nothing of '{job['repo_id']}' was uploaded")
        api = HfApi()
    repo_id = api.create_repo(job["repo_id"], private=job.get("private"), exist_ok=job.get("exist_ok", True)).repo_id
    if job.get("branch"):
        api.create_branch(repo_id, branch=job["branch"], exist_ok=True)
    return str(
        api.upload_folder(
            repo_id=repo_id,
            folder_path=job["folder"],
            commit_message="Upload policy",
            revision=job.get("branch"),
        )
    )


def model_card(cfg, record: dict[str, Any], summary: dict[str, Any]) -> str:
    """The README.md of a published policy: what it is, what it was trained on, how well it does, how it is run."""
    data = record["dataset"]
    policy = cfg.policy
    header = {
        "license": policy.license or "apache-2.0",
        "library_name": "lerobot",
        "pipeline_tag": "robotics",
        "tags": [*dict.fromkeys([*(policy.tags or []), "robotics", "lerobot", policy.type])],
        **({"datasets": [data["repo_id"]]} if data["repo_id"] and "/" in data["repo_id"] else {}),
    }
    yaml = "\n".join(f"{key}: {json.dumps(value)}" for key, value in header.items())
    tasks = "\n".join(f"- {task}" for task in data["tasks"])
    repo = policy.repo_id
    return f"""---
{yaml}
---

# {repo.rpartition("/")[2] if repo else cfg.job_name}

A `{policy.type}` policy for the robot `{data["robot_type"]}`, trained for {cfg.steps} steps on {len(data["episodes"])}
episodes ({data["frames"]} frames at {data["fps"]} FPS).

Tasks:

{tasks}

## Results

{results_table(summary)}

`summary.html` has the curves and every number of the run; `training_record.json` the versions, seed and statistics.

## Use

```bash
python lerobot/scripts/train.py --policy.path={repo} --dataset.root=DATASET
python lerobot/scripts/eval.py --policy.path={repo} --env.type=koch
```
"""


def results_table(summary: dict[str, Any]) -> str:
    """The results of a run as a Markdown table."""
    rows = [("final loss", f"{summary['final_loss']:.4g}")] if "final_loss" in summary else []
    if error := summary.get("held_out_error"):
        rows.append((f"action error, {len(error['episodes'])} held-out episodes", f"{error['overall']:.4g}"))
        rows += [(f"of which {joint}", f"{value:.4g}") for joint, value in error["per_joint"].items()]
    if result := summary.get("eval"):
        rows += [(name, f"{value:.4g}") for name, value in result.items() if isinstance(value, (int, float))]
    lines = [f"| {name} | {value} |" for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *lines]) if lines else "Nothing was measured."
