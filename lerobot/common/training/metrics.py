"""Training numbers: the log line, metrics.jsonl, and Weights & Biases when asked for."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import torch

from lerobot.common.policies.pretrained import count_parameters
from lerobot.common.utils.io_utils import write_text
from lerobot.common.utils.logging_utils import AverageMeter, MetricsTracker, format_big_number

METRICS_NAME = "metrics.jsonl"


def make_tracker(cfg, dataset, step: int) -> MetricsTracker:
    """Loss, gradient norm, learning rate, seconds per update and per batch."""
    meters = {
        "loss": AverageMeter("loss", ":.3f"),
        "grad_norm": AverageMeter("grdn", ":.3f"),
        "lr": AverageMeter("lr", ":0.1e"),
        "update_s": AverageMeter("updt_s", ":.3f"),
        "dataloading_s": AverageMeter("data_s", ":.3f"),
    }
    return MetricsTracker(cfg.batch_size, dataset.num_frames, dataset.num_episodes, meters, initial_step=step)


def require_finite(tracker: MetricsTracker, step: int) -> None:
    """Stop (before anything is saved) when the loss is no longer a number."""
    if not math.isfinite(tracker.metrics["loss"].avg):
        raise ValueError(
            f"The loss became {tracker.metrics['loss'].avg} before step {step}. Lower the learning rate "
            "(--policy.optimizer_lr), switch --policy.use_amp off, or look for NaN in the dataset. "
            "Earlier checkpoints are untouched."
        )


def describe(cfg, policy, dataset, step: int) -> None:
    """What is about to be trained, in three lines."""
    big = format_big_number
    logging.info("Output: %s", cfg.output_dir)
    logging.info(
        "Policy: %s on %s, %s parameters, %s trained%s.",
        cfg.policy.type,
        cfg.policy.device,
        big(count_parameters(policy), 1),
        big(count_parameters(policy, trainable=True), 1),
        f", from {cfg.policy.pretrained_path}" if cfg.policy.pretrained_path else "",
    )
    epochs = cfg.steps * cfg.batch_size / max(1, dataset.num_frames)
    logging.info("Steps: %d to %d, batch %d (%.1f epochs in all).", step, cfg.steps, cfg.batch_size, epochs)


class MetricsFile:
    """Appends one JSON line per log step to `<output_dir>/metrics.jsonl`; a resumed run drops what it repeats."""

    def __init__(self, cfg, resume_step: int = 0):
        self.path = Path(cfg.output_dir) / METRICS_NAME
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if resume_step:
            kept = [line for line in read_lines(self.path) if line["step"] <= resume_step]
            write_text("".join(json.dumps(line) + "\n" for line in kept), self.path)
        self.wandb = _wandb_logger(cfg)

    def log(self, tracker: MetricsTracker, info: dict) -> None:
        """Write the averages since the last call, and the numbers that the policy reported last."""
        logging.info("%s", tracker)
        # What the policy reports is of the last step only; its own `loss` must not replace the average.
        row = {k: float(v) for k, v in info.items() if _is_number(v)} | tracker.to_dict()
        self._append({"step": tracker.steps, **row})
        if self.wandb:
            self.wandb.log_dict(row, tracker.steps, mode="train")
        tracker.reset_averages()

    def log_eval(self, step: int, aggregated: dict) -> None:
        """Write the outcome of an evaluation."""
        row = {f"eval/{k}": v for k, v in aggregated.items() if _is_number(v)}
        self._append({"step": step, **row})
        if self.wandb:
            self.wandb.log_dict(aggregated, step, mode="eval")

    def _append(self, row: dict) -> None:
        with self.path.open("a") as f:
            f.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict]:
        """Everything logged so far."""
        return read_lines(self.path)


def read_lines(path: Path) -> list[dict]:
    """The rows of a metrics.jsonl; a last line cut off by a kill is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def _is_number(value) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _wandb_logger(cfg):
    if not cfg.wandb.enable:
        return None
    from lerobot.common.utils.wandb_utils import WandBLogger

    return WandBLogger(cfg)
