#!/usr/bin/env python
"""SmolVLA at full size with random weights: parameters, saving, loading, one chunk, one training step, peak memory.

    python benchmarks/smolvla_450m.py [--device cpu] [--batch 2] [--repeat 2] [--published-dtypes]
    python benchmarks/smolvla_450m.py --peer PEER/bin/python --vlm VLM   # alternates with LeRobot 0.4.4, prints ratios

Only names that LeRobot 0.4.4 has as well are imported, so that one file measures both. VLM is a folder with the
configuration and tokenizer of SmolVLM2-500M-Video-Instruct. Times are seconds of CPU and of the clock: on a busy
machine compare the former.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

JOINTS, CAMERAS = 6, ("observation.images.laptop", "observation.images.phone")


def make_policy(args):
    """The defaults, two cameras of 480x640, a Koch arm; random weights, as published in bfloat16 if asked for."""
    import torch
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    from lerobot.configs.types import FeatureType, PolicyFeature

    inputs = {c: PolicyFeature(FeatureType.VISUAL, (3, 480, 640)) for c in CAMERAS}
    config = SmolVLAConfig(
        device=args.device,
        push_to_hub=False,
        input_features={"observation.state": PolicyFeature(FeatureType.STATE, (JOINTS,)), **inputs},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (JOINTS,))},
        **({"vlm_model_name": args.vlm} if args.vlm else {}),
    )
    policy = SmolVLAPolicy(config)
    if args.published_dtypes:  # those of a run with the hub's weights
        parts = policy.model.vlm_with_expert
        parts.vlm.to(torch.bfloat16)
        own = [lin for i in range(1, 16, 2) for lin in projections(parts.lm_expert.layers[i])]
        kept = {id(p) for lin in own for p in lin.parameters()}
        for p in parts.lm_expert.parameters():
            p.data = p.data if id(p) in kept else p.data.to(torch.bfloat16)
    return policy.to(args.device)


def projections(layer):
    """Keys and values of a cross layer, which stay in float32."""
    return layer.self_attn.k_proj, layer.self_attn.v_proj


def make_batch(size: int, chunk: int, device: str) -> dict:
    """A batch as the preprocessor gives it, twelve language tokens."""
    import torch

    batch = {
        "observation.state": torch.randn(size, JOINTS),
        **{c: torch.rand(size, 3, 480, 640) for c in CAMERAS},
        "observation.language.tokens": torch.randint(0, 49152, (size, 12)),
        "observation.language.attention_mask": torch.ones(size, 12, dtype=torch.bool),
        "action": torch.randn(size, chunk, JOINTS),
        "action_is_pad": torch.zeros(size, chunk, dtype=torch.bool),
    }
    return {k: v.to(device) for k, v in batch.items()}


def timed(run, repeat: int, warm: bool = True) -> dict:
    """Median seconds of `repeat` runs after one that is not counted."""
    if warm:
        run()
    wall, cpu = [], []
    for _ in range(repeat):
        start = time.perf_counter(), time.process_time()
        run()
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    return {"wall": sorted(wall)[repeat // 2], "cpu": sorted(cpu)[repeat // 2]}


def peak_gib() -> float:
    """Peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**3 if sys.platform == "darwin" else 1024**2)


def measure(args) -> dict:
    """Every number, for the `lerobot` that is imported."""
    import torch

    kept = []
    result = {"build": timed(lambda: kept.append(make_policy(args)), 1, warm=False)}
    policy = kept.pop()
    result["parameters"] = sum(p.numel() for p in policy.parameters())
    result["trained"] = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    batch = make_batch(args.batch, policy.config.chunk_size, args.device)
    one = {k: v[:1] for k, v in batch.items() if not k.startswith("action")}
    policy.eval()
    result["chunk"] = timed(lambda: policy.predict_action_chunk(dict(one)), args.repeat)
    optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())

    def train_step() -> None:
        policy.train()
        policy.forward(dict(batch))[0].backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 10)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if args.device != "cpu":
            torch.cuda.synchronize()

    result["train"] = timed(train_step, args.repeat)
    result["peak_gib"] = peak_gib()
    with tempfile.TemporaryDirectory() as folder:
        result["save"] = timed(lambda: policy.save_pretrained(folder), 1, warm=False)
        result["bytes"] = (Path(folder) / "model.safetensors").stat().st_size
        result["load"] = timed(lambda: kept.append(type(policy).from_pretrained(folder)), 1, warm=False)
    return result


def report(result: dict, args) -> None:
    """One number a line."""
    print(f"parameters {result['parameters']:,}, trained {result['trained']:,}; file {result['bytes']:,} bytes")
    names = {
        "build": "built",
        "chunk": "one chunk of 50 actions",
        "train": f"one training step, batch {args.batch}",
        "save": "saved",
        "load": "loaded",
    }
    for key, name in names.items():
        print(f"{name}: {result[key]['wall']:.2f} s, CPU {result[key]['cpu']:.2f} s")
    print(f"peak memory of the process: {result['peak_gib']:.2f} GiB")


def in_process_of(python: str, args, path: str) -> dict:
    """Run this file under an interpreter, with `path` before its packages."""
    flags = ["--device", args.device, "--batch", str(args.batch), "--repeat", str(args.repeat), "--json"]
    flags += ["--vlm", args.vlm] if args.vlm else []
    flags += ["--published-dtypes"] if args.published_dtypes else []
    env = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([python, __file__, *flags], env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(args) -> None:
    """Peer and project in turn under the peer's interpreter; prints project / peer of the medians."""
    project = str(Path(__file__).resolve().parents[1])
    found: dict[str, list] = {"peer": [], "project": []}
    for i in range(args.rounds):
        for side in ("peer", "project") if i % 2 == 0 else ("project", "peer"):
            found[side].append(in_process_of(args.peer, args, project if side == "project" else ""))
            print(side, found[side][-1], flush=True)
    for key in ("build", "chunk", "train", "save", "load"):
        for clock in ("wall", "cpu"):
            a, b = (sorted(r[key][clock] for r in found[s])[args.rounds // 2] for s in ("project", "peer"))
            print(f"{key} {clock}: {a:.2f} s / {b:.2f} s = {a / b:.2f}")
    a, b = (max(r["peak_gib"] for r in found[s]) for s in ("project", "peer"))
    print(f"peak memory: {a:.2f} GiB / {b:.2f} GiB = {a / b:.2f}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--published-dtypes", action="store_true", help="frozen parts and expert in bfloat16")
    parser.add_argument("--vlm", help="folder of the vision-language model's configuration and tokenizer")
    parser.add_argument("--peer", help="interpreter in which LeRobot 0.4.4 is installed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    args = parser.parse_args()
    if args.peer:
        return compare(args)
    result = measure(args)
    print(json.dumps(result)) if args.json else report(result, args)


if __name__ == "__main__":
    main()
