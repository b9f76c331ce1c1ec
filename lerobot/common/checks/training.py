"""Does a training plan make sense, and did a run go well? Chunk, schedule, memory, disk; the loss and the loader."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import torch

from lerobot.common.checks.facts import Facts
from lerobot.common.checks.finding import Finding, Where
from lerobot.common.constants import SAFETENSORS_SINGLE_FILE

LONGEST_OPEN_LOOP_S = 4.0  # seconds that an arm follows one plan without looking again
LEAST_EPOCHS = 1.0
FALLING = 0.95  # the last losses must be below this share of the first ones


def check_plan(cfg, policy, data: Facts | None) -> list[Finding]:
    """Findings on the numbers of a run before it starts. `cfg` has steps, batch_size, save_freq, save_total_limit."""
    findings = check_schedule(policy, cfg.steps)
    if data is not None and data.episode_lengths:
        findings += [*check_chunk(policy, data), *check_amount(cfg, data)]
    if cfg.save_freq > cfg.steps:
        message = f"--save_freq={cfg.save_freq} is beyond --steps={cfg.steps}: a kill costs the whole run."
        fix = f"--save_freq={max(1, cfg.steps // 10)}"
        findings.append(Finding("plan.save_freq", "warning", message, fix=fix))
    return findings


def check_chunk(policy, data: Facts) -> list[Finding]:
    """The chunk against the episodes and the frame rate."""
    findings, chunk = [], getattr(policy, "chunk_size", None) or getattr(policy, "horizon", None)
    executed = getattr(policy, "n_action_steps", None)
    evidence = {"chunk": chunk, "median_episode": data.median_episode, "fps": data.fps}
    if chunk and chunk > data.median_episode:
        message = (
            f"A chunk of {chunk} steps is longer than the middle episode ({data.median_episode:g} frames): most of "
            "what is learned is padding."
        )
        fix = f"--policy.chunk_size={max(1, int(data.median_episode // 2))}"
        findings.append(Finding("plan.chunk_episode", "warning", message, evidence=evidence, fix=fix))
    if executed and executed / data.fps > LONGEST_OPEN_LOOP_S:
        message = (
            f"{executed} steps at {data.fps:g} FPS are {executed / data.fps:.1f} s in which the arm does not look at "
            "the cameras."
        )
        fix = f"--policy.n_action_steps={int(data.fps)}"
        findings.append(Finding("plan.open_loop", "warning", message, evidence=evidence, fix=fix))
    return findings


def check_amount(cfg, data: Facts) -> list[Finding]:
    """Steps and batch against the number of frames."""
    frames = sum(data.episode_lengths)
    epochs, findings = cfg.steps * cfg.batch_size / frames, []
    evidence = {"frames": frames, "epochs": epochs}
    if epochs < LEAST_EPOCHS:
        message = f"{cfg.steps} steps of {cfg.batch_size} see {epochs:.0%} of the {frames} frames."
        fix = f"--steps={math.ceil(frames / cfg.batch_size)} or more"
        findings.append(Finding("plan.epochs", "warning", message, evidence=evidence, fix=fix))
    if cfg.batch_size > frames:
        message = f"--batch_size={cfg.batch_size} is more than the {frames} frames there are."
        findings.append(
            Finding("plan.batch", "warning", message, evidence=evidence, fix=f"--batch_size={frames // 4 or 1}")
        )
    return findings


def check_schedule(policy, steps: int) -> list[Finding]:
    """The learning-rate schedule against the number of steps."""
    schedule = policy.get_scheduler_preset()
    if schedule is None:
        return []
    warmup, decay = schedule.num_warmup_steps or 0, getattr(schedule, "num_decay_steps", None)
    evidence = {"warmup": warmup, "decay": decay, "steps": steps}
    if decay and steps > 1.5 * decay:
        message = (
            f"The learning rate is at its end after {decay} of {steps} steps: the last {steps - decay} hardly learn."
        )
        fix = f"--policy.scheduler_decay_steps={steps}"
        return [Finding("plan.schedule_short", "warning", message, evidence=evidence, fix=fix)]
    shrinks = decay and steps < decay  # warm-up and decay are then scaled to the run
    if not shrinks and warmup >= steps:
        message = f"The warm-up takes {warmup} steps, the run has {steps}: it never reaches its learning rate."
        fix = f"--policy.scheduler_warmup_steps={max(1, steps // 20)}"
        return [Finding("plan.warmup", "error", message, evidence=evidence, fix=fix)]
    return []


def check_memory(policy, batch_size: int, parameters: int | None, free_bytes: int) -> list[Finding]:
    """A lower bound of what training takes: weights, gradients, Adam's moments, and the batch's pictures as float.

    Activations come on top, so a pass is no promise, and a finding is certain.
    """
    if not parameters:
        return []
    pictures = sum(4 * math.prod(shape) for shape in policy.image_shapes.values()) * batch_size
    needed = 16 * parameters + pictures
    if needed <= free_bytes:
        return []
    evidence = {"needed_gb": needed / 2**30, "free_gb": free_bytes / 2**30, "pictures_gb": pictures / 2**30}
    message = (
        f"Training takes at least {needed / 2**30:.1f} GiB ({pictures / 2**30:.1f} of it for a batch of {batch_size}) "
        f"and {free_bytes / 2**30:.1f} GiB are free on {policy.device}."
    )
    smaller = max(1, int(batch_size * max(0, free_bytes - 16 * parameters) / max(pictures, 1)) // 2)
    fix = f"--batch_size={smaller} --gradient_accumulation_steps={-(-batch_size // smaller)}, or --policy.image_size"
    return [Finding("plan.memory", "error", message, evidence=evidence, fix=fix)]


def free_memory(device: str) -> int:
    """Free bytes of a device; of the machine for the CPU."""
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        return torch.cuda.mem_get_info(device)[0]
    for line in Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []:
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    return 2**63


def parameters_of(folder: str | Path | None) -> int | None:
    """Number of weights in a checkpoint's file, from its size; None where it has none."""
    file = Path(folder or "") / SAFETENSORS_SINGLE_FILE
    return file.stat().st_size // 4 if folder and file.is_file() else None


