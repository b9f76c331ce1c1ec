#!/usr/bin/env python
"""Edit a dataset into a new folder; the original is not touched.

python lerobot/scripts/edit_dataset.py --root=grasps --output=grasps_clean --delete="[3, 17]"
python lerobot/scripts/edit_dataset.py --root=grasps --output=parts --split='{"train": 0.9, "val": 0.1}'
python lerobot/scripts/edit_dataset.py --root=monday --output=all --merge='["tuesday", "wednesday"]'
python lerobot/scripts/edit_dataset.py --root=grasps --output=new --rename='{"old.feature": "new.feature"}'
python lerobot/scripts/edit_dataset.py --root=grasps --output=new --tasks='{"old text": "new text"}'
python lerobot/scripts/edit_dataset.py --root=grasps --output=small --size="[240, 320]" --vcodec=h264
"""

import argparse
from pathlib import Path

from lerobot.common.datasets.edit import (
    Edit,
    VideoChange,
    delete_episodes,
    edit_dataset,
    merge_datasets,
    split_dataset,
)
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.utils.utils import init_logging, json_dict, json_list, run_command


def parse_args() -> argparse.Namespace:
    """The command line; values that are lists or dictionaries are JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--output", type=Path, required=True, help="new folder (of --split: one folder in it per name)")
    parser.add_argument("--delete", type=json_list, metavar="[EPISODES]", help="leave episodes out")
    parser.add_argument("--split", type=json_dict, metavar="{NAME: FRACTION OR [EPISODES]}")
    parser.add_argument("--merge", type=json_list, metavar="[FOLDERS]", help="append the episodes of other datasets")
    parser.add_argument("--remove", type=json_list, default=[], metavar="[FEATURES]")
    parser.add_argument("--rename", type=json_dict, default={}, metavar="{OLD: NEW}", help="rename features")
    parser.add_argument("--tasks", type=json_dict, metavar="{OLD: NEW}", help="change task texts")
    parser.add_argument("--task", metavar="TEXT", help="one task text for every episode")
    parser.add_argument("--vcodec", help="encode the videos again: h264, hevc or libsvtav1")
    parser.add_argument("--crf", type=int, default=23, help="quality with --vcodec, lower is better")
    parser.add_argument("--g", type=int, default=2, help="distance of keyframes with --vcodec")
    parser.add_argument("--size", type=json_list, metavar="[HEIGHT, WIDTH]", help="new size of the videos")
    return parser.parse_args()


def main() -> None:
    """Entry point of the command line."""
    init_logging()
    args = parse_args()
    dataset = LeRobotDataset(root=args.root)
    video = None
    if args.vcodec or args.size:
        video = VideoChange(args.vcodec or "h264", args.g, args.crf, tuple(args.size) if args.size else None)
    edit = Edit(args.remove, args.rename, {}, args.task if args.task is not None else args.tasks, video)
    chosen = [name for name in ("delete", "split", "merge") if getattr(args, name) is not None]
    chosen += ["edit"] if edit != Edit([], {}) else []
    if len(chosen) != 1:
        raise ValueError("Give one of --delete, --split, --merge, or changes to features, tasks and videos.")
    if chosen == ["delete"]:
        done = delete_episodes(dataset, args.delete, args.output)
    elif chosen == ["split"]:
        done = split_dataset(dataset, args.split, args.output)
    elif chosen == ["merge"]:
        done = merge_datasets([dataset, *[LeRobotDataset(root=folder) for folder in args.merge]], args.output)
    else:
        done = edit_dataset(dataset, args.output, edit)
    for path in done.values() if isinstance(done, dict) else [done]:
        new = LeRobotDataset(root=path)
        print(f"Wrote '{path}': {new.num_episodes} episodes, {new.num_frames} frames.")


if __name__ == "__main__":
    run_command(main)
