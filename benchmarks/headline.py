#!/usr/bin/env python
"""Minutes to N training steps of SmolVLA (450M), filling the store included: the whole command, from a cold start.

    python benchmarks/headline.py                          # one GPU: 20 000 steps of 64 samples
    python benchmarks/headline.py --steps 5 --batch 4 --mode none --device cpu --episodes 2

Random weights in the size and precision of the published ones, on grasp_dataset. Prints the whole time, the parts that
the log tells, and the speed of the steps.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def command(vlm: Path, folder: Path, args) -> list[str]:
    """What a user would type, with the offline weights."""
    flags = [
        *("--policy.type=smolvla", f"--policy.vlm_model_name={vlm}", "--policy.load_vlm_weights=true"),
        *(f"--policy.frozen_features={args.mode}", f"--policy.device={args.device}", f"--policy.use_amp={args.amp}"),
        *(f"--policy.compile_model={args.compile}", f"--policy.compile_mode={args.compile_mode}"),
        *(f"--dataset.root={ROOT / 'grasp_dataset'}", f"--steps={args.steps}", f"--batch_size={args.batch}"),
        *(f"--num_workers={args.workers}", f"--features.dir={folder / 'features'}", "--features.batch_size=64"),
        *(f"--output_dir={folder / 'run'}", f"--log_freq={max(1, args.steps // 20)}", "--save_checkpoint=true"),
    ]
    if args.episodes:
        flags.append(f"--dataset.episodes={list(range(args.episodes))}".replace(" ", ""))
    return [sys.executable, str(ROOT / "lerobot" / "scripts" / "train.py"), *flags]


def main() -> None:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--mode", default="prefix", choices=("none", "vision", "prefix", "auto"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--episodes", type=int, default=0, help="of grasp_dataset; 0: all")
    parser.add_argument("--amp", default="false", choices=("true", "false"), help="bfloat16 autocast")
    parser.add_argument("--compile", default="false", choices=("true", "false"), help="torch.compile")
    parser.add_argument("--compile-mode", default="reduce-overhead")
    parser.add_argument("--limit-minutes", type=float, default=60)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from benchmarks.smolvla_speed import make_vlm

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_vlm(folder / "vlm", 16)
        start = time.perf_counter()
        typed = command(folder / "vlm", folder, args)
        limit = 60 * args.limit_minutes
        done = subprocess.run(typed, cwd=ROOT, capture_output=True, text=True, timeout=limit)
        minutes = (time.perf_counter() - start) / 60
        if done.returncode:
            sys.exit(f"{' '.join(typed)} failed:\n{done.stderr[-3000:]}")
        log = done.stdout + done.stderr
        rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    print(f"{args.steps} steps of {args.batch} samples, mode {args.mode}, {args.device}: {minutes:.2f} minutes in all")
    for said in re.findall(r"(?:Frozen features|Features are|Speed):? .*", log):
        print(said)
    speeds = sorted(1 / row["update_s"] for row in rows if row.get("update_s"))
    if speeds:
        print(f"steps/s by the log: median {speeds[len(speeds) // 2]:.2f} ({speeds[0]:.2f} to {speeds[-1]:.2f})")
    print(f"first and last loss: {rows[0].get('loss')}, {rows[-1].get('loss')}")


if __name__ == "__main__":
    main()
