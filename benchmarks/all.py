#!/usr/bin/env python
"""Run every speed benchmark and write what they print into docs/benchmarks.md, for this kind of machine.

    python benchmarks/all.py --list                                 # what would run here
    python benchmarks/all.py [--peer-python PEER/bin/python] [--only NAME ...] [--device cuda] [--quick]

Each block of the page stands between two marks that name the benchmark and the machine (cpu or gpu). A run replaces its
own blocks, adds those that are missing, and leaves everything else, also the other machine's, as it is. A benchmark
that fails or takes longer than its limit keeps its old block, and the command ends with an error. --quick takes the
fewest repetitions and writes nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
PLACE = "<!-- benchmarks/all.py: new blocks go above this line -->"


@dataclass(frozen=True)
class Benchmark:
    """A command below benchmarks/, and how it runs on either machine.

    quick, written: what is added with --quick, and what without. limit_min: minutes after which it is ended.
    """

    title: str
    command: tuple[str, ...]
    quick: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    gpu: tuple[str, ...] = ()
    machines: tuple[str, ...] = ("cpu", "gpu")
    peer: bool = True
    limit_min: float = 60


BENCHMARKS = {
    "training": Benchmark(
        "SmolVLA (450M): training step by mode",
        ("smolvla_speed.py", "--only", "train"),
        quick=("--steps", "1", "--rounds", "1", "--layers", "2", "--batch", "1"),
        gpu=("--device", "cuda", "--batch", "64", "--steps", "20"),
    ),
    "best_batch": Benchmark(
        "SmolVLA (450M): training at a larger batch",
        ("smolvla_speed.py", "--only", "train", "--batch", "16", "--steps", "2", "--rounds", "1"),
        quick=("--steps", "1", "--layers", "2", "--batch", "2"),
        gpu=("--device", "cuda", "--batch", "256", "--steps", "10"),
        limit_min=120,
    ),
    "chunk": Benchmark(
        "SmolVLA (450M): one chunk of actions",
        ("smolvla_speed.py", "--only", "infer"),
        quick=("--steps", "1", "--rounds", "1", "--layers", "2"),
        gpu=("--device", "cuda", "--steps", "50"),
    ),
    "curves": Benchmark(
        "The same losses in every mode",
        ("loss_curves.py", "--fill", "4"),
        quick=("--steps", "3", "--layers", "2"),
        written=("--plot", "docs/images/loss_curves.png"),
        gpu=("--device", "cuda", "--full"),
        peer=False,
    ),
    "latency": Benchmark(
        "One plan of every policy",
        ("policies.py", "--what", "plan"),
        quick=("--steps", "1", "--rounds", "1", "--policies", "tdmpc", "act"),
        gpu=("--device", "cuda", "--steps", "20"),
    ),
    "steps": Benchmark(
        "One training step of every policy",
        ("policies.py",),
        quick=("--steps", "1", "--rounds", "1", "--policies", "tdmpc"),
        gpu=("--device", "cuda", "--steps", "20"),
    ),
    "loading": Benchmark(
        "Loading data", ("dataloading.py",), quick=("--repeat", "1", "--batches", "3", "--episodes", "2")
    ),
    "startup": Benchmark("Imports and start-up", ("startup.py",), quick=("--rounds", "1"), gpu=("--device", "cuda")),
    "headline": Benchmark(
        "Minutes to 20 000 steps of 64 samples, filling the store included",
        ("headline.py", "--compile", "true"),
        quick=("--steps", "20"),
        machines=("gpu",),
        peer=False,
    ),
    "headline_eager": Benchmark(
        "The same without torch.compile",
        ("headline.py",),
        quick=("--steps", "20"),
        machines=("gpu",),
        peer=False,
    ),
}


def machine(device: str) -> str:
    """What the numbers were measured on, in one line."""
    import torch

    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        models = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
        name = models[0] if models else name
    line = f"{os.cpu_count()} cores of {name}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    if device != "cpu":
        line = f"{torch.cuda.get_device_name()}; {line}"
    return f"{line}; load {os.getloadavg()[0]:.1f}"


def command_of(benchmark: Benchmark, args) -> list[str]:
    """The command line of a benchmark, as it can be typed in the root of the repository."""
    line = ["python", f"benchmarks/{benchmark.command[0]}", *benchmark.command[1:]]
    line += benchmark.gpu if args.device != "cpu" else ()
    line += benchmark.quick if args.quick else benchmark.written
    line += ["--peer-python", args.peer_python] if benchmark.peer and args.peer_python else []
    return line


def run(line: list[str], limit_min: float) -> str:
    """What the command prints. Raises RuntimeError where it fails or takes too long."""
    typed = [sys.executable, str(ROOT / line[1]), *line[2:]]
    try:
        done = subprocess.run(typed, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60 * limit_min)
    except subprocess.TimeoutExpired as e:
        raise RuntimeError(f"took more than {limit_min:.0f} minutes") from e
    if done.returncode:
        raise RuntimeError(f"ended with {done.returncode}; what it said stands above")
    return done.stdout.strip()


def block(name: str, title: str, kind: str, line: list[str], output: str, where: str) -> str:
    """A block of the page, marks included; a path of the peer is written as PEER."""
    shown = " ".join(line)
    shown = re.sub(r"--peer-python \S+", "--peer-python PEER/bin/python", shown)
    day = time.strftime("%Y-%m-%d")
    output = output if output.startswith("|") else f"```\n{output}\n```"  # a table is shown as one
    text = f"### {title} ({kind.upper()})\n\n`{shown}`, {day}, {where}:\n\n{output}"
    return f"{mark(name, kind)}\n{text}\n{mark(name, kind, end=True)}"


def mark(name: str, kind: str, end: bool = False) -> str:
    """The line before or behind a block."""
    return f"<!-- {'end of ' if end else ''}benchmark {name} {kind} -->"


def put(page: str, name: str, kind: str, new: str) -> str:
    """The page with a block replaced, or added. Raises ValueError where the page has no place for it."""
    first, last = mark(name, kind), mark(name, kind, end=True)
    if first in page and last in page:
        head, _, rest = page.partition(first)
        return head + new + rest.partition(last)[2]
    if PLACE not in page:
        raise ValueError(f"The page has neither the block '{first}' nor the line '{PLACE}'.")
    return page.replace(PLACE, f"{new}\n\n{PLACE}")


def main() -> None:
    """Run what was asked for, one benchmark after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", default="", help="python of an environment with LeRobot 0.4.4")
    parser.add_argument("--device", default="", help="cpu or cuda; default: cuda where there is one")
    parser.add_argument("--only", nargs="*", default=list(BENCHMARKS), choices=BENCHMARKS, metavar="NAME")
    parser.add_argument("--page", type=Path, default=PAGE, help="Markdown file to write into")
    parser.add_argument("--quick", action="store_true", help="do all of them run? Nothing is written")
    parser.add_argument("--list", action="store_true", help="only show the commands")
    args = parser.parse_args()
    if not args.device:
        import torch

        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    kind, failed = "cpu" if args.device == "cpu" else "gpu", []
    for name in args.only:
        benchmark = BENCHMARKS[name]
        if kind not in benchmark.machines:
            continue
        line = command_of(benchmark, args)
        print(f"{name}: {' '.join(line)}", flush=True)
        if args.list:
            continue
        start = time.perf_counter()
        try:
            output = run(line, benchmark.limit_min)
        except RuntimeError as e:
            failed.append(name)
            print(f"{name} {e}.", flush=True)
            continue
        print(f"{output}\n({time.perf_counter() - start:.0f} s)\n", flush=True)
        if not args.quick:
            new = block(name, benchmark.title, kind, line, output, machine(args.device))
            args.page.write_text(put(args.page.read_text("utf-8"), name, kind, new), "utf-8")
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
