"""Records demonstrations of the simulated Koch arm's scripted expert as a LeRobotDataset (v2.1).

    python lerobot/scripts/record_twin.py --episodes 50 --root outputs/twin

Every episode succeeds. Episode i shows the layout of seed `seed0 + i`, so the same command gives the same
data, and `--resume` goes on at the first missing episode.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from tqdm import tqdm

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.utils import write_info
from lerobot.common.envs.koch_sim.demonstration import (
    EVALUATION_SEEDS,
    NOISE,
    dataset_features,
    record_episode,
)
from lerobot.common.envs.koch_sim.scene import CUBE_COUNTS, FPS
from lerobot.common.envs.koch_sim.world import KochWorld


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; exits with status 2 on seeds that are kept for evaluation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset; must not exist yet")
    parser.add_argument("--episodes", type=int, default=50, help="episodes that the dataset has in the end")
    parser.add_argument("--repo_id", default="koch_twin", help="name of the dataset on a hub")
    parser.add_argument("--scene", choices=sorted(CUBE_COUNTS), default="A", help="A: one cube, B: two or three")
    parser.add_argument("--seed0", type=int, default=0, help="seed of episode 0")
    parser.add_argument(
        "--noise",
        type=float,
        default=NOISE,
        help="disturbance of the executed targets, radians (labels stay clean)",
    )
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--resume", action="store_true", help="add the episodes that --root still lacks")
    args = parser.parse_args(arguments)
    last = args.seed0 + args.episodes - 1
    if args.seed0 <= EVALUATION_SEEDS[-1] and last >= EVALUATION_SEEDS[0]:
        parser.error(
            f"episodes would use seeds {args.seed0} to {last}, but {EVALUATION_SEEDS[0]} to "
            f"{EVALUATION_SEEDS[-1]} are kept for evaluation: change --seed0 or --episodes"
        )
    return args


def open_dataset(args: argparse.Namespace, world: KochWorld) -> LeRobotDataset:
    """The dataset to add to; SystemExit when `--root` exists without `--resume` or was recorded otherwise."""
    settings = {
        "scene": args.scene,
        "seed0": args.seed0,
        "noise": args.noise,
        "units": "legacy",
        "size": [args.width, args.height],
    }
    if not args.root.exists():
        dataset = LeRobotDataset.create(
            args.repo_id, FPS, root=args.root, robot_type="koch", features=dataset_features(world)
        )
        dataset.meta.info["sim"] = settings
        write_info(dataset.meta.info, args.root)
        return dataset
    if not args.resume:
        sys.exit(f"--root={args.root} exists: add --resume to complete it, or choose another folder")
    dataset = LeRobotDataset(args.repo_id, root=args.root)
    if dataset.meta.info.get("sim") != settings:
        recorded = dataset.meta.info.get("sim", "a real arm")
        sys.exit(f"--root={args.root} was recorded with {recorded}, not {settings}: choose another folder")
    return dataset


def main(arguments: list[str] | None = None) -> None:
    """Records until the dataset has `--episodes` episodes."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args = parse_args(arguments)
    world = KochWorld(args.scene, args.width, args.height)
    dataset = open_dataset(args, world)
    done = dataset.meta.total_episodes
    with tqdm(total=args.episodes, initial=min(done, args.episodes), unit="episode") as progress:
        for episode in range(done, args.episodes):
            length = record_episode(dataset, world, args.seed0 + episode, args.noise)
            progress.set_postfix(frames=length)
            progress.update()
    world.close()
    logging.info("%d episodes, %d frames in %s", dataset.meta.total_episodes, dataset.meta.total_frames, args.root)


if __name__ == "__main__":
    main()
