"""How long a training will take and what it needs, from a few real steps: `--estimate=true`."""

from __future__ import annotations

import logging
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from lerobot.common.datasets.collate import collate
from lerobot.common.training.saver import checkpoint_bytes, number_of_checkpoints
from lerobot.common.utils.utils import available_memory

STEPS, BATCHES = 3, 10
FIRST_LINE_AFTER = 10  # steps of a normal run after which its speed is told
GIB = 2**30
STATUS, FORGET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Estimate:
    """Measured on this machine; sizes in bytes, times of one step in seconds.

    `per_sample` is 0 where it was too small to see.
    """

    batch_size: int
    steps: int
    update_s: float
    load_s: float
    workers: int
    peak: int
    per_sample: float
    memory: int
    checkpoint: int
    checkpoints: int
    store: int
    advice: str = ""  # what would make computing cheaper
    accumulation: int = 1  # micro-batches of a step

    @property
    def step_s(self) -> float:
        """Seconds of a step: loading runs beside computing where there are workers."""
        return max(self.update_s, self.load_s) if self.workers else self.update_s + self.load_s

    @property
    def largest_batch(self) -> int | None:
        """The batch that would fill nine tenths of the memory; None if a sample's share could not be measured."""
        if not self.per_sample:
            return None
        fixed = self.peak - self.per_sample * self.batch_size
        return max(1, int((0.9 * self.memory - fixed) / self.per_sample))

    @property
    def bottleneck(self) -> str:
        """What bounds the speed, and the flag that helps."""
        if self.load_s > 0.5 * self.update_s and not self.workers:
            return "loading, which nothing runs beside: add --num_workers=4 or --dataset.frame_store=true"
        if self.load_s > self.update_s:
            return "loading: raise --num_workers, or decode once with --dataset.frame_store=true"
        return f"computing: {self.advice}" if self.advice else "computing"

    def __str__(self) -> str:
        largest = self.largest_batch
        fits = f"; about {largest} would fit" if largest else ""
        disk = disk_use(self.checkpoints, self.checkpoint, self.store)
        samples = self.batch_size * self.accumulation
        return "\n".join(
            [
                f"Speed       {1 / self.step_s:.2f} steps/s, {samples / self.step_s:.1f} samples/s: "
                f"{self.steps} steps in {duration(self.steps * self.step_s)}",
                f"One step    computing {self.update_s * 1e3:.0f} ms, loading {self.load_s * 1e3:.0f} ms "
                f"with {self.workers} workers",
                f"Bound by    {self.bottleneck}",
                f"Memory      peak {self.peak / GIB:.2f} of {self.memory / GIB:.1f} GiB at --batch_size="
                f"{self.batch_size}{fits}",
                f"Disk        {disk}",
            ]
        )


def disk_use(checkpoints: int, checkpoint: int, store: int) -> str:
    """What a run leaves on the disk."""
    text = f"{checkpoints} checkpoints of {checkpoint / GIB:.2f} GiB"
    return f"{text}, features {store / GIB:.2f} GiB" if store else text


def duration(seconds: float) -> str:
    """5400 -> '1 h 30 min'."""
    minutes, seconds = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


class Memory:
    """Peak and size of the memory that a batch lives in: the accelerator's, else the process's.

    The peak is that of the time since this object was made, where the system can forget an earlier one (Linux, CUDA).
    """

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        elif FORGET_PEAK.exists():
            try:
                FORGET_PEAK.write_text("5")
            except OSError as e:  # a sandbox may forbid it
                logging.debug("The peak of memory is that since the process began: %s.", e)

    def peak(self) -> int:
        """Bytes at most so far."""
        if self.cuda:
            return torch.cuda.max_memory_allocated()
        if STATUS.exists():
            line = next(x for x in STATUS.read_text().splitlines() if x.startswith("VmHWM"))
            return int(line.split()[1]) * 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def total(self) -> int:
        """Bytes that there are for this process."""
        return torch.cuda.mem_get_info()[1] if self.cuda else available_memory() + self.peak()


