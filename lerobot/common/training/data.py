"""From a dataset to an endless, resumable stream of batches."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import torch
from torch.utils.data import BatchSampler, DataLoader

from lerobot.common.datasets.collate import collate
from lerobot.common.datasets.lerobot_dataset import LeRobotDatasetMetadata
from lerobot.common.datasets.sampler import EpochSampler


def split_episodes(cfg) -> tuple[list[int] | None, list[int]]:
    """Episodes to train on (None: all) and episodes held out: the last `eval_split` of those chosen."""
    meta = LeRobotDatasetMetadata(cfg.dataset.repo_id, root=cfg.dataset.root, revision=cfg.dataset.revision)
    chosen = cfg.dataset.episodes if cfg.dataset.episodes is not None else list(range(meta.total_episodes))
    held_out = round(len(chosen) * cfg.dataset.eval_split)
    if not held_out:
        return cfg.dataset.episodes, []
    if held_out >= len(chosen):
        raise ValueError(
            f"--dataset.eval_split={cfg.dataset.eval_split} leaves none of {len(chosen)} episodes to train on."
        )
    return chosen[:-held_out], chosen[-held_out:]


def make_loader(dataset, cfg, device: torch.device, start_step: int = 0) -> DataLoader:
    """A loader whose sample order is a function of (seed, epoch), positioned at the batch of `start_step`."""
    indices = trainable_indices(dataset, getattr(cfg.policy, "drop_n_last_frames", 0))
    batches_per_epoch = -(-len(indices) // cfg.batch_size)
    epoch, batch = divmod(start_step, batches_per_epoch)
    sampler = EpochSampler(indices, seed=cfg.seed or 0, epoch=epoch, position=batch * cfg.batch_size)
    workers = {}
    if cfg.num_workers:
        workers = {
            "prefetch_factor": cfg.prefetch_factor,
            "persistent_workers": cfg.persistent_workers,
            "multiprocessing_context": cfg.dataloader_multiprocessing_context,
        }
    return DataLoader(
        dataset,
        batch_sampler=BatchSampler(sampler, cfg.batch_size, drop_last=False),
        collate_fn=collate,
        num_workers=cfg.num_workers,
        pin_memory=device.type == "cuda",
        **workers,
    )


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
