#!/usr/bin/env python
"""The same 50 training steps from every mode of --policy.frozen_features: losses side by side, and a plot.

    python benchmarks/loss_curves.py [--steps 50] [--batch 4] [--fill 16] [--full] [--plot docs/images/loss_curves.png]

SmolVLA with the widths of the 450M model and random frozen weights, trained by `lerobot/scripts/train.py` on one
episode of grasp_dataset. Without --full: four text layers, pictures of 128x128, so that a CPU does it in minutes.
Prints the largest relative difference between the losses of a mode and those of `none`. Where --fill (frames computed
together while a store is filled) is not --batch, products in bfloat16 may be rounded otherwise.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODES = ("none", "vision", "prefix")
LIMIT_S = 3600


def train(mode: str, vlm: Path, folder: Path, args) -> list[float]:
    """Losses of a run."""
    size, layers = (512, 16) if args.full else (128, args.layers)
    output = folder / mode
    command = [
        *(sys.executable, str(ROOT / "lerobot" / "scripts" / "train.py"), "--policy.type=smolvla"),
        *(f"--policy.vlm_model_name={vlm}", "--policy.load_vlm_weights=true", f"--policy.num_vlm_layers={layers}"),
        *(f"--policy.resize_imgs_with_padding=[{size},{size}]", f"--policy.frozen_features={mode}"),
        *(f"--policy.device={args.device}", f"--dataset.root={ROOT / 'grasp_dataset'}", "--dataset.episodes=[0]"),
        *(f"--steps={args.steps}", f"--batch_size={args.batch}", "--log_freq=1", "--save_checkpoint=false"),
        *("--num_workers=0", "--progress=false", f"--output_dir={output}", f"--features.dir={folder / 'features'}"),
        *("--features.device_gb=0", "--policy.scheduler_warmup_steps=10"),
        f"--features.batch_size={args.fill}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


def plot(curves: dict[str, list[float]], path: Path) -> None:
    """The losses over each other, and their relative differences to `none` below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    top = 1e-6  # what float32 rounds
    for i, (mode, losses) in enumerate(curves.items()):
        style = ("-", "--", ":")[i]
        steps = range(1, len(losses) + 1)
        above.plot(steps, losses, style, label=mode, linewidth=2)
        if mode != "none":
            differences = [abs(a - b) / b for a, b in zip(losses, curves["none"], strict=True)]
            below.plot(steps, differences, style, color=f"C{i}")
            top = max(top, *differences)
    below.set_ylim(-0.1 * top, 1.1 * top)
    above.set_ylabel("training loss")
    below.set(xlabel="step", ylabel="relative difference\nto none")
    above.legend(title="--policy.frozen_features")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--fill", type=int, default=16, help="frames computed together while a store is filled")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--full", action="store_true", help="450M: 16 text layers, pictures of 512x512")
    parser.add_argument("--plot", type=Path, help="PNG to write")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from benchmarks.smolvla_speed import make_vlm

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_vlm(folder / "vlm", 16 if args.full else args.layers)
        curves = {mode: train(mode, folder / "vlm", folder, args) for mode in MODES}
    print("step      " + "  ".join(f"{mode:>10}" for mode in MODES))
    for step in sorted({1, 2, 5, 10, 20, 30, 40, args.steps}):
        if step <= args.steps:
            print(f"{step:>4}      " + "  ".join(f"{curves[mode][step - 1]:10.6f}" for mode in MODES))
    for mode in MODES[1:]:
        worst = max(abs(a - b) / b for a, b in zip(curves[mode], curves["none"], strict=True))
        print(f"{mode}: {len(curves[mode])} losses, at most {worst:.1e} (relative) from those of none")
    if args.plot:
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        plot(curves, args.plot)


if __name__ == "__main__":
    main()
