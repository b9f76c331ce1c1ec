"""What a frozen network makes of every frame: computed once, kept on disk, read instead of computed again.

`choose` decides what is kept (--policy.frozen_features), `FrozenFeatures.open` fills the store in one sequential
pass and checks it, and an opened one adds records to batches.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from lerobot.common.constants import FROZEN_PREFIX, HF_LEROBOT_HOME, OBS_LANGUAGE_TOKENS
from lerobot.common.datasets.collate import collate
from lerobot.common.datasets.frame_store import (
    FrameStore,
    FrameStoreError,
    episode_sources,
    fingerprint_name,
    frames_of,
    picture_fingerprint,
)
from lerobot.common.training.feature_reader import GB, FeatureReader
from lerobot.common.utils.utils import available_memory

FEATURES_VERSION = 3  # to be raised when a change of the code changes a record
LARGER_DISK = "set --features.dir to a folder on a larger disk"
SPOT_CHECKS = 3  # frames that are computed again at each start
# Largest relative error (norm of the difference over the norm) of a recomputed record: batch sizes round differently.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


class FrozenFeaturesError(ValueError):
    """The asked mode would not be exact, or its store cannot be used; the message says why and what to do."""


class FeatureComputer:
    """Frames of a dataset to records, as the training run itself would compute them.

    prepare: raw collated batch -> preprocessed batch on the device. autocast: context of a forward pass.
    """

    def __init__(self, policy, dataset, prepare: Callable[[dict], dict], autocast: Callable[[], Any]):
        self.policy, self.dataset, self.prepare, self.autocast = policy, dataset, prepare, autocast

    def __call__(self, raw: dict, mode: str) -> dict[str, Tensor]:
        """Records `{"frozen.<name>": (B, ...)}` on the CPU."""
        self.policy.eval()
        with torch.no_grad(), self.autocast():
            features = self.policy.frozen_features(self.prepare(raw), mode)
        return {key: value.cpu() for key, value in features.items()}

    def probe(self) -> dict:
        """A raw batch with every task, the longest included, and always the same noise for pictures."""
        tasks = sorted(self.dataset.meta.tasks)
        batch = collate(self.dataset.__getitems__([0] * len(tasks)))
        generator = torch.Generator().manual_seed(0)
        for key in self.dataset.meta.camera_keys:
            batch[key] = torch.randint(256, batch[key].shape, generator=generator).to(torch.uint8)
        batch["task"] = [self.dataset.meta.tasks[i] for i in tasks]
        return batch

    def depends(self, mode: str, probe: dict) -> dict[str, Any]:
        """Everything that the records depend on, as JSON: a store that was made from anything else is another."""
        weights, settings = self.policy.frozen_inputs(mode)
        ready = self.prepare(probe)
        inputs = [OBS_LANGUAGE_TOKENS, *self.policy.config.image_features]
        meta = self.dataset.meta
        tasks = [meta.tasks, [meta.episodes[i].get("tasks") for i in range(meta.total_episodes)]]
        return {
            "mode": mode,
            "policy": self.policy.name,
            "version": FEATURES_VERSION,
            "weights": digest(weights),
            "settings": json.loads(json.dumps(settings)),
            "prepared pictures and tokens": digest({k: ready[k] for k in inputs if k in ready}),
            "tasks": hashlib.sha256(json.dumps(tasks).encode()).hexdigest() if mode == "prefix" else "any",
            "dataset": picture_fingerprint(meta, tuple(self.policy.config.image_size or (0, 0))),
        }


def digest(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def choose(cfg, policy, shapes: Callable[[str], dict[str, Tensor]], num_frames: int) -> tuple[str, str]:
    """The mode to train with ("none", "vision" or "prefix") and a sentence why.

    shapes(mode) gives records of a small batch. Raises FrozenFeaturesError where the asked mode would not be exact.
    """
    asked = cfg.policy.frozen_features
    possible = policy.frozen_feature_modes()
    obstacle = None
    if cfg.dataset.image_transforms.enable:
        obstacle = "augmentation (--dataset.image_transforms.enable=true) makes every picture new"
    elif not possible:
        obstacle = f"policy '{policy.name}' trains what it would keep (see --policy.freeze_vision_encoder and the like)"
    elif asked not in (*possible, "auto"):
        obstacle = f"policy '{policy.name}' as configured has only {' and '.join(possible)} to keep"
    if asked == "auto" and obstacle is None:
        return _choose_affordable(cfg, possible, shapes, num_frames)
    if obstacle is None:
        return asked, "as asked"
    if asked == "auto":
        return "none", obstacle
    raise FrozenFeaturesError(f"--policy.frozen_features={asked} would not be exact: {obstacle}. Use none or auto.")


def _choose_affordable(cfg, possible, shapes, num_frames: int) -> tuple[str, str]:
    samples = cfg.steps * cfg.batch_size * cfg.gradient_accumulation_steps
    if samples < num_frames:
        return "none", f"{samples:,} samples are fewer than the {num_frames:,} frames to fill a store with"
    free = shutil.disk_usage(existing_parent(features_folder(cfg))).free
    limit = min(0.9 * free, cfg.features.max_gb * GB if cfg.features.max_gb else free)
    memory = available_memory()
    found = []
    for mode in possible:
        size = num_frames * record_bytes(shapes(mode))
        if size <= min(limit, memory):
            return mode, f"{size / GB:.1f} GB fit disk ({limit / GB:.0f} GB) and memory ({memory / GB:.0f} GB)"
        if size <= limit:
            found.append((mode, size))
    if found:  # read from the disk again and again: the smaller the better
        mode, size = found[-1]
        return (
            mode,
            f"{size / GB:.1f} GB fit the disk ({limit / GB:.0f} GB), nothing fits memory ({memory / GB:.0f} GB)",
        )
    return (
        "none",
        f"even the smallest store does not fit: {limit / GB:.1f} GB of disk may be used (--features.dir, max_gb)",
    )


def record_bytes(features: dict[str, Tensor]) -> int:
    """Bytes that one frame takes."""
    return sum(value[0].numel() * value.element_size() for value in features.values())


def features_folder(cfg) -> Path:
    """Where stores are kept: --features.dir, or below HF_LEROBOT_HOME."""
    return Path(cfg.features.dir).expanduser() if cfg.features.dir else HF_LEROBOT_HOME / "features"


def existing_parent(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(p for p in (path, *path.absolute().parents) if p.exists())


class FrozenFeatures(FeatureReader):
    """A complete, checked store whose records reach the batches."""

    @classmethod
    def open(cls, cfg, policy, dataset, prepare, engine) -> FrozenFeatures | None:
        """The store that `cfg.policy.frozen_features` asks for, filled where needed; None for "none".

        From here on the items of `dataset` have no pictures.
        Raises FrozenFeaturesError or FrameStoreError.
        """
        if cfg.policy.frozen_features == "none":
            return None
        compute = FeatureComputer(policy, dataset, prepare, engine.autocast)
        probe = compute.probe()
        mode, why = choose(cfg, policy, lambda mode: compute(probe, mode), dataset.num_frames)
        logging.info("Frozen features: %s (%s).", mode, why)
        if mode == "none":
            return None
        sample = compute(probe, mode)
        store = open_store(features_folder(cfg), compute.depends(mode, probe), sample, dataset)
        fill(store, compute, mode, cfg)
        store.share()
        try:
            store.require_intact()
            spot_check(store, compute, mode)
        except FrameStoreError as e:
            if cfg.policy.frozen_features != "auto":
                raise
            logging.warning("%s Going on without it.", e)
            return None
        dataset.skip_pictures = True
        logging.info("Frozen features come from '%s' (%.2f MB a frame).", store.root, record_bytes(sample) / 1e6)
        return cls(store, engine.device, cfg.features.device_gb)


def open_store(folder: Path, depends: dict, sample: dict[str, Tensor], dataset) -> FrameStore:
    """The store for `depends` below `folder`, whose records look like those of `sample`.

    Each precision (--policy.use_amp, the device) has a store of its own.
    """
    depends = {**depends, "precision": {key: str(value.dtype) for key, value in sample.items()}}
    arrays = {key: (value.dtype, tuple(value.shape[1:])) for key, value in sample.items()}
    meta = dataset.meta
    sizes = meta.total_frames, meta.total_episodes
    return FrameStore(folder / fingerprint_name(depends), arrays, *sizes, depends, LARGER_DISK)


def fill(store: FrameStore, compute: FeatureComputer, mode: str, cfg) -> None:
    """Compute the records of all loaded episodes that lack them; an interrupted filling continues.

    What was computed from other pictures or (in the prefix) task texts than the dataset has now is computed again.
    """
    sources = episode_sources(compute.dataset, with_tasks=mode == "prefix")
    if all(store.is_done(i, source) for i, source in sources.items()):
        return
    store.hold_for_filling()
    try:
        store.require_intact()  # what an earlier run filled
        _fill(store, compute, mode, cfg, sources)
        store.remember_intact()
    finally:
        store.release()


def _fill(store: FrameStore, compute: FeatureComputer, mode: str, cfg, sources: dict[int, int]) -> None:
    dataset = compute.dataset
    missing = _to_compute(store, dataset, sources)
    total = _frames(dataset, missing)
    batches = [rows for i in missing for rows in dataset.rows_of_episode(i).split(cfg.features.batch_size)]
    loader = _sequential(dataset, batches, cfg)
    bar = tqdm(total=total, desc=f"Filling the {mode} store", unit="frame")
    # Writing and checksums run beside the next batch; one thread keeps their order.
    with ThreadPoolExecutor(1) as pool, bar:
        written: list[Future] = []
        for raw in loader:
            records = compute(raw, mode)
            written = [job for job in written if not _finished(job)]
            if len(written) > 2:
                written.pop(0).result()
            written.append(pool.submit(_write, store, raw, records, dataset, sources))
            bar.update(len(raw["index"]))
            bar.set_postfix_str(f"{bar.n * record_bytes(records) / GB:.2f} GB")
        for job in written:
            job.result()


def _to_compute(store: FrameStore, dataset, sources: dict[int, int]) -> list[int]:
    """Episodes that are neither in the store nor could be copied from one beside it."""
    missing = [i for i, source in sources.items() if not store.is_done(i, source)]
    total = _frames(dataset, missing)
    store.require_space(total)
    why = store.why_incomplete(missing)
    logging.info("Filling '%s' with %d episodes, %s frames: %s.", store.root, len(missing), f"{total:,}", why)
    store.unmark(missing)
    copied = store.copy_known(dataset, {i: sources[i] for i in missing})
    return [i for i in missing if i not in copied]


def _frames(dataset, episodes: list[int]) -> int:
    return sum(dataset.meta.episodes[i]["length"] for i in episodes)


def _finished(job: Future) -> bool:
    return job.done() and job.result() is None  # result() raises what the thread raised


def _sequential(dataset, batches: list[Tensor], cfg) -> DataLoader:
    workers = {"num_workers": cfg.num_workers}
    if cfg.num_workers:
        workers["multiprocessing_context"] = cfg.dataloader_multiprocessing_context
    return DataLoader(dataset, batch_sampler=[rows.tolist() for rows in batches], collate_fn=collate, **workers)


def _write(store: FrameStore, raw: dict, records: dict[str, Tensor], dataset, sources: dict[int, int]) -> None:
    """Write the records of consecutive frames of one episode, and mark it with its last ones."""
    first, last, number = int(raw["index"][0]), int(raw["index"][-1]), int(raw["episode_index"][0])
    for key, value in records.items():
        store.write(key, first, pad_records(value, store[key].shape[1:]))
    frames = frames_of(dataset, number)
    if last + 1 == frames.stop:
        store.mark_done(number, frames, sources[number])


def pad_records(records: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`(B, ...)` with zeros behind every axis that is shorter than `shape` says."""
    if tuple(records.shape[1:]) == tuple(shape):
        return records
    padded = records.new_zeros(len(records), *shape)
    padded[(slice(None), *(slice(0, n) for n in records.shape[1:]))] = records
    return padded


def spot_check(store: FrameStore, compute: FeatureComputer, mode: str) -> None:
    """Compute a few records again and compare. Raises FrameStoreError for a damaged or a wrong store."""
    dataset = compute.dataset
    generator = torch.Generator()
    generator.seed()  # other frames at each start
    rows = torch.randint(len(dataset), (SPOT_CHECKS,), generator=generator)
    raw = collate(dataset.__getitems__(rows.tolist()))
    fresh = compute(raw, mode)
    for episode in set(raw["episode_index"].tolist()):
        store.verify(episode)
    for key, value in fresh.items():
        kept = store[key].index_select(0, raw["index"])
        error = relative_error(kept, pad_records(value, store[key].shape[1:]))
        if error > TOLERANCE.get(kept.dtype, 0.0):
            raise FrameStoreError(
                f"The frame store '{store.root}' does not hold what this run computes: "
                f"'{key[len(FROZEN_PREFIX) :]}' is off by {error:.1e} (relative) for frames {raw['index'].tolist()}. "
                "Delete the folder; it is filled again."
            )


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    found, expected = found.double(), expected.double()
    return float((found - expected).norm() / expected.norm().clamp(min=1e-12))
