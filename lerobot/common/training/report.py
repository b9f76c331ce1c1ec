"""What a run ends with: loss curve, held-out action error, success in the simulated arm, and where everything lies."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from lerobot.common.constants import CHECKPOINTS_DIR, LAST_CHECKPOINT_LINK, PRETRAINED_MODEL_DIR
from lerobot.common.utils.io_utils import write_json

SUMMARY_NAME = "summary.json"
LOSS_CURVE_NAME = "loss_curve.png"


def evaluate_in_env(cfg, policy, preprocessor, postprocessor, step: int) -> dict:
    """Run `cfg.eval` episodes in `cfg.env`; returns the aggregated numbers and writes videos and eval_info.json."""
    from lerobot.common.evaluation.evaluate import evaluate, format_result
    from lerobot.configs.eval import KOCH_SEED

    folder = Path(cfg.output_dir) / "eval" / f"step_{step:06d}"
    result = evaluate(
        cfg.env,
        cfg.eval,
        policy,
        preprocessor,
        postprocessor,
        videos_dir=folder / "videos",
        start_seed=KOCH_SEED if cfg.env.type == "koch" else cfg.seed,
    )
    write_json(result, folder / "eval_info.json", indent=2)
    print(format_result(result, f"\nEvaluation in {cfg.env.type} {cfg.env.task} after {step} steps"), flush=True)
    return result["aggregated"]


def held_out_error(cfg, policy, preprocessor, postprocessor, episodes: list[int]):
    """Open-loop action error on held-out episodes, in the units of the dataset."""
    from lerobot.common.datasets.factory import make_dataset
    from lerobot.common.evaluation.open_loop import open_loop_error

    dataset = make_dataset(cfg, episodes=episodes, return_uint8=True)
    dataset.image_transforms = None
    return open_loop_error(policy, preprocessor, postprocessor, dataset)


def finish(cfg, policy, preprocessor, postprocessor, held_out: list[int], metrics_file, dataset_meta) -> Path:
    """Evaluate the final weights, print the report, write summary.json and the loss curve; returns the checkpoint."""
    from lerobot.common.evaluation.plots import loss_curve_text, save_metrics_plot

    checkpoint = Path(cfg.output_dir) / CHECKPOINTS_DIR / LAST_CHECKPOINT_LINK / PRETRAINED_MODEL_DIR
    logged = [row for row in metrics_file.rows() if "loss" in row]
    steps, losses = [row["step"] for row in logged], [row["loss"] for row in logged]
    summary: dict = {"steps": cfg.steps, "checkpoint": str(checkpoint) if cfg.save_checkpoint else None}
    if len(steps) > 1:
        print(f"\nLoss\n{loss_curve_text(steps, losses)}", flush=True)
        summary["final_loss"] = losses[-1]
    if held_out:
        error = held_out_error(cfg, policy, preprocessor, postprocessor, held_out)
        print(f"\nHeld-out episodes {', '.join(map(str, held_out))}\n{error}", flush=True)
        summary["held_out_error"] = error.to_dict()
    if cfg.env and _env_means_something(cfg, dataset_meta):
        summary["eval"] = evaluate_in_env(cfg, policy, preprocessor, postprocessor, cfg.steps)
        metrics_file.log_eval(cfg.steps, summary["eval"])
    save_metrics_plot(metrics_file.rows(), Path(cfg.output_dir) / LOSS_CURVE_NAME, title=cfg.job_name)
    write_json(summary, Path(cfg.output_dir) / SUMMARY_NAME, indent=2)
    if cfg.policy.push_to_hub:
        _push(cfg, policy, preprocessor, postprocessor)
    if cfg.save_checkpoint:
        print(f"\nCheckpoint  {_short(checkpoint)}\nNext        {next_command(checkpoint)}", flush=True)
    return checkpoint


def next_command(checkpoint: Path) -> str:
    """The command that measures a checkpoint more closely, as it can be typed here."""
    script = Path(__file__).parents[2] / "scripts" / "eval.py"
    flags = "--env.type=koch --eval.n_episodes=200 --eval.use_async_envs=true"
    return f"{_short(sys.executable)} {_short(script)} --policy.path={_short(checkpoint)} {flags}"


def _short(path: str | Path) -> str:
    """A path relative to the working directory where that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)


def _env_means_something(cfg, dataset_meta) -> bool:
    if cfg.env.type != "koch" or dataset_meta.info.get("sim"):
        return True
    logging.info("The dataset was recorded on a real arm: success in the simulated one would say nothing about it.")
    return False


def _push(cfg, policy, preprocessor, postprocessor) -> None:
    for part in (policy, preprocessor, postprocessor):
        part.push_to_hub(cfg.policy.repo_id, private=cfg.policy.private)