def estimate(cfg, dataset, loader, prepare, features, policy, optimizer, engine) -> Estimate:
    """Take three steps with half the batch and three with the whole one, and load ten batches.

    The policy is trained by these steps: they belong to a run that ends here. Raises ValueError with several processes.
    """
    if engine.world_size > 1:
        raise ValueError("--estimate=true measures one process: leave accelerate launch out.")
    memory = Memory(engine.device)
    half = max(1, cfg.batch_size // 2)
    peaks = []
    for size in sorted({half, cfg.batch_size}):
        raw = collate(dataset.__getitems__([i % len(dataset) for i in range(size)]))
        raw = raw if features is None else {**raw, **features(raw["index"])}
        seconds = [_step(prepare(raw), size, policy, optimizer, engine) for _ in range(STEPS)]
        peaks.append(memory.peak())
    return Estimate(
        batch_size=cfg.batch_size,
        steps=cfg.steps,
        update_s=min(seconds) * cfg.gradient_accumulation_steps,
        load_s=_loading(loader, features, prepare) * cfg.gradient_accumulation_steps,
        workers=cfg.num_workers,
        peak=peaks[-1],
        per_sample=(peaks[-1] - peaks[0]) / (cfg.batch_size - half) if cfg.batch_size > half else 0.0,
        memory=memory.total(),
        advice=advice(cfg, policy),
        accumulation=cfg.gradient_accumulation_steps,
        **on_disk(cfg, policy, features),
    )


def on_disk(cfg, policy, features) -> dict[str, int]:
    """Number and size of the checkpoints that stay, and size of the store."""
    saved = number_of_checkpoints(cfg)
    stored = features.store.num_frames * sum(map(features.store.record_bytes, features.store.keys)) if features else 0
    return {
        "checkpoint": checkpoint_bytes(cfg, policy),
        "checkpoints": min(saved, cfg.save_total_limit or saved) if cfg.save_checkpoint else 0,
        "store": stored,
    }


def advice(cfg, policy) -> str:
    """Flags that would make a step cheaper; empty where there are none left to say."""
    flags = []
    augmented = cfg.dataset.image_transforms.enable
    if cfg.policy.frozen_features == "none" and policy.frozen_feature_modes() and not augmented:
        flags.append("--policy.frozen_features=auto computes the frozen part once per frame")
    half = sum(p.numel() for p in policy.parameters() if p.dtype != torch.float32)
    if not cfg.policy.use_amp and not half:
        flags.append("--policy.use_amp=true computes in bfloat16")
    return ", ".join(flags)


def _step(batch: dict, size: int, policy, optimizer, engine) -> float:
    start = time.perf_counter()
    policy.train()
    engine.backward_of([batch], [size])
    engine.clip(policy, optimizer, 1.0)
    engine.step(optimizer)
    if engine.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _loading(loader, features, prepare) -> float:
    """Seconds per batch, without the first, in which workers start."""
    batches = iter(loader)
    batches = batches if features is None else features.ahead(batches)
    count, start = 0, None
    for raw in batches:
        prepare(raw)
        start = start or time.perf_counter()
        count += 1
        if count > BATCHES:
            break
    return (time.perf_counter() - start) / max(1, count - 1)


class Outlook:
    """Lines after the first steps of a run: how fast it is and when it ends; memory, disk and what would help.

    device, facts: where the memory is, and what to say of the disk and of flags (called once).
    """

    def __init__(self, first_step: int, steps: int, device: torch.device | None = None, facts=None):
        self.first, self.steps = first_step + 1, steps  # the first step warms up
        self.memory, self.facts = Memory(device or torch.device("cpu")), facts
        self.begin = self.waited = 0.0

    def __call__(self, step: int, waited_s: float) -> None:
        """After every step, with the seconds that it waited for data."""
        done = step - self.first
        if done == 0:
            self.begin = time.perf_counter()
        elif 0 < done <= FIRST_LINE_AFTER:
            self.waited += waited_s
        if done == FIRST_LINE_AFTER:
            each = (time.perf_counter() - self.begin) / done
            logging.info(
                "Speed: %.2f steps/s, %d %% of the time waiting for data; the remaining %d steps take about %s.",
                1 / each,
                round(100 * self.waited / (each * done)),
                self.steps - step,
                duration((self.steps - step) * each),
            )
            if self.facts is not None:
                sizes = self.memory.peak() / GIB, self.memory.total() / GIB
                logging.info("Memory: peak %.2f of %.1f GiB. %s", *sizes, self.facts(self.waited / (each * done)))


def facts_of(cfg, policy, features):
    """For `Outlook`: from the share of time that waits for data, what a run leaves on the disk and what would help."""

    def facts(waiting: float) -> str:
        disk = on_disk(cfg, policy, features)
        text = f"Disk: {disk_use(disk['checkpoints'], disk['checkpoint'], disk['store'])}."
        helps = advice(cfg, policy)
        if waiting > 0.3:
            helps = "raise --num_workers" if cfg.num_workers else "--num_workers=4"
            helps += ", or decode once with --dataset.frame_store=true"
        return f"{text} To be faster: {helps}." if helps else text

    return facts
