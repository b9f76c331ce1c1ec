"""What a run ends with: loss curve, held-out action error, success in the simulated arm, and where everything lies."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from pathlib import Path

from lerobot.common.constants import CHECKPOINTS_DIR, LAST_CHECKPOINT_LINK, PRETRAINED_MODEL_DIR
from lerobot.common.policies.adapters import export_merged
from lerobot.common.training.publish import model_card, publish, stage
from lerobot.common.training.summary_page import EVAL_DIR, EVAL_NAME, write_summary_page
from lerobot.common.utils.io_utils import write_json

SUMMARY_NAME = "summary.json"
SUMMARY_PAGE = "summary.html"
CURVES_NAME = "curves.png"
MERGED_NAME = "merged_model"


def evaluate_in_env(cfg, run, step: int, metrics) -> dict:
    """Run `cfg.eval` episodes in `cfg.env`; returns the aggregated numbers, writes eval_info.json and videos.

    The main process does it, for the weights that a checkpoint deploys; the others get an empty result.
    """
    with run.deployed():
        return _evaluate_in_env(cfg, run, step, metrics) if run.engine.is_main else {}


def _evaluate_in_env(cfg, run, step: int, metrics) -> dict:
    from lerobot.common.evaluation.evaluate import evaluate, format_result
    from lerobot.configs.eval import KOCH_SEED

    folder = Path(cfg.output_dir) / EVAL_DIR / f"step_{step:06d}"
    result = evaluate(
        cfg.env,
        cfg.eval,
        run.policy,
        run.preprocessor,
        run.postprocessor,
        videos_dir=folder / "videos",
        start_seed=KOCH_SEED if cfg.env.type == "koch" else cfg.seed,
    )
    write_json(result, folder / EVAL_NAME, indent=2)
    metrics.log_videos(step, result.get("video_paths", []))
    print(format_result(result, f"\nEvaluation in {cfg.env.type} {cfg.env.task} after {step} steps"), flush=True)
    return result["aggregated"]


def finish(cfg, run, held_out, metrics, evaluated: dict | None = None) -> Path:
    """Evaluate the final weights, print the report, write summary.json, summary.html and curves.png; publish.

    The main process does it; `evaluated` are the numbers of `evaluate_in_env` where the last step already had its turn.
    Returns the checkpoint.
    """
    checkpoint = Path(cfg.output_dir) / CHECKPOINTS_DIR / LAST_CHECKPOINT_LINK / PRETRAINED_MODEL_DIR
    with run.deployed():
        summary = _report(cfg, run, held_out, metrics, checkpoint, evaluated) if run.engine.is_main else {}
    if run.engine.is_main:
        _write(cfg, run, metrics, checkpoint, summary)
    return checkpoint


def _report(cfg, run, held_out, metrics, checkpoint: Path, evaluated: dict | None) -> dict:
    """Measure and print; returns what summary.json holds."""
    from lerobot.common.evaluation.plots import loss_curve_text

    logged = [row for row in metrics.rows() if "loss" in row]
    steps, losses = [row["step"] for row in logged], [row["loss"] for row in logged]
    summary: dict = {"steps": cfg.steps, "checkpoint": str(checkpoint) if cfg.save_checkpoint else None}
    if len(steps) > 1:
        print(f"\nLoss\n{loss_curve_text(steps, losses)}", flush=True)
        summary["final_loss"] = losses[-1]
    if held_out.episodes:
        error = held_out.action_error(run.policy, run.preprocessor, run.postprocessor)
        print(f"\nHeld-out episodes {', '.join(map(str, held_out.episodes))}\n{error}", flush=True)
        summary["held_out_error"] = error.to_dict()
    if evaluated is not None:
        summary["eval"] = evaluated
    elif cfg.env and _env_means_something(cfg, run.record["dataset"]):
        summary["eval"] = _evaluate_in_env(cfg, run, cfg.steps, metrics)
        metrics.log_eval(cfg.steps, summary["eval"])
    return summary


def _write(cfg, run, metrics, checkpoint: Path, summary: dict) -> None:
    """The files of a finished run, the hub, and what to do next."""
    from lerobot.common.evaluation.plots import save_metrics_plot

    metrics.close()
    output = Path(cfg.output_dir)
    save_metrics_plot(metrics.rows(), output / CURVES_NAME, title=cfg.job_name)
    write_json(summary, output / SUMMARY_NAME, indent=2)
    write_summary_page(output / SUMMARY_PAGE, cfg, run.record, summary, output / CURVES_NAME)
    if cfg.peft and cfg.peft.merge and cfg.save_checkpoint:
        export_merged(checkpoint, Path(cfg.output_dir) / MERGED_NAME)
    if cfg.policy.push_to_hub:
        card = model_card(cfg, run.record, summary)
        folder = stage(output, checkpoint, card, (CURVES_NAME, SUMMARY_PAGE))
        publish(folder, cfg.policy.repo_id, cfg.policy.private)
    if cfg.save_checkpoint:
        print(f"\nCheckpoint  {_short(checkpoint)}\nNext        {next_command(checkpoint)}", flush=True)
        print(f"Report      {report_command(checkpoint, run.record['dataset']['root'])}", flush=True)


def next_command(checkpoint: Path) -> str:
    """The command that measures a checkpoint more closely, as it can be typed here."""
    script = Path(__file__).parents[2] / "scripts" / "eval.py"
    flags = "--env.type=koch --eval.n_episodes=200 --eval.use_async_envs=true"
    return f"{_short(sys.executable)} {_short(script)} --policy.path={_short(checkpoint)} {flags}"


def report_command(checkpoint: Path, dataset: str) -> str:
    """The command that makes a checkpoint's report card."""
    script = Path(__file__).parents[2] / "scripts" / "report.py"
    flags = f"--policy.path={_short(checkpoint)} --dataset.root={_short(dataset)}"
    return f"{_short(sys.executable)} {_short(script)} {flags}"


def _short(path: str | Path) -> str:
    """A path for the command line, relative to the working directory where that is shorter."""
    return shlex.quote(min(str(path), os.path.relpath(path), key=len))


def _env_means_something(cfg, dataset: dict) -> bool:
    if cfg.env.type != "koch" or dataset["sim"]:
        return True
    logging.info("The dataset was recorded on a real arm: success in the simulated one would say nothing about it.")
    return False
