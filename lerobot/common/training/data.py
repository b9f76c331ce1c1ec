"""From a dataset to an endless, resumable stream of batches."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader

from lerobot.common.constants import DRAW_SEED, FROZEN_PREFIX
from lerobot.common.datasets.collate import collate
from lerobot.common.datasets.lerobot_dataset import LeRobotDatasetMetadata
from lerobot.common.datasets.sampler import EpochSampler
from lerobot.common.datasets.transforms import transform_batch
from lerobot.common.training.feature_reader import hand_over
from lerobot.common.training.processors import images_as_float


def split_episodes(cfg) -> tuple[list[int] | None, list[int]]:
    """Episodes to train on (None: all) and episodes held out: the last `eval_split` of those chosen."""
    meta = LeRobotDatasetMetadata(cfg.dataset.repo_id, root=cfg.dataset.root, revision=cfg.dataset.revision)
    chosen = cfg.dataset.episodes if cfg.dataset.episodes is not None else list(range(meta.total_episodes))
    held_out = round(len(chosen) * cfg.dataset.eval_split)
    if not held_out:
        if cfg.dataset.eval_split:
            _none_held_out(cfg, len(chosen))
        return cfg.dataset.episodes, []
    if held_out >= len(chosen):
        raise ValueError(
            f"--dataset.eval_split={cfg.dataset.eval_split} leaves none of {len(chosen)} episodes to train on."
        )
    return chosen[:-held_out], chosen[-held_out:]


def _none_held_out(cfg, episodes: int) -> None:
    """A split of less than half an episode: ValueError where validations were asked for, else a warning."""
    text = f"--dataset.eval_split={cfg.dataset.eval_split} of {episodes} episodes holds none out"
    if cfg.eval_steps:
        raise ValueError(f"{text}, and --eval_steps={cfg.eval_steps} validates on them: hold out a larger part.")
    logging.warning("%s.", text)


@dataclass(frozen=True)
class BatchPlan:
    """How epochs are cut into global batches, one per optimizer step, and these into parts.

    A global batch has `batch_size` frames for each of `processes` x `accumulation` parts; the last one of an epoch has
    what is left. The frames of a step depend on the global batch only, so a run may continue with the same global
    batch divided otherwise.
    """

    frames: int
    batch_size: int
    processes: int = 1
    accumulation: int = 1

    @property
    def parts(self) -> int:
        """Micro-batches of a step, over all processes."""
        return self.processes * self.accumulation

    @property
    def global_batch(self) -> int:
        """Frames of a step."""
        return self.batch_size * self.parts

    @property
    def steps_per_epoch(self) -> int:
        """Steps until every frame was seen once."""
        return -(-self.frames // self.global_batch)

    def position(self, step: int) -> tuple[int, int]:
        """(epoch, frames of it that were seen) before `step`."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        return epoch, batch * self.global_batch

    def sizes(self, step: int) -> list[int]:
        """Frames in each part of a step; they differ by at most one."""
        return self.split(min(self.global_batch, self.frames - self.position(step)[1]))

    def split(self, count: int) -> list[int]:
        """`count` frames over the parts."""
        each, more = divmod(count, self.parts)
        return [each + (part < more) for part in range(self.parts)]

    def to_dict(self) -> dict[str, int]:
        """As training_step.json has it."""
        return {
            "num_processes": self.processes,
            "batch_size": self.batch_size,
            "gradient_accumulation_steps": self.accumulation,
            "num_frames": self.frames,
        }


class PartSampler(torch.utils.data.Sampler):
    """The micro-batches of one process: its parts of every global batch, epoch after epoch.

    A part without frames (in a short last batch) gets the batch's first one; the engine gives it no weight.
    """

    def __init__(self, sampler: EpochSampler, plan: BatchPlan, rank: int = 0):
        self.sampler, self.plan, self.rank = sampler, plan, rank

    def __len__(self) -> int:
        return self.plan.steps_per_epoch * self.plan.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        frames = iter(self.sampler)
        while batch := list(itertools.islice(frames, self.plan.global_batch)):
            sizes = self.plan.split(len(batch))
            starts = [0, *itertools.accumulate(sizes)]
            for part in range(self.rank * self.plan.accumulation, (self.rank + 1) * self.plan.accumulation):
                yield batch[starts[part] : starts[part + 1]] or batch[:1]


