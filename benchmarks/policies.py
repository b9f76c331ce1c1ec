#!/usr/bin/env python
"""Seconds of one training step, or of one plan, of each policy at its default size beside LeRobot 0.4.4, same torch.

python benchmarks/policies.py                                          this repository alone
python benchmarks/policies.py --peer-python PEER/bin/python            both, in turns: ours, peer, ours, peer
python benchmarks/policies.py --what plan [--device cuda]              the latency of `select_action` when it plans

PEER is an environment with LeRobot 0.4.4; both are then run by its interpreter, so that torch is the same. A step is
forward, backward, clipping, optimizer of 8 samples; a plan is that of one observation, with --policy.inference=exact;
weights are random. Times are processor seconds of the process (on a GPU seconds), with one thread the time of an idle
machine; range in brackets. The ratio is ours over the peer's: below 1 is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

JOINTS, BATCH = 6, 8
# Cameras and their (height, width); fields that keep weights from being fetched, or pick a phase.
CASES = {
    "act": {"pictures": (2, 240, 320), "fields": {"pretrained_backbone_weights": None}},
    "act_dinov2": {"pictures": (2, 240, 320), "fields": {"pretrained_backbone_weights": None}},
    "diffusion": {"pictures": (1, 96, 96), "fields": {"crop_shape": (84, 84)}},
    "tdmpc": {"pictures": (1, 84, 84), "fields": {}},
    "vqbet": {"pictures": (1, 96, 96), "fields": {}},
    "vqbet_phase_2": {"pictures": (1, 96, 96), "fields": {"n_vqvae_training_steps": 1}},
    "smolvla": {"pictures": (2, 240, 320), "fields": {}},
    "pi0_small": {
        "pictures": (2, 240, 320),
        "fields": {"dtype": "bfloat16", "paligemma_variant": "gemma_300m"},  # 1.1 of 3.5 G parameters
    },
    "pi0": {"pictures": (2, 240, 320), "fields": {"dtype": "bfloat16"}},
}
WITHOUT_PEER = ("act_dinov2", "pi0", "pi0_small")  # 0.4.4 lacks the one; its pi0 needs a transformers of its own
DEFAULT = {
    "train": ["act", "act_dinov2", "diffusion", "tdmpc", "vqbet", "vqbet_phase_2"],
    "plan": ["act", "act_dinov2", "diffusion", "tdmpc", "vqbet", "smolvla", "pi0_small"],
}


def make_policy(case: str, vlm: str | None, device: str):
    """The policy at its default size, through names that both packages have."""
    from lerobot.policies.factory import get_policy_class, make_policy_config

    from lerobot.configs.types import FeatureType, PolicyFeature

    cameras, *size = CASES[case]["pictures"]
    picture = PolicyFeature(FeatureType.VISUAL, (3, *size))
    inputs = {"observation.state": PolicyFeature(FeatureType.STATE, (JOINTS,))}
    names = ["observation.image"] if case == "tdmpc" else [f"observation.images.camera{i}" for i in range(cameras)]
    inputs |= dict.fromkeys(names, picture)
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (JOINTS,))}
    fields = {**CASES[case]["fields"], "device": device, "push_to_hub": False}
    if case == "smolvla" and vlm:
        fields["vlm_model_name"] = vlm
    name = case.partition("_phase")[0].removesuffix("_small")
    config = make_policy_config(name, input_features=inputs, output_features=outputs, **fields)
    return get_policy_class(name)(config).to(device)


def make_observation(config) -> dict:
    """One preprocessed observation."""
    import torch

    observation = {k: torch.rand(1, *f.shape) for k, f in config.input_features.items()}
    if config.type in ("smolvla", "pi0"):
        observation["observation.language.tokens"] = torch.randint(0, 1000, (1, 12))
        observation["observation.language.attention_mask"] = torch.ones(1, 12, dtype=torch.bool)
    return {k: v.to(config.device) for k, v in observation.items()}


def make_batch(config) -> dict:
    """A preprocessed batch with the frames that the policy asks for."""
    import torch

    observed, acted = config.observation_delta_indices, config.action_delta_indices
    steps = [len(observed)] if observed else []
    batch = {k: torch.rand(BATCH, *steps, *f.shape) for k, f in config.input_features.items()}
    batch["action"] = torch.rand(BATCH, len(acted), JOINTS) * 2 - 1
    batch["action_is_pad"] = torch.zeros(BATCH, len(acted), dtype=torch.bool)
    if config.reward_delta_indices:
        rewards = len(config.reward_delta_indices)
        batch["next.reward"] = torch.rand(BATCH, rewards)
        batch["index"] = torch.arange(BATCH)
        pads = {"next.reward": rewards, **{k: len(observed) for k in config.input_features}}
        batch |= {f"{k}_is_pad": torch.zeros(BATCH, n, dtype=torch.bool) for k, n in pads.items()}
    if config.type in ("smolvla", "pi0"):
        batch["observation.language.tokens"] = torch.randint(0, 1000, (BATCH, 12))
        batch["observation.language.attention_mask"] = torch.ones(BATCH, 12, dtype=torch.bool)
    return {k: v.to(config.device) for k, v in batch.items()}


def train_step(policy):
    """A function that takes one training step."""
    import torch

    preset = policy.config.get_optimizer_preset()
    optimizer = preset.build(policy.get_optim_params())
    batch = make_batch(policy.config)
    policy.train()

    def step() -> None:
        loss, _ = policy.forward(dict(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), preset.grad_clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        if hasattr(policy, "update"):
            policy.update()

    return step


def plan(policy):
    """A function that plans once."""
    observation = make_observation(policy.config)
    policy.eval()
    if hasattr(policy.config, "inference"):
        from lerobot.common.policies.common.fast_inference import use_inference_mode

        use_inference_mode(policy)

    def step() -> None:
        policy.reset()
        policy.select_action(dict(observation))

    return step


def work(args) -> None:
    """Time `steps` training steps or plans after two that are not counted; prints one line of JSON."""
    import torch

    import lerobot

    torch.set_num_threads(1)
    torch.manual_seed(0)
    policy = make_policy(args.case, args.vlm, args.device)
    size = sum(p.numel() for p in policy.parameters())
    step = {"train": train_step, "plan": plan}[args.what](policy)
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    seconds = []
    for _ in range(args.steps + 2):
        start = clock()
        step()
        if args.device != "cpu":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
    package = str(Path(lerobot.__file__).parent)
    print(json.dumps({"seconds": seconds[2:], "parameters": size, "torch": torch.__version__, "package": package}))


def run(python: str, case: str, args, ours: bool) -> dict:
    """`work` in a process of its own, with this repository on the path or without."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    if ours:
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    flags = ["--case", case, "--steps", str(args.steps), "--what", args.what, "--device", args.device]
    flags += ["--vlm", args.vlm] if args.vlm else []
    command = [python, str(Path(__file__).resolve()), *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(case: str, args) -> str:
    """A row of the table."""
    with_peer = args.peer_python and case not in WITHOUT_PEER
    found: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(args.rounds):
        for side in ("ours", "peer") if with_peer else ("ours",):
            result = run(args.peer_python or sys.executable, case, args, ours=side == "ours")
            found[side] += result["seconds"]
            print(f"{case} {side} {result['package']} torch {result['torch']}: {result['seconds']}", file=sys.stderr)
    ours = median(found["ours"])
    peer = f"{spread(found['peer'])} | {ours / median(found['peer']):.2f}" if with_peer else "- | -"
    return f"| {case} | {result['parameters'] / 1e6:.1f} M | {spread(found['ours'])} | {peer} |"


def spread(seconds: list[float]) -> str:
    """Median, and from least to most."""
    return f"{median(seconds):.3f} ({min(seconds):.3f}-{max(seconds):.3f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="interpreter of an environment with LeRobot 0.4.4")
    parser.add_argument("--what", choices=DEFAULT, default="train")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--policies", nargs="*", choices=CASES)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--steps", type=int, default=3, help="timed steps in a turn")
    parser.add_argument("--vlm", help="folder of the vision-language model for smolvla")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        return work(args)
    print("| policy | parameters | ours, s | LeRobot 0.4.4, s | ratio |\n|---|---|---|---|---|")
    for case in args.policies or DEFAULT[args.what]:
        print(measure(case, args), flush=True)


if __name__ == "__main__":
    main()
