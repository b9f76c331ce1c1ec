#!/usr/bin/env python
"""The report card of one or several checkpoints: one HTML page on what they would do in recorded episodes.

    python lerobot/scripts/report.py --policy.path=CHECKPOINT [CHECKPOINT ...] --dataset.root=grasp_dataset

Needs no arm and no simulation. The episodes should be ones that were not trained on.
"""

import argparse
import datetime as dt
import logging
from pathlib import Path

from lerobot.common.datasets.lerobot_dataset import LeRobotDatasetMetadata
from lerobot.common.evaluation.report_card import ReportCard, run_name
from lerobot.common.evaluation.report_page import make_page
from lerobot.common.evaluation.report_run import choose_episodes, make_card
from lerobot.common.utils.device import get_safe_torch_device
from lerobot.common.utils.io_utils import write_json, write_text
from lerobot.common.utils.utils import init_logging, json_dict, json_list, run_command

PAGE_NAME, JSON_NAME = "report.html", "report.json"


def report(args: argparse.Namespace) -> list[ReportCard]:
    """Measure every checkpoint, write report.html and report.json, print the findings; returns the cards.

    Raises ValueError for a dataset without episodes, a checkpoint that does not fit it, or flags that cannot be.
    """
    if args.chunks < 1:
        raise ValueError(f"--chunks={args.chunks}: expected at least 1.")
    if args.device:
        get_safe_torch_device(args.device)
    meta = LeRobotDatasetMetadata(args.repo_id, root=args.root)
    episodes = choose_episodes(meta, args.episodes)
    cards, datasets = [], []
    names = unique_names(args.checkpoints)
    for path, name in zip(args.checkpoints, names, strict=True):
        print(f"{name} ...", flush=True)
        card, dataset = make_card(path, name, meta, episodes, args)
        cards.append(card)
        datasets.append(dataset)
        for finding in card.findings:
            print(f"  {finding.severity:<8} {finding.message}", flush=True)
    output = args.output_dir or Path("outputs/report") / f"{dt.datetime.now():%Y-%m-%d/%H-%M-%S}"
    write_text(make_page(cards, datasets, f"Dataset {meta.root}"), output / PAGE_NAME)
    write_json({name: card.to_dict() for name, card in zip(names, cards, strict=True)}, output / JSON_NAME, indent=2)
    size = (output / PAGE_NAME).stat().st_size / 1e6
    print(f"Written  {output / PAGE_NAME} ({size:.1f} MB), {JSON_NAME}")
    return cards


def unique_names(paths: list[str]) -> list[str]:
    """A short name for each checkpoint, with the folder above where two would be the same, or a number."""
    names = [run_name(path) for path in paths]
    names = [run_name(p, 2) if names.count(name) > 1 else name for p, name in zip(paths, names, strict=True)]
    return [f"{name} ({i + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--policy.path", dest="path", required=True, help="checkpoint: a folder with config.json, or a hub id")
    add("more", nargs="*", metavar="CHECKPOINT", help="more checkpoints, to compare")
    add("--dataset.root", dest="root", help="folder of the dataset")
    add("--dataset.repo_id", dest="repo_id", help="hub id of the dataset, or any name when the root is given")
    add(
        "--dataset.episodes",
        dest="episodes",
        type=json_list,
        help="for example [48,49]; else the last tenth, at most 5",
    )
    add("--policy.device", dest="device", help="cpu, cuda, ...; else what is there")
    add(
        "--chunks",
        type=int,
        default=150,
        help="at most about this many chunks per checkpoint (fewer episodes are used)",
    )
    add("--rename_map", type=json_dict, default={}, help="dataset camera key -> key of the checkpoint, as JSON")
    add("--seed", type=int, default=0, help="of the noise of policies that draw some")
    add("--output_dir", type=Path, help="else outputs/report/<date>/<time>; may exist")
    args = parser.parse_intermixed_args(arguments)
    args.checkpoints = [args.path, *args.more]
    return args


def main() -> None:
    """The command."""
    init_logging()
    logging.getLogger().setLevel(logging.WARNING)
    run_command(lambda: report(parse()))


if __name__ == "__main__":
    main()
