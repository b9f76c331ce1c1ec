#!/usr/bin/env python
"""Seconds until something happens: imports, and the end of the first training step, beside LeRobot 0.4.4.

    python benchmarks/startup.py [--peer-python PEER/bin/python] [--device cuda] [--rounds 3]

Both sides in turn, each in a fresh process of its own environment (give one with the same torch), from bytecode: a
first process of each side writes it and does not count. Start-up is the time of the training command with one step
(ACT, batch 1, two 480x640 cameras, no workers) less the time of a later step: what it does before the first step, and
at its end.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

PROJECT = Path(__file__).resolve().parents[1]
IMPORTS = {
    "dataset": "from lerobot.datasets.lerobot_dataset import LeRobotDataset",
    "act": "from lerobot.policies.act.modeling_act import ACTPolicy",
    "smolvla": "from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy",
    "training script": "import lerobot.scripts.lerobot_train",
}
LIMIT_S, STEPS = 900, 4
NOT_PASSED = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}


def run(python: str, here: bool, arguments: list[str]) -> tuple[float, float]:
    """(seconds, CPU seconds) of a fresh interpreter, with this project on its path or not."""
    environment = {k: v for k, v in os.environ.items() if k not in NOT_PASSED} | {"HF_HUB_OFFLINE": "1"}
    if here:
        environment["PYTHONPATH"] = str(PROJECT)
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(
        [python, *arguments], env=environment, cwd="/", capture_output=True, text=True, timeout=LIMIT_S
    )
    if done.returncode:
        sys.exit(f"{python} {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, cpu


def training(root: Path, folder: str, steps: int, device: str) -> list[str]:
    """The training command of either side."""
    return [
        *("-m", "lerobot.scripts.lerobot_train", "--policy.type=act", "--policy.pretrained_backbone_weights=null"),
        *(f"--policy.device={device}", "--policy.push_to_hub=false", "--dataset.repo_id=bench/grasps"),
        *(f"--dataset.root={root}", f"--output_dir={folder}/run{time.time_ns()}", f"--steps={steps}"),
        *("--batch_size=1", "--num_workers=0", "--save_checkpoint=false", "--wandb.enable=false", "--eval_freq=0"),
    ]


def startup(python: str, here: bool, root: Path, folder: str, device: str) -> tuple[float, float]:
    """Seconds, and CPU seconds, that come before and after the steps."""
    one = run(python, here, training(root, folder, 1, device))
    more = run(python, here, training(root, folder, STEPS, device))
    return tuple(a - (b - a) / (STEPS - 1) for a, b in zip(one, more, strict=True))


def report(name: str, found: dict[str, list[tuple[float, float]]]) -> None:
    """One line: medians with their range, and the ratio of the CPU seconds and of the clock."""
    line = f"{name:<22}"
    for side, values in found.items():
        wall, cpu = ([v[i] for v in values] for i in (0, 1))
        line += f"  {side} {median(wall):5.2f} s ({min(wall):.2f}-{max(wall):.2f}), CPU {median(cpu):5.2f}"
    if len(found) == 2:
        ours, peer = found.values()
        ratios = [median(v[i] for v in ours) / median(v[i] for v in peer) for i in (0, 1)]
        line += f"  ratio {ratios[0]:.2f}, CPU {ratios[1]:.2f}"
    print(line, flush=True)


def main() -> None:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="python of an environment with LeRobot 0.4.4")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    sides = {"here": sys.executable, **({"LeRobot 0.4.4": args.peer_python} if args.peer_python else {})}
    for name, code in IMPORTS.items():
        found: dict[str, list] = {side: [] for side in sides}
        for _ in range(args.rounds + 1):
            for side, python in sides.items():
                found[side].append(run(python, side == "here", ["-c", code]))
        report(f"import {name}", {side: values[1:] for side, values in found.items()})
    sys.path.insert(0, str(PROJECT))
    from benchmarks.dataloading import record

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "grasps"
        record(root, 2, 60, 480, 640)
        found = {side: [] for side in sides}
        for side, python in sides.items():
            run(python, side == "here", training(root, folder, 1, args.device))
        for _ in range(args.rounds):
            for side, python in sides.items():
                found[side].append(startup(python, side == "here", root, folder, args.device))
        report("start-up", found)


if __name__ == "__main__":
    main()