def make_plan(dataset, cfg, processes: int = 1) -> BatchPlan:
    """How `cfg` divides the frames of a dataset."""
    dropped = getattr(cfg.policy, "drop_n_last_frames", 0)
    indices = trainable_indices(dataset, dropped)
    if not indices:
        raise ValueError(
            f"There is no frame to train on: --policy.drop_n_last_frames={dropped} leaves nothing of the "
            f"{dataset.num_episodes} episodes ({dataset.num_frames} frames)."
        )
    return BatchPlan(len(indices), cfg.batch_size, processes, cfg.gradient_accumulation_steps)


def make_loader(dataset, cfg, plan: BatchPlan, device: torch.device, start_step: int = 0, rank: int = 0) -> DataLoader:
    """A loader whose sample order is a function of (seed, epoch), positioned at the batch of `start_step`."""
    indices = trainable_indices(dataset, getattr(cfg.policy, "drop_n_last_frames", 0))
    epoch, position = plan.position(start_step)
    workers = {}
    if cfg.num_workers:
        workers = {
            "prefetch_factor": cfg.prefetch_factor,
            "persistent_workers": cfg.persistent_workers,
            "multiprocessing_context": cfg.dataloader_multiprocessing_context,
        }
    return DataLoader(
        dataset,
        batch_sampler=PartSampler(EpochSampler(indices, seed=cfg.seed, epoch=epoch, position=position), plan, rank),
        collate_fn=collate,
        num_workers=cfg.num_workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # else every epoch draws a worker seed from the generator that policies draw from
        **workers,
    )


def augment_on_device(dataset, device: torch.device) -> Callable[[dict], dict] | None:
    """Take a dataset's augmentation out of its loader: a function that augments the pictures of a batch on `device`.

    From then on the dataset gives untouched pictures and the seed of each frame's draws. Every draw is the one of the
    loader, so on a CPU the pictures are the same; a GPU rounds differently. None for a dataset without augmentation.
    """
    transforms, keys = dataset.image_transforms, dataset.meta.camera_keys
    if transforms is None:
        return None
    dataset.image_transforms, dataset.give_draw_seeds = None, True

    def augment(batch: dict) -> dict:
        seeds = batch[DRAW_SEED].tolist()
        moved = {key: batch[key].to(device, non_blocking=True) for key in keys}
        rest = {key: value for key, value in batch.items() if key != DRAW_SEED}
        return {**rest, **transform_batch(transforms, moved, keys, seeds)}

    return augment


def make_prepare(preprocessor, device: torch.device, augment: Callable | None = None) -> Callable[[dict], dict]:
    """A function from a collated batch to what the policy reads; kept features pass as they are.

    On a GPU its work has a stream of its own: a batch is copied while the step before is still computed.
    """
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def prepare(batch: dict) -> dict:
        batch = augment(batch) if augment is not None else batch
        kept = {key: value for key, value in batch.items() if key.startswith(FROZEN_PREFIX)}
        rest = {key: value for key, value in batch.items() if key not in kept}
        return {**preprocessor(images_as_float(rest, device)), **kept}

    def prepare_beside(batch: dict) -> dict:
        with torch.cuda.stream(stream):
            ready = prepare(batch)
            event = stream.record_event()
        hand_over(ready, event, device)
        return ready

    return prepare if stream is None else prepare_beside


def trainable_indices(dataset, drop_n_last_frames: int = 0) -> list[int]:
    """Positions of the frames to train on: all, without the last few of each episode where a policy asks so."""
    if not drop_n_last_frames:
        return list(range(len(dataset)))
    index = dataset.episode_data_index
    spans = zip(index["from"].tolist(), index["to"].tolist(), strict=True)
    return [i for first, end in spans for i in range(first, end - drop_n_last_frames)]


def endless(loader: DataLoader) -> Iterator[dict]:
    """Batches of epoch after epoch."""
    while True:
        yield from loader


class Timer:
    """Seconds since the last call."""

    def __init__(self):
        self.start = time.perf_counter()

    def __call__(self) -> float:
        now = time.perf_counter()
        passed, self.start = now - self.start, now
        return passed


def log_dataset(dataset, held_out: list[int]) -> None:
    """One line on what is trained on."""
    logging.info(
        "Dataset: %d episodes, %d frames at %g FPS%s.",
        dataset.num_episodes,
        dataset.num_frames,
        dataset.fps,
        f"; {len(held_out)} episodes held out" if held_out else "",
    )
