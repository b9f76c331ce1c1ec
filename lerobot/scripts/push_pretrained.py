#!/usr/bin/env python
"""Upload a checkpoint to the Hugging Face hub, or everything that was queued while there was no network.

python lerobot/scripts/push_pretrained.py --pretrained_path=RUN/checkpoints/last/pretrained_model --repo_id=ME/NAME
python lerobot/scripts/push_pretrained.py --pending=true
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from lerobot.common.training import publish
from lerobot.common.training.publish import push_pending, upload
from lerobot.common.utils.utils import init_logging, run_command
from lerobot.configs import parser


@dataclass
class PushConfig:
    """Upload a checkpoint, or what is queued."""

    pretrained_path: str | None = None  # folder of the checkpoint
    repo_id: str | None = None  # OWNER/NAME
    branch: str | None = None  # upload to this branch
    private: bool | None = None  # make a new repository private
    exist_ok: bool = True  # the repository may exist
    pending: bool = False  # upload what training runs queued


def main() -> None:
    """Entry point of the command line."""
    init_logging()
    cfg = parser.parse(PushConfig, sys.argv[1:])
    if cfg.pending:
        if not any(publish.QUEUE.glob("*.json")):
            print("Nothing is queued.")
        for repo_id, address in push_pending().items():
            print(f"{repo_id}: {address}")
        return
    if not (cfg.pretrained_path and cfg.repo_id):
        raise ValueError("Give --pretrained_path=FOLDER and --repo_id=OWNER/NAME, or --pending=true.")
    if not (Path(cfg.pretrained_path) / "config.json").is_file():
        raise FileNotFoundError(f"--pretrained_path={cfg.pretrained_path} is no checkpoint: it has no config.json.")
    job = {"repo_id": cfg.repo_id, "folder": cfg.pretrained_path, "private": cfg.private, "branch": cfg.branch}
    print(upload(job | {"exist_ok": cfg.exist_ok}))


if __name__ == "__main__":
    run_command(main)
