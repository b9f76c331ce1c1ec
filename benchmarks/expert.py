#!/usr/bin/env python
"""Success of the scripted expert of the simulated arm, by the full success rule, no seed skipped.

python benchmarks/expert.py [--seeds 100] [--first-seed 10000] [--scene A]
"""

import argparse
import time

from lerobot.common.envs.koch_sim.expert import KochExpert
from lerobot.common.envs.koch_sim.world import KochWorld
from lerobot.common.evaluation.intervals import wilson_interval

LIMIT = 450  # control steps of an episode


def run_episode(world: KochWorld, seed: int) -> tuple[bool, int]:
    """Whether the expert succeeds from the layout of `seed`, and after how many frames."""
    world.reset(seed)
    expert = KochExpert()
    expert.reset(world)
    while world.frame < LIMIT and not world.success:
        world.step(expert.act(world))
    return world.success, world.frame


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=10_000)
    parser.add_argument("--scene", default="A")
    args = parser.parse_args()
    world, start = KochWorld(args.scene), time.process_time()
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    outcomes = [run_episode(world, seed) for seed in seeds]
    wins, frames = sum(success for success, _ in outcomes), [n for _, n in outcomes]
    low, high = wilson_interval(wins, len(outcomes))
    print(
        f"expert, scene {args.scene}, seeds {seeds[0]}-{seeds[-1]}: {wins}/{len(outcomes)} "
        f"(95 % interval {100 * low:.1f}-{100 * high:.1f} %), {sum(frames) / len(frames):.0f} frames, "
        f"{(time.process_time() - start) / len(outcomes):.2f} CPU s an episode"
    )


if __name__ == "__main__":
    main()
