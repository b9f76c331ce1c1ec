"""Logging to Weights & Biases."""

from __future__ import annotations

import logging
import re
from pathlib import Path


class WandBLogger:
    """One run; keys are `train/<name>` and `eval/<name>`. Raises ImportError without the extra `wandb`."""

    def __init__(self, cfg):
        try:
            import wandb
        except ImportError as e:
            raise ImportError("--wandb.enable=true needs wandb: pip install -e '.[wandb]'.") from e
        parts = [
            f"policy:{cfg.policy.type}",
            f"seed:{cfg.seed}",
            f"dataset:{cfg.dataset.repo_id or cfg.dataset.root}",
        ]
        self.group = "-".join(parts + ([f"env:{cfg.env.type}"] if cfg.env else []))
        run_id = cfg.wandb.run_id or (self._previous_run(cfg) if cfg.resume else None)
        self.wandb = wandb
        self.run = wandb.init(
            id=run_id,
            project=cfg.wandb.project,
            entity=cfg.wandb.entity,
            name=cfg.job_name,
            group=self.group[:128],
            tags=[p[:64] for p in parts],
            notes=cfg.wandb.notes,
            dir=str(cfg.output_dir),
            config=cfg.to_dict(),
            save_code=False,
            job_type="train_eval",
            resume="must" if cfg.resume else None,
            mode=cfg.wandb.mode or "online",
        )
        cfg.wandb.run_id = self.run.id

    @staticmethod
    def _previous_run(cfg) -> str:
        found = list((Path(cfg.output_dir) / "wandb" / "latest-run").glob("run-*.wandb"))
        if len(found) != 1:
            raise RuntimeError("The run to resume on wandb is not known: set --wandb.run_id.")
        return re.match(r"run-(.+)\.wandb", found[0].name).group(1)

    def log_dict(self, values: dict, step: int, mode: str = "train") -> None:
        """Log numbers and strings; other values are left out with a warning."""
        if mode not in ("train", "eval"):
            raise ValueError(f"mode={mode!r}: expected 'train' or 'eval'.")
        usable = {f"{mode}/{k}": v for k, v in values.items() if isinstance(v, (int, float, str))}
        for name in values:
            if f"{mode}/{name}" not in usable:
                logging.warning("wandb: '%s' is neither a number nor text and is not logged.", name)
        self.wandb.log(usable, step=step)

    def log_video(self, path: str | Path, step: int, mode: str = "eval") -> None:
        """Show a video as `<mode>/video`."""
        self.wandb.log({f"{mode}/video": self.wandb.Video(str(path), format="mp4")}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()
