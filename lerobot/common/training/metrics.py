"""Training numbers: the log line, metrics.jsonl, the progress bar, and the trackers that were asked for."""

from __future__ import annotations

import json
import logging
import math
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from lerobot.common.policies.pretrained import count_parameters
from lerobot.common.training.sinks import make_sinks
from lerobot.common.utils.io_utils import append_text, write_text
from lerobot.common.utils.logging_utils import AverageMeter, Averages, MetricsTracker, format_big_number, is_number

METRICS_NAME = "metrics.jsonl"


def make_tracker(plan, dataset, step: int) -> MetricsTracker:
    """Loss, gradient norm, learning rate, seconds per update and per batch."""
    meters = {
        "loss": AverageMeter("loss", ":.3f"),
        "grad_norm": AverageMeter("grdn", ":.3f"),
        "lr": AverageMeter("lr", ":0.1e"),
        "update_s": AverageMeter("updt_s", ":.3f"),
        "dataloading_s": AverageMeter("data_s", ":.3f"),
    }
    return MetricsTracker(plan.global_batch, dataset.num_frames, dataset.num_episodes, meters, initial_step=step)


def require_finite(tracker: MetricsTracker, step: int, scaled: bool = False) -> None:
    """Stop (before anything is saved) when the loss or its gradient is no longer a number.

    scaled: gradients are; then those that overflow are skipped, and no error.
    """
    for name, what in (("loss", "loss"), *(() if scaled else (("grad_norm", "gradient"),))):
        if not math.isfinite(tracker.metrics[name].avg):
            raise ValueError(
                f"The {what} became {tracker.metrics[name].avg} before step {step}. Lower the learning rate "
                "(--policy.optimizer_lr), switch --policy.use_amp off, or look for NaN in the dataset. "
                "Earlier checkpoints are untouched."
            )


def describe(cfg, policy, dataset, plan, step: int) -> None:
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
    epochs = cfg.steps * plan.global_batch / max(1, dataset.num_frames)
    parts = f" = {plan.parts} x {plan.batch_size}" if plan.parts > 1 else ""
    logging.info("Steps: %d to %d, batch %d%s (%.1f epochs in all).", step, cfg.steps, plan.global_batch, parts, epochs)


class MetricsFile:
    """Appends one JSON line per log step to `<output_dir>/metrics.jsonl`, and shows the numbers wherever asked.

    A resumed run drops the lines that it repeats. With several processes every one calls `log`, the main one writes.
    Lines that a full disk does not take are kept and written later.
    """

    def __init__(self, cfg, engine, resume_step: int = 0):
        self.path, self.engine, self.sinks = Path(cfg.output_dir) / METRICS_NAME, engine, []
        self._waiting, self._reported = "", Averages()
        if not engine.is_main:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if resume_step:
            kept = [line for line in read_lines(self.path) if line["step"] <= resume_step]
            write_text("".join(json.dumps(line) + "\n" for line in kept), self.path)
        self.sinks = make_sinks(cfg)

    def observe(self, info: dict) -> None:
        """Take what the policy reports of one update."""
        self._reported.add(info)

    def log(self, tracker: MetricsTracker) -> None:
        """Write the averages since the last call: the tracker's, and of what the policy reported."""
        row = self._reported.take() | tracker.to_dict()
        row = self.engine.mean(row)
        tracker.reset_averages()
        if self.engine.is_main:
            logging.info("%s", readable(row, tracker))
            self._append({"step": tracker.steps, **row}, row, tracker.steps, "train")

    def log_eval(self, step: int, values: dict) -> dict[str, float]:
        """Write the outcome of an evaluation; returns it as it stands in metrics.jsonl, named `eval/<name>`."""
        values = {k: v for k, v in values.items() if is_number(v)}
        named = {f"eval/{k}": v for k, v in values.items()}
        if self.engine.is_main:
            self._append({"step": step, **named}, values, step, "eval")
        return named

    def log_videos(self, step: int, paths: list[str]) -> None:
        """Show the first video of an evaluation in every tracker."""
        for sink in self.sinks if paths else ():
            sink.log_video(paths[0], step, "eval")

    def _append(self, line: dict, values: dict, step: int, mode: str) -> None:
        self._waiting += json.dumps(line) + "\n"
        try:
            append_text(self._waiting, self.path)
            self._waiting = ""
        except OSError as e:
            logging.error(
                "%s cannot be written (%s); training goes on, later lines bring these.", self.path, e.strerror
            )
        for sink in self.sinks:
            sink.log_dict(values, step, mode)

    def close(self) -> None:
        """Flush every tracker."""
        for sink in self.sinks:
            sink.close()

    def rows(self) -> list[dict]:
        """Everything logged so far."""
        return read_lines(self.path)


def readable(row: dict, tracker: MetricsTracker) -> str:
    """The log line: counts, then every meter of the tracker in its own format."""
    big = format_big_number
    counts = f"step:{tracker.steps} smpl:{big(row['samples'])} ep:{big(row['episodes'])} epch:{row['epochs']:.2f}"
    meters = (f"{m.name}:{format(row[k], m.fmt.lstrip(':'))}" for k, m in tracker.metrics.items())
    return " ".join([counts, *meters])


@contextmanager
def progress_bar(cfg, engine, step: int):
    """A tqdm bar over the steps, in a terminal; log lines are printed above it."""
    shown = cfg.progress and engine.is_main and sys.stderr.isatty()
    bar = tqdm(total=cfg.steps, initial=step, unit="step", disable=not shown, dynamic_ncols=True)
    with bar, logging_redirect_tqdm() if shown else nullcontext():
        yield bar


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
