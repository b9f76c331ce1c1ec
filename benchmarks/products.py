#!/usr/bin/env python
"""What a chunk of the 450M SmolVLA multiplies on a CPU: every product in bfloat16 and in 8 bits, with one thread.

    python benchmarks/products.py [--repeats 20] [--training]

Per product: how often a chunk (two pictures, ten denoising steps) has it, GFLOP of all of them, megabytes of weights
in bfloat16, milliseconds of a call with packed bfloat16 weights and with 8-bit ones, and of rounding its input to 8
bits. Each call finds other weights than the one before, as in the model. CPU time, the shortest of the repeats, which
take turns. With --training: forward and backward pass of the trained layers for four chunks, by nn.Linear and by
TrainedLinear, in bfloat16.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lerobot.common.policies.common.int8 import OneDnnInt8Linear
from lerobot.common.policies.common.packed_linear import PackedLinear
from lerobot.common.policies.common.trained_linear import TrainedLinear

# rows, inputs, outputs, calls of a chunk, whether a GELU follows
PRODUCTS = {
    "vision q, k, v, out": (2048, 768, 768, 48, False),
    "vision fc1 and GELU": (2048, 768, 3072, 12, True),
    "vision fc2": (2048, 3072, 768, 12, False),
    "connector": (128, 12288, 960, 1, False),
    "text gate, up": (141, 960, 2560, 30, False),
    "text down": (141, 2560, 960, 15, False),
    "text q, o": (141, 960, 960, 30, False),
    "text k, v": (141, 960, 320, 32, False),
    "expert gate, up": (50, 720, 2048, 320, False),
    "expert down": (50, 2048, 720, 160, False),
    "expert q": (50, 720, 960, 160, False),
    "expert o": (50, 960, 720, 160, False),
    "expert k, v": (50, 720, 320, 160, False),
}
MOST_LAYERS = 24
BATCH = 4  # chunks of a training step


def best_ms(ways: dict, repeats: int) -> dict[str, float]:
    """The shortest CPU time of each way, in milliseconds."""
    times = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.process_time()
            way()
            times[name].append(time.process_time() - start)
    return {name: 1e3 * min(found) for name, found in times.items()}


def each(layers: list, x, gelu: bool) -> None:
    """One call of every layer."""
    for layer in layers:
        layer(x, gelu=gelu)


def measure(rows: int, inputs: int, outputs: int, calls: int, gelu: bool, repeats: int) -> dict[str, float]:
    """Milliseconds of a call, each way."""
    x = torch.randn(rows, inputs).bfloat16()
    linears = [nn.Linear(inputs, outputs).bfloat16() for _ in range(min(calls, MOST_LAYERS))]
    packed, whole = [PackedLinear(layer) for layer in linears], [OneDnnInt8Linear(layer) for layer in linears]
    rounded = whole[0].round(x)
    ways = {"bf16": partial(each, packed, x, gelu), "int8": partial(run_rounded, whole, x, rounded, gelu)}
    found = best_ms({**ways, "rounding": partial(whole[0].round, x)}, repeats)
    if gelu:
        found["int8 to bytes"] = (
            best_ms({"": partial(to_bytes, whole, x)}, repeats)[""] - len(whole) * found["rounding"]
        )
    return {name: ms if name == "rounding" else ms / len(linears) for name, ms in found.items()}


def run_rounded(layers: list, x, rounded, gelu: bool) -> None:
    """One call of every layer, from bytes."""
    for layer in layers:
        layer.product(x, rounded, gelu)


def to_bytes(layers: list, x) -> None:
    """One call of every layer whose GELU is written as bytes."""
    for layer in layers:
        layer.rounded_gelu(x)


def train(layers: list, x, gradient) -> None:
    """Forward and backward pass of every layer."""
    for layer in layers:
        layer(x).backward(gradient)
        x.grad = layer.weight.grad = None


def measure_training(rows: int, inputs: int, outputs: int, repeats: int) -> dict[str, float]:
    """Milliseconds of a layer's forward and backward pass, each way."""
    x, gradient = torch.randn(rows, inputs).bfloat16().requires_grad_(), torch.randn(rows, outputs).bfloat16()
    kinds = {"nn.Linear": nn.Linear, "TrainedLinear": TrainedLinear}
    layers = {k: [kind(inputs, outputs, bias=False).bfloat16() for _ in range(16)] for k, kind in kinds.items()}
    found = best_ms({k: partial(train, each, x, gradient) for k, each in layers.items()}, repeats)
    return {k: ms / 16 for k, ms in found.items()}


def print_training(repeats: int) -> None:
    """One line per product of the expert."""
    for name, (rows, inputs, outputs, _, _) in PRODUCTS.items():
        if name.startswith("expert"):
            found = measure_training(BATCH * rows, inputs, outputs, repeats)
            times = "  ".join(f"{kind} {ms:6.3f} ms" for kind, ms in found.items())
            print(f"{name:<16} {times}  {found['nn.Linear'] / found['TrainedLinear']:.2f}x", flush=True)


def main() -> None:
    """Print one line per product."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--training", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.training:
        return print_training(args.repeats)
    with torch.inference_mode():
        for name, (rows, inputs, outputs, calls, gelu) in PRODUCTS.items():
            found = measure(rows, inputs, outputs, calls, gelu, args.repeats)
            flop = 2 * rows * inputs * outputs
            line = f"{name:<20} {calls:3d} x  {calls * flop / 1e9:6.1f} GFLOP  {inputs * outputs * 2e-6:5.1f} MB"
            for way, ms in found.items():
                rate = "" if way == "rounding" else f" ({flop / ms / 1e6:4.0f} GFLOP/s)"
                line += f"  {way} {ms:6.3f} ms{rate}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
