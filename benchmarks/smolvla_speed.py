#!/usr/bin/env python
"""SmolVLA (450M): training samples/s without a store, from kept picture tokens and from a kept prefix; chunk latency.

    python benchmarks/smolvla_speed.py [--peer-python PEER/bin/python] [--only train|infer] [--batch 4] [--steps 3]

Beside LeRobot 0.4.4, if PEER has it. Two 480x640 cameras, chunks of 50, twelve-token sentence, the dtypes of a run with
pretrained weights (bfloat16 language model and expert). A step is forward, backward, clipping and AdamW; for the stores
it includes reading the records. Each side has a process of its own; on a CPU they take turns step by step, so that a
machine that becomes slower does so for all. The median over all steps counts, the first step of a process does not.
Activations are the peak during the steps less weights, gradients and moments.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

PROJECT = Path(__file__).resolve().parents[1]
PROCESSOR_FILES = PROJECT / "tests" / "artifacts" / "smolvla033_koch" / "vlm"
CONFIG = (
    PROJECT / "lerobot" / "common" / "policies" / "smolvla" / "sizes" / "SmolVLM2-500M-Video-Instruct" / "config.json"
)
CAMERAS, JOINTS, TOKENS = ("observation.images.laptop", "observation.images.phone"), 6, 12
MODES = ("none", "vision", "prefix")
CHUNKS = ("exact", "bf16", "int8")


# --- what either interpreter runs, with the module names of LeRobot 0.4.4 -------------------------------------


def make_vlm(folder: Path, layers: int) -> None:
    """A vision-language model of full size with random bfloat16 weights, which both sides can load."""
    import torch
    from transformers import AutoConfig, SmolVLMForConditionalGeneration

    shutil.copytree(PROCESSOR_FILES, folder, dirs_exist_ok=True)
    raw = json.loads(CONFIG.read_text())
    raw["text_config"]["num_hidden_layers"] = layers  # SmolVLA keeps 16 of 32: the others need not be written
    (folder / "config.json").write_text(json.dumps(raw))
    torch.manual_seed(1)
    with torch.device("meta"):
        model = SmolVLMForConditionalGeneration(AutoConfig.from_pretrained(folder))
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.02)
    model.save_pretrained(folder)


def make_policy(vlm: Path, device: str, layers: int):
    """SmolVLA with its defaults, started from `vlm`."""
    import torch
    from lerobot.policies.factory import get_policy_class, make_policy_config

    from lerobot.configs.types import FeatureType, PolicyFeature

    config = make_policy_config(
        "smolvla",
        device=device,
        push_to_hub=False,
        load_vlm_weights=True,
        vlm_model_name=str(vlm),
        num_vlm_layers=layers,
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (JOINTS,)),
            **{camera: PolicyFeature(FeatureType.VISUAL, (3, 480, 640)) for camera in CAMERAS},
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (JOINTS,))},
    )
    torch.manual_seed(2)
    return get_policy_class("smolvla")(config).to(device)


def make_batch(size: int, device: str) -> dict:
    """A batch as the preprocessor gives it."""
    import torch

    batch = {
        "observation.state": torch.randn(size, JOINTS),
        **{camera: torch.rand(size, 3, 480, 640) for camera in CAMERAS},
        "observation.language.tokens": torch.randint(0, 500, (size, TOKENS)),
        "observation.language.attention_mask": torch.ones(size, TOKENS, dtype=torch.bool),
        "action": torch.randn(size, 50, JOINTS),
        "action_is_pad": torch.zeros(size, 50, dtype=torch.bool),
        "actions_id_pad": torch.zeros(size, 50, dtype=torch.bool),  # the name that 0.4.4 looks for
    }
    return {key: value.to(device) for key, value in batch.items()}


def make_store(policy, mode: str, frames: int, folder: str):
    """A store of `frames` random frames, and the seconds per frame that filling it took."""
    from lerobot.common.datasets.frame_store import FrameStore

    store, start = None, time.perf_counter()
    for first in range(0, frames, 4):
        found = policy.frozen_features(make_batch(4, policy.config.device), mode)
        found = {key: value.cpu() for key, value in found.items()}
        if store is None:
            arrays = {key: (value.dtype, tuple(value.shape[1:])) for key, value in found.items()}
            store = FrameStore(Path(folder) / mode, arrays, frames, 1, {})
        for key, value in found.items():
            store.write(key, first, value)
    store.mark_done(0, range(frames))
    store.share()
    return store, (time.perf_counter() - start) / frames


def measure_chunks(args) -> dict:
    """Seconds of each chunk after the first; the error against the exact chunk where it is not exact."""
    import torch

    policy = make_policy(args.vlm, args.device, args.layers).eval()
    batch = {key: value for key, value in make_batch(1, args.device).items() if not key.startswith("action")}
    noise = torch.randn(1, 50, 32).to(args.device)
    report: dict = {"steps": [], "cpu": []}
    if hasattr(policy.config, "inference"):  # this project
        from lerobot.common.policies.common.fast_inference import use_inference_mode

        with torch.no_grad():
            expected = policy.predict_action_chunk(batch, noise=noise)
        policy.config.inference = args.mode
        use_inference_mode(policy)
    for _ in turns(args.steps):
        start, cpu = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            found = policy.predict_action_chunk(batch, noise=noise)
        if args.device != "cpu":
            torch.cuda.synchronize()
        report["steps"].append(time.perf_counter() - start)
        report["cpu"].append(time.process_time() - cpu)
    report["steps"], report["cpu"] = report["steps"][1:], report["cpu"][1:]
    report["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if hasattr(policy.config, "inference"):
        report["error"] = (found - expected).abs().mean().item()
    return report


def turns(steps: int):
    """A first turn, then one for each line that comes; says when one is over and the next may begin."""
    yield
    for _ in range(steps):
        print("done", flush=True)
        sys.stdin.readline()
        yield


def measure(args) -> dict:
    """Seconds of each training step after the first, and peak memory."""
    if args.mode in CHUNKS:
        return measure_chunks(args)
    import torch

    policy = make_policy(args.vlm, args.device, args.layers)
    optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())
    report: dict = {"steps": [], "cpu": []}
    features, clip = None, torch.nn.utils.clip_grad_norm_
    if hasattr(policy.config, "frozen_features"):  # this project: as its training loop does
        from lerobot.common.optim.clipping import clip_gradients as clip
        from lerobot.common.utils.memory import keep_all_freed_pages

        if args.device == "cpu":
            keep_all_freed_pages()
    if args.mode != "none":
        from lerobot.common.training.frozen_features import FrozenFeatures

        policy.eval()
        store, report["fill_s_per_frame"] = make_store(policy, args.mode, 8, args.vlm)
        report["bytes_per_frame"] = sum(store.record_bytes(key) for key in store.keys)
        features = FrozenFeatures(store, torch.device(args.device))
    policy.train()
    memory = Memory(args.device)
    for _ in turns(args.steps):
        batch = make_batch(args.batch, args.device)
        if features is not None:
            batch = {key: value for key, value in batch.items() if key not in CAMERAS}
        start, cpu = time.perf_counter(), time.process_time()
        if features is not None:
            batch |= features(torch.randint(8, (args.batch,)))
        loss, _ = policy.forward(batch)
        loss.backward()
        clip(policy.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if args.device != "cpu":
            torch.cuda.synchronize()
        report["steps"].append(time.perf_counter() - start)
        report["cpu"].append(time.process_time() - cpu)
    report["steps"], report["cpu"] = report["steps"][1:], report["cpu"][1:]
    report["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if args.device != "cpu":
        report["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    trained = sum(p.numel() * p.element_size() for p in policy.parameters() if p.requires_grad)
    report["activations_gib"] = max(0, memory.added() - 3 * trained) / 2**30  # gradients and two moments
    return report


class Memory:
    """Bytes that come on top from here on, at most: of the GPU, or of this process (Linux)."""

    def __init__(self, device: str):
        self.cuda = device != "cpu"
        if self.cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        self.before = self._read("VmRSS")

    def added(self) -> int:
        """Peak since then, less what there was."""
        return self._read("VmHWM") - self.before

    def _read(self, name: str) -> int:
        if self.cuda:
            import torch

            return torch.cuda.memory_allocated() if name == "VmRSS" else torch.cuda.max_memory_allocated()
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
        return int(line.split()[1]) * 1024


# --- the comparison -------------------------------------------------------------------------------------------


class Side:
    """One measurement in a process of its own; `here` puts this project before an installed `lerobot`."""

    def __init__(self, python: str, here: bool, mode: str, args):
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment.pop("PYTHONPATH", None)
        if here:
            environment["PYTHONPATH"] = str(PROJECT)
        self.command = [python, *([] if here else ["-P"]), __file__, "--measure", "--mode", mode]
        for name in ("vlm", "batch", "steps", "device", "layers"):
            self.command += [f"--{name}", str(getattr(args, name))]
        self.errors, pipe = tempfile.TemporaryFile("w+"), subprocess.PIPE  # noqa: SIM115 (open as long as the process)
        self.process = subprocess.Popen(
            self.command, env=environment, stdin=pipe, stdout=pipe, stderr=self.errors, text=True
        )
        self._line()

    def turn(self) -> None:
        """One more step."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.last = self._line()

    def report(self) -> dict:
        """What it measured, after the last step."""
        self.process.wait()
        return json.loads(self.last)

    def _line(self) -> str:
        """What it says next, a step being over; libraries may say other things before."""
        for line in self.process.stdout:
            if line == "done\n" or line.startswith("{"):
                return line
        self.errors.seek(0)
        sys.exit(f"{' '.join(self.command)} failed:\n{self.errors.read()[-2000:]}")


