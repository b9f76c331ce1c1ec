#!/usr/bin/env python
"""Check a dataset: structure, time, joints, pictures, statistics.

    python lerobot/scripts/check_dataset.py my_grasps
    python lerobot/scripts/check_dataset.py my_grasps --json=findings.json --html=findings.html
    python lerobot/scripts/check_dataset.py my_grasps --fix                        # statistics, in place
    python lerobot/scripts/check_dataset.py my_grasps --fix --output=my_grasps_ok  # and without damaged episodes

Exit code: 0 nothing or only infos, 1 warnings, 2 errors.
"""

import argparse
import sys
from pathlib import Path

from lerobot.common.checks.dataset_checks import DatasetCheck, findings_as_json
from lerobot.common.checks.finding import Finding, by_severity, exit_code
from lerobot.common.checks.report import write_html
from lerobot.common.datasets.edit import delete_episodes
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.recompute import repair_stats
from lerobot.common.utils.io_utils import write_text
from lerobot.common.utils.utils import init_logging, run_command

STATISTICS = ("stats.outdated", "stats.missing", "stats.camera_std")


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of the dataset")
    parser.add_argument("--chunk", type=int, default=50, help="frames of an action chunk")
    parser.add_argument("--fast", action="store_true", help="do not look at the pictures")
    parser.add_argument("--json", type=Path, help="write the findings to this file")
    parser.add_argument("--html", type=Path, help="write a page with pictures to this file")
    parser.add_argument("--fix", action="store_true", help="compute statistics again where they are wrong")
    parser.add_argument("--output", type=Path, help="with --fix: new folder without the damaged episodes")
    return parser.parse_args()


def repair(root: Path, findings: list[Finding], output: Path | None) -> None:
    """Repair what can be repaired, and say what was done."""
    damaged = sorted({f.where.episode for f in findings if f.severity == "error" and f.where.episode is not None})
    if damaged and output is None:
        print(f"Episodes {damaged} are damaged: give --output=FOLDER for a copy without them.")
        return
    if damaged:
        kept = LeRobotDataset(root=root, episodes=[])
        delete_episodes(kept, damaged, output)
        print(f"Wrote '{output}' without the episodes {damaged}.")
        root = output
    if any(finding.code in STATISTICS for finding in findings):
        repair_stats(root)
        print(f"Computed the statistics of '{root}' again.")
    elif not damaged:
        unwritten = f"; '{output}' was not written" if output else ""
        print(f"No episode is damaged and the statistics are right: nothing to repair{unwritten}.")


def main() -> None:
    """Entry point of the command line."""
    init_logging()
    args = parse_args()
    check = DatasetCheck(args.root, args.chunk, decode=not args.fast)
    findings = list(check.run())
    for finding in by_severity(findings):
        print(finding)
    print(f"{len(findings)} findings in '{args.root}'.")
    if args.json:
        write_text(findings_as_json(findings), args.json)
    if args.html:
        write_html(args.html, findings, check, f"Check of {args.root}")
    if args.fix:
        repair(args.root, findings, args.output)
    sys.exit(exit_code(findings))


if __name__ == "__main__":
    run_command(main)
