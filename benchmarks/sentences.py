#!/usr/bin/env python
"""Does a policy do what the sentence says? Its first chunk in scene B, with each cube on the table named in turn.

    python benchmarks/sentences.py CHECKPOINT [CHECKPOINT ...]

The layouts are of seeds that no recording and no evaluation uses. A chunk goes for the cube that is nearest, in the
angle of the first joint, to where its last action turns the arm. It takes seconds, and tells long before episodes
succeed whether a policy listens.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from lerobot.common.constants import OBS_IMAGES, OBS_STATE
from lerobot.common.constants import TASK as SENTENCE
from lerobot.common.envs.koch_sim.expert import OPEN
from lerobot.common.envs.koch_sim.kinematics import reach_down
from lerobot.common.envs.koch_sim.scene import CUBE_HALF, TASK
from lerobot.common.envs.koch_sim.world import KochWorld
from lerobot.common.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.common.utils.device import mixed_precision
from lerobot.common.utils.utils import run_command
from lerobot.configs.policies import PreTrainedConfig

SEED0 = 30_000
CAMERAS = ("laptop", "phone")
BATCH = 32
CHUNK = 40
TURNED = 0.91  # of the way to the cube that the expert has turned after so many frames


def moments(count: int) -> list[dict]:
    """Per layout: colours, the angle of each cube in degrees, pictures (3, H, W) in [0, 1], joints (6,)."""
    world, found = KochWorld("B"), []
    for seed in range(SEED0, SEED0 + count):
        world.reset(seed)
        angles = [
            float(reach_down(np.array([x, y, CUBE_HALF + 0.001]), 0.0, OPEN)[0]) for x, y, _ in world.layout.poses
        ]
        pictures = {c: torch.from_numpy(world.render(c).copy()).permute(2, 0, 1).float() / 255 for c in CAMERAS}
        joints = torch.tensor(world.joint_angles(), dtype=torch.float32)
        found.append({"colours": world.layout.colours, "angles": angles, "pictures": pictures, "joints": joints})
    world.close()
    return found


@torch.no_grad()
def turns(path: str, asked: list[tuple[dict, int]], blank: bool) -> np.ndarray:
    """Where the chunk for each (layout, cube) turns the first joint, degrees; blank: pictures of one grey."""
    config = PreTrainedConfig.from_pretrained(path)
    policy = get_policy_class(config.type).from_pretrained(path, config=config).eval()
    preprocessor, postprocessor = make_pre_post_processors(config, path)
    noise = {}
    if config.type == "smolvla":  # the same for all, so that they differ by what is seen and said
        drawn = torch.randn(1, config.chunk_size, config.max_action_dim, generator=torch.Generator().manual_seed(0))
        noise = {"noise": drawn}
    found = []
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        batch = {OBS_STATE: torch.stack([layout["joints"] for layout, _ in part])}
        batch[SENTENCE] = [TASK.format(colour=layout["colours"][cube]) for layout, cube in part]
        for camera in CAMERAS:
            shown = torch.stack([layout["pictures"][camera] for layout, _ in part])
            shown = shown.mean((-1, -2), keepdim=True).expand_as(shown).contiguous() if blank else shown
            batch[f"{OBS_IMAGES}.{camera}"] = shown
        same = {key: value.expand(len(part), -1, -1).contiguous() for key, value in noise.items()}
        with mixed_precision(config.device, config.use_amp):
            chunk = postprocessor(policy.predict_action_chunk(preprocessor(batch), **same))
        if chunk.shape[1] != CHUNK:
            raise ValueError(f"{path}: its chunks have {chunk.shape[1]} actions; what is measured needs {CHUNK}.")
        found.append(chunk[:, -1, 0].float().cpu())
    return torch.cat(found).numpy() / TURNED


def measure(path: str, layouts: list[dict]) -> str:
    """One line on a checkpoint."""
    asked = [(layout, cube) for layout in layouts for cube in range(len(layout["colours"]))]
    turned, blind = turns(path, asked, False), turns(path, asked, True)
    off = [np.abs(np.array(layout["angles"]) - angle) for (layout, _), angle in zip(asked, turned, strict=True)]
    named = np.mean([one.argmin() == cube for (_, cube), one in zip(asked, off, strict=True)])
    chance = np.mean([1 / len(layout["colours"]) for layout, _ in asked])
    ends = np.cumsum([0] + [len(layout["colours"]) for layout in layouts])
    spread = np.mean([np.ptp(turned[a:b]) for a, b in zip(ends, ends[1:], strict=False)])
    wrong = np.mean([one[cube] for (_, cube), one in zip(asked, off, strict=True)])
    return (
        f"{path}: goes for the named cube in {named:.0%} of {len(asked)} (chance {chance:.0%}), {wrong:.1f} degrees "
        f"off it; the sentences of a layout turn it {spread:.1f} degrees apart; without pictures it turns "
        f"{np.abs(turned - blind).mean():.1f} degrees elsewhere"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", help="policies with chunks of 40 actions")
    parser.add_argument("--layouts", type=int, default=60)
    args = parser.parse_args()
    layouts = moments(args.layouts)
    for path in args.checkpoints:
        print(measure(path, layouts), flush=True)


if __name__ == "__main__":
    run_command(main)
