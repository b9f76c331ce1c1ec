"""A smoke run: does everything work with this dataset and policy on this machine?"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from pathlib import Path

import torch

from lerobot.common.constants import PRETRAINED_MODEL_DIR, TRAIN_CONFIG_NAME
from lerobot.common.datasets.lerobot_dataset import LeRobotDatasetMetadata
from lerobot.common.training.checkpoint import get_step_checkpoint_dir
from lerobot.common.training.metrics import METRICS_NAME, read_lines

STEPS, HALF, EPISODES = 20, 10, 2


def smoke(cfg, train: Callable) -> None:
    """Train 20 steps on two episodes, resume from step 10, compare, predict from the checkpoint, and ask the doctor.

    Raises RuntimeError if the resumed run gives other losses, a prediction is not finite, or a check finds an error.
    """
    planned = {"steps": cfg.steps, "save_freq": cfg.save_freq}
    cfg.steps, cfg.save_freq, cfg.log_freq, cfg.env = STEPS, HALF, 1, None
    cfg.save_checkpoint, cfg.save_total_limit, cfg.save_best = True, 0, None  # it resumes from the first of two
    cfg.eval_steps = 0
    cfg.batch_size = min(cfg.batch_size, 8)
    cfg.dataset = dataclasses.replace(cfg.dataset, episodes=first_episodes(cfg), eval_split=0.0)
    if cfg.policy is not None:
        cfg.policy.push_to_hub = False
    train(cfg)
    first = _losses(cfg.output_dir)
    train(_resumed(cfg))
    again = _losses(cfg.output_dir)
    exact = cfg.policy.device == "cpu"
    if not all(a == b if exact else math.isclose(a, b, rel_tol=0.05) for a, b in zip(first, again, strict=True)):
        raise RuntimeError(f"The resumed run is another run: losses {first[HALF:]} became {again[HALF:]}.")
    chunk = predict(cfg)
    examine_all(cfg, **planned)
    print(f"\nSmoke run passed: {STEPS} steps, resumed at {HALF} with the same losses, predicted {tuple(chunk.shape)}.")
    print(f"Output: {cfg.output_dir}", flush=True)


def first_episodes(cfg) -> list[int]:
    """The episodes of a smoke run: the first two of those chosen."""
    meta = LeRobotDatasetMetadata(cfg.dataset.repo_id, root=cfg.dataset.root, revision=cfg.dataset.revision)
    return (cfg.dataset.episodes or list(range(meta.total_episodes)))[:EPISODES]


def _losses(output_dir: Path) -> list[float]:
    return [row["loss"] for row in read_lines(Path(output_dir) / METRICS_NAME)]


def _resumed(cfg):
    config = get_step_checkpoint_dir(cfg.output_dir, cfg.steps, HALF) / PRETRAINED_MODEL_DIR / TRAIN_CONFIG_NAME
    cfg.resume = True
    typed = {name: value for name, value in cfg.typed_flags.items() if name != "policy.path"}  # where the run began
    cfg.typed_flags = {**typed, "config_path": str(config)}
    logging.info("Resuming from step %d", HALF)
    return cfg


def predict(cfg) -> torch.Tensor:
    """A chunk `(1, T, A)` for the first frame of the dataset, from the checkpoint on disk, in the dataset's units."""
    from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
    from lerobot.common.policies.factory import get_policy_class, make_pre_post_processors
    from lerobot.configs.policies import PreTrainedConfig

    folder = get_step_checkpoint_dir(cfg.output_dir, cfg.steps, STEPS) / PRETRAINED_MODEL_DIR
    config = PreTrainedConfig.from_pretrained(folder)
    policy = get_policy_class(config.type).from_pretrained(folder, config=config)
    preprocessor, postprocessor = make_pre_post_processors(config, folder)
    item = LeRobotDataset(cfg.dataset.repo_id, root=cfg.dataset.root, episodes=cfg.dataset.episodes)[0]
    observation = {k: v for k, v in item.items() if k in config.input_features or k == "task"}
    with torch.inference_mode():
        chunk = policy.predict_action_chunk(preprocessor(observation))
        chunk = torch.stack([postprocessor(chunk[:, t]) for t in range(chunk.shape[1])], dim=1)
    if not torch.isfinite(chunk).all():
        raise RuntimeError(f"The checkpoint in {folder} predicts values that are not finite.")
    return chunk


def examine_all(cfg, **planned: int) -> None:
    """Show what the doctor finds on machine, dataset and checkpoint for a run of the `planned` flags.

    RuntimeError for an error.
    """
    from lerobot.common.checks.doctor import examine
    from lerobot.common.checks.finding import log_findings, worst
    from lerobot.configs.doctor import DoctorConfig, DoctorDataset, DoctorPolicy

    root = LeRobotDatasetMetadata(cfg.dataset.repo_id, root=cfg.dataset.root).root
    policy = DoctorPolicy(str(cfg.output_dir), device=cfg.policy.device)
    findings = examine(
        DoctorConfig(DoctorDataset(str(root)), policy, rename_map=cfg.rename_map, batch_size=cfg.batch_size, **planned)
    )
    findings = [f for f in findings if f.severity != "info"]
    log_findings(findings)
    if worst(findings) == "error":
        raise RuntimeError("The checks found errors, see above: python lerobot/scripts/doctor.py shows them again.")
