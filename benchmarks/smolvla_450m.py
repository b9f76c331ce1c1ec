#!/usr/bin/env python
"""SmolVLA at full size with random weights: parameters, one training step, one sampled chunk, peak memory.

python benchmarks/smolvla_450m.py [--device cpu] [--batch 2] [--repeat 2]
"""

import argparse
import resource
import sys
import time

import torch

from lerobot.common.policies.pretrained import count_parameters
from lerobot.common.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.common.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.configs.types import FeatureType, PolicyFeature

PICTURE = PolicyFeature(FeatureType.VISUAL, (3, 480, 640))
JOINTS = 6


def make_policy(device: str) -> SmolVLAPolicy:
    """The defaults, two cameras, a Koch arm."""
    config = SmolVLAConfig(
        device=device,
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (JOINTS,)),
            "observation.images.laptop": PICTURE,
            "observation.images.phone": PICTURE,
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (JOINTS,))},
    )
    return SmolVLAPolicy(config).to(device)


def make_batch(size: int, chunk: int, device: str) -> dict[str, torch.Tensor]:
    """A batch as the preprocessor gives it, twelve language tokens."""
    batch = {
        "observation.state": torch.randn(size, JOINTS),
        "observation.images.laptop": torch.rand(size, 3, 480, 640),
        "observation.images.phone": torch.rand(size, 3, 480, 640),
        "observation.language.tokens": torch.randint(0, 49152, (size, 12)),
        "observation.language.attention_mask": torch.ones(size, 12, dtype=torch.bool),
        "action": torch.randn(size, chunk, JOINTS),
        "action_is_pad": torch.zeros(size, chunk, dtype=torch.bool),
    }
    return {k: v.to(device) for k, v in batch.items()}


def timed(run, repeat: int) -> float:
    """Median seconds of `repeat` runs after one that is not counted."""
    run()
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[len(seconds) // 2]


def main() -> None:
    """Print the numbers, one a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=2)
    args = parser.parse_args()
    start = time.perf_counter()
    policy = make_policy(args.device)
    print(f"built in {time.perf_counter() - start:.1f} s on {args.device}, {torch.get_num_threads()} threads")
    print(f"parameters {count_parameters(policy):,}, trained {count_parameters(policy, trainable=True):,}")
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-4)
    batch = make_batch(args.batch, policy.config.chunk_size, args.device)

    def train_step() -> None:
        policy.train()
        loss, _ = policy.forward(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if args.device != "cpu":
            torch.cuda.synchronize()

    one = {k: v[:1] for k, v in batch.items() if not k.startswith("action")}
    policy.eval()
    chunk_s = timed(lambda: policy.predict_action_chunk(one), args.repeat)
    print(f"one chunk of {policy.config.chunk_size} actions: {chunk_s:.2f} s")
    print(f"one training step, batch {args.batch}: {timed(train_step, args.repeat):.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**3 if sys.platform == "darwin" else 1024**2)
    print(f"peak memory of the process: {peak:.2f} GiB")


if __name__ == "__main__":
    main()