def check_run(output_dir: str | Path) -> list[Finding]:
    """What metrics.jsonl of a run tells: a loss that is no number or does not fall, a slow loader, overfitting."""
    from lerobot.common.training.metrics import METRICS_NAME, read_lines

    path = Path(output_dir) / METRICS_NAME
    rows = [row for row in read_lines(path) if "loss" in row]
    place = Where(file=str(path))
    if not rows:
        message = f"{path} has no training numbers."
        return [Finding("run.no_metrics", "warning", message, place, fix="--log_freq=50 while training")]
    return [*_loss(rows, place), *_loader(rows, place), *_held_out(read_lines(path), place), *_space(Path(output_dir))]


def _loss(rows: list[dict], place: Where) -> list[Finding]:
    losses = np.array([row["loss"] for row in rows], dtype=float)
    if not np.isfinite(losses).all():
        step = rows[int(np.argmin(np.isfinite(losses)))]["step"]
        message = f"The loss is not a number from step {step} on."
        fix = "a tenth of --policy.optimizer_lr, or --policy.use_amp=false"
        return [Finding("run.loss_nan", "error", message, place, {"step": step}, fix)]
    part = max(1, len(losses) // 10)
    first, last = losses[:part].mean(), losses[-part:].mean()
    if len(losses) < 10 or last < FALLING * first:
        return []
    rate = rows[-1].get("lr")
    evidence = {"first": first, "last": last, "lr": rate}
    message = f"The loss does not fall: {first:.3g} at the start, {last:.3g} at the end of {rows[-1]['step']} steps."
    higher = last > 1.05 * first
    fix = f"--policy.optimizer_lr={(rate or 1e-4) * (0.1 if higher else 3):.0e} (now {rate or 0:.0e})"
    return [Finding("run.loss_flat", "warning", message, place, evidence, fix)]


def _loader(rows: list[dict], place: Where) -> list[Finding]:
    data = sum(row.get("dataloading_s", 0.0) for row in rows[1:]) / max(1, len(rows) - 1)
    update = sum(row.get("update_s", 0.0) for row in rows[1:]) / max(1, len(rows) - 1)
    if data <= max(update, 0.02):
        return []
    message = f"The computer waits for data: {data:.3f} s per batch against {update:.3f} s of training."
    fix = "--dataset.frame_store=true --policy.image_size=[240,320], or more --num_workers"
    return [Finding("run.data_bound", "warning", message, place, {"data_s": data, "update_s": update}, fix)]


def _held_out(rows: list[dict], place: Where) -> list[Finding]:
    points = [(row["step"], row["eval/loss"]) for row in rows if "eval/loss" in row]
    if len(points) < 3:
        return []
    best = min(points, key=lambda point: point[1])
    if points[-1][1] < 1.2 * best[1]:
        return []
    message = f"The held-out loss rose from {best[1]:.3g} (step {best[0]}) to {points[-1][1]:.3g}: it learns by heart."
    fix = "--save_best=eval/loss, --dataset.image_transforms.enable=true, or more episodes"
    return [Finding("run.overfit", "warning", message, place, {"best_step": best[0]}, fix)]


def _space(output_dir: Path) -> list[Finding]:
    checkpoints = [p for p in (output_dir / "checkpoints").glob("[0-9]*") if p.is_dir()]
    if not checkpoints:
        return []
    size = max(sum(f.stat().st_size for f in c.rglob("*") if f.is_file()) for c in checkpoints)
    free = shutil.disk_usage(output_dir).free
    if free > 3 * size:
        return []
    message = f"A checkpoint takes {size / 2**30:.2f} GiB and {free / 2**30:.2f} GiB are free."
    evidence = {"checkpoint_gb": size / 2**30, "free_gb": free / 2**30}
    return [Finding("run.disk", "warning", message, Where(file=str(output_dir)), evidence, "--save_total_limit=2")]
