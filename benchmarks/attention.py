#!/usr/bin/env python
"""Attention over the patches of a picture in bfloat16 on a CPU: milliseconds per head, and how far each way is off.

    python benchmarks/attention.py [--keys 1024] [--width 64]

Errors are norms of the difference to double precision over the norm. The last lines compare whole vision towers of the
450M model (random weights, one picture) with the same tower in float32: as this project computes it, and as LeRobot
0.4.4 does (torch's attention in bfloat16, a GELU after its product). Times are the best of many short calls, with one
thread.
"""

import argparse
import copy
import sys
import time
from functools import partial
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lerobot.common.policies.common import siglip
from lerobot.common.policies.common.long_attention import attend_long

REPEATS = 100


def in_float32(q, k, v):
    """torch's attention in float32, rounded at its end."""
    return F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(v.dtype)


def with_rounded_scores(q, k, v):
    """Scores rounded to bfloat16 before the softmax."""
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1) @ v


WAYS = {
    "float32": in_float32,
    "torch in bfloat16": F.scaled_dot_product_attention,
    "scores in bfloat16": with_rounded_scores,
    "exponentials in the product": attend_long,
}


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative error."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def best_ms(run) -> float:
    """The shortest of many calls, in milliseconds."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def compare_ways(keys: int, width: int) -> None:
    """One line per way."""
    inputs = [torch.randn(1, 1, keys, width).bfloat16() for _ in range(3)]
    truth = F.scaled_dot_product_attention(*(x.double() for x in inputs))
    for name, way in WAYS.items():
        print(f"{name:<28} {best_ms(partial(way, *inputs)):6.2f} ms  off by {off(way(*inputs), truth):.2%}")


def compare_towers() -> None:
    """How far whole vision towers are off."""
    tower = siglip.VisionModel(
        siglip.VisionConfig(hidden_size=768, num_attention_heads=12, image_size=512, patch_size=16)
    )
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, std=0.02) if parameter.ndim > 1 else None
    half, picture = copy.deepcopy(tower).bfloat16(), torch.rand(1, 3, 512, 512).bfloat16() * 2 - 1
    tower.load_state_dict(half.state_dict())  # the same, rounded, weights
    truth = tower(picture.float())[0]
    print(f"vision tower here            off by {off(half(picture)[0], truth):.2%}")
    with (
        mock.patch.object(siglip, "attend", F.scaled_dot_product_attention),
        mock.patch.object(siglip, "linear_gelu_linear", lambda a, b, x: b(F.gelu(a(x), approximate="tanh"))),
    ):
        print(f"as LeRobot 0.4.4 rounds it   off by {off(half(picture)[0], truth):.2%}")


def main() -> None:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1024)
    parser.add_argument("--width", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        compare_ways(args.keys, args.width)
        compare_towers()


if __name__ == "__main__":
    main()
