#!/usr/bin/env python
"""Frames per second of training with 1, 2, ... processes, each with the same batch, and what that is of ideal scaling.

    python benchmarks/scaling.py --processes 1 2 4 8 -- --policy.type=act --dataset.root=grasp_dataset --batch_size=32
    python benchmarks/scaling.py --processes 2 4 --fsdp -- --policy.type=pi0 ...

What follows `--` goes to lerobot/scripts/train.py. On a machine with GPUs a process has one of them; on a CPU all share
the cores, so that only the cost of the exchange shows. A run takes `--steps` steps; the first half warms up and does
not count. No checkpoint is written.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEFAULT = ["--policy.type=act", "--policy.pretrained_backbone_weights=null", "--dataset.root=grasp_dataset"]


def environments(processes: int, fsdp: bool, cpu: bool) -> list[dict[str, str]]:
    """What `accelerate launch` sets for every process."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    shared = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    if processes > 1:
        shared |= {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        shared |= {"ACCELERATE_USE_CPU": str(cpu).lower(), "ACCELERATE_USE_FSDP": str(fsdp).lower()}
    return [shared | ({"RANK": str(r), "LOCAL_RANK": str(r)} if processes > 1 else {}) for r in range(processes)]


def frames_per_second(processes: int, flags: list[str], steps: int, fsdp: bool, cpu: bool, limit: float) -> float:
    """Frames that all processes train on in a second, from the second half of a run."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        own = [f"--output_dir={run}", f"--steps={steps}", f"--log_freq={steps // 2}", "--save_checkpoint=false"]
        command = [sys.executable, str(ROOT / "lerobot/scripts/train.py"), *flags, *own, "--eval_freq=0"]
        running = [
            subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            for env in environments(processes, fsdp, cpu)
        ]
        try:
            errors = [process.communicate(timeout=limit)[1] for process in running]
        finally:
            for process in running:
                process.kill()
        if any(process.returncode for process in running):
            raise RuntimeError("\n".join(error[-2000:] for error in errors))
        first, second = [
            json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if "loss" in line
        ]
    seconds = second["update_s"] + second["dataloading_s"]
    return (second["samples"] - first["samples"]) / (second["steps"] - first["steps"]) / seconds


def main() -> None:
    """Measure every number of processes and print the table."""
    import torch

    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    most = torch.cuda.device_count() or 2
    counts = [n for n in (1, 2, 4, 8, 16) if n <= most]
    flags.add_argument("--processes", type=int, nargs="+", default=counts, help="numbers of processes to measure")
    flags.add_argument("--steps", type=int, default=60, help="steps of a run; the second half is measured")
    flags.add_argument("--fsdp", action="store_true", help="divide the weights (FSDP2) in runs of several processes")
    flags.add_argument("--limit", type=float, default=1800, help="seconds after which a run is given up")
    flags.add_argument("train", nargs="*", help="flags of train.py, after --")
    given = flags.parse_args()
    cpu = not torch.cuda.is_available()
    train = given.train or DEFAULT
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    machine = f"a CPU with {os.cpu_count()} cores, {threads} thread each" if cpu else f"{most} GPUs"
    print(f"{' '.join(train)}\n{machine}{', FSDP2' if given.fsdp else ''}\n")
    print("processes  frames/s  of one process  of ideal", flush=True)
    base = None
    for count in given.processes:
        speed = frames_per_second(count, train, given.steps, given.fsdp and count > 1, cpu, given.limit)
        base = base or speed / count
        print(f"{count:9d}  {speed:8.1f}  {speed / base:14.2f}  {speed / base / count:8.2f}", flush=True)


if __name__ == "__main__":
    main()
