#!/usr/bin/env python
"""Look at a dataset in the browser: episodes, synchronized videos, joint plots, tasks, findings of the check.

python lerobot/scripts/visualize_dataset_html.py --root=my_grasps          # then open http://127.0.0.1:9090
"""

import argparse
import logging
from pathlib import Path

from lerobot.common.checks.dataset_checks import check_dataset
from lerobot.common.checks.finding import Finding
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.common.datasets.web_page import make_server
from lerobot.common.utils.utils import init_logging, run_command


def readable_episodes(meta: LeRobotDatasetMetadata, findings: list[Finding]) -> list[int] | None:
    """The episodes whose numbers can be read, None for all; says which are left out."""
    damaged = {f.where.episode for f in findings if f.code in ("data.unreadable", "data.nan")}
    if not damaged:
        return None
    for finding in findings:
        if finding.where.episode in damaged and finding.severity == "error":
            logging.warning("Not shown: %s", finding)
    return [index for index in meta.episodes if index not in damaged]


def main() -> None:
    """Entry point of the command line."""
    init_logging()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo-id", help="hub id, or any name when --root is given")
    parser.add_argument("--root", type=Path, help="folder of the dataset")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 shows the page to the whole network")
    parser.add_argument("--port", type=int, default=9090)
    parser.add_argument("--check-pictures", action="store_true", help="look for frozen and black pictures, too")
    args = parser.parse_args()
    meta = LeRobotDatasetMetadata(args.repo_id, root=args.root)
    findings = check_dataset(meta.root, decode=args.check_pictures) if args.root else []
    dataset = LeRobotDataset(args.repo_id, root=args.root, episodes=readable_episodes(meta, findings))
    findings = findings or check_dataset(meta.root, decode=args.check_pictures)
    with make_server(dataset, findings, args.host, args.port) as server:
        print(f"http://{args.host}:{server.server_port} shows '{dataset.root}'; Ctrl-C ends it.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    run_command(main)