def run_sides(sides: list[tuple], args) -> list[dict]:
    """The reports of a round: processes in turns, step by step; on a GPU, for its memory, one after another."""
    groups = [sides] if args.device == "cpu" else [[side] for side in sides]
    reports = []
    for group in groups:
        running = [Side(*side, args) for side in group]
        for _ in range(args.steps):
            for side in running:
                side.turn()
        reports += [side.report() for side in running]
    return reports


def compare(args, title: str, modes: tuple[str, ...], batch: int) -> None:
    """Alternate the sides and print one line for each."""
    sides = [(mode, sys.executable, True, mode) for mode in modes]
    if args.peer_python:
        sides.insert(0, ("LeRobot 0.4.4", args.peer_python, False, modes[0]))
    results: dict[str, list[dict]] = {name: [] for name, *_ in sides}
    for _ in range(args.rounds):
        for (name, *_), report in zip(sides, run_sides([side[1:] for side in sides], args), strict=True):
            results[name].append(report)
    base = base_cpu = None
    print(f"{title}, batch {batch}, {args.device}")
    for name, reports in results.items():
        steps = [s for r in reports for s in r["steps"]]
        rate = batch / median(steps)
        base = base or rate
        spread = f"({batch / max(steps):.2f} to {batch / min(steps):.2f})"
        line = f"{name:<14} {median(steps):6.2f} s, {rate:6.2f} samples/s {spread}"
        cpu = median([s for r in reports for s in r["cpu"]])
        base_cpu = base_cpu or cpu
        line += f"  {rate / base:5.2f}x  CPU {cpu:.2f} s, {base_cpu / cpu:.2f}x"
        line += f"  peak {max(r['peak_gib'] for r in reports):.2f} GiB"
        if "activations_gib" in reports[0]:
            line += f", activations {max(r['activations_gib'] for r in reports):.2f}"
        if "fill_s_per_frame" in reports[0]:
            fill = median(r["fill_s_per_frame"] for r in reports)
            line += f"  filling {1 / fill:.2f} frames/s, {reports[0]['bytes_per_frame'] / 1e6:.2f} MB a frame"
        if "error" in reports[0]:
            line += f"  {max(r['error'] for r in reports):.4f} from the plain chunk"
        print(line, flush=True)


def main() -> None:
    """Measure one side (`--measure`) or compare all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", default="")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--layers", type=int, default=16, help="text layers; fewer for a try")
    parser.add_argument("--vlm", default="")
    parser.add_argument("--mode", default="none", choices=MODES + CHUNKS)
    parser.add_argument("--only", choices=["train", "infer"])
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        args.vlm = folder
        make_vlm(Path(folder), args.layers)
        if args.only != "infer":
            compare(args, "training step", MODES, args.batch)
        if args.only != "train":
            compare(args, "chunk of 50 actions, 10 denoising steps", CHUNKS if args.device == "cpu" else CHUNKS[:1], 1)


if __name__ == "__main__":
    main()
