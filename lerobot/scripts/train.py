#!/usr/bin/env python
"""Train a policy on a LeRobotDataset.

    python lerobot/scripts/train.py --policy.type=act --dataset.root=grasp_dataset --steps=20000
    python lerobot/scripts/train.py --preset=smolvla_mini --dataset.root=grasp_dataset
    python lerobot/scripts/train.py --resume=true --output_dir=outputs/train/RUN

The road of a sample: dataset -> collate -> preprocessor -> policy -> loss -> optimizer -> checkpoint.
"""

import logging
import sys

import torch

from lerobot.common.datasets.factory import make_dataset
from lerobot.common.optim.factory import make_optimizer_and_scheduler
from lerobot.common.policies.factory import make_policy
from lerobot.common.training.checkpoint import (
    get_step_checkpoint_dir,
    load_training_state,
    save_checkpoint,
    update_last_checkpoint,
)
from lerobot.common.training.data import Timer, endless, log_dataset, make_loader, split_episodes
from lerobot.common.training.metrics import MetricsFile, describe, make_tracker, require_finite
from lerobot.common.training.precision import Precision
from lerobot.common.training.processors import images_as_float, make_training_processors, match_dataset
from lerobot.common.training.report import evaluate_in_env, finish
from lerobot.common.training.smoke import smoke
from lerobot.common.utils.random_utils import derive_seed, set_seed
from lerobot.common.utils.utils import init_logging, run_command
from lerobot.configs import parser
from lerobot.configs.train import TrainPipelineConfig


def update_policy(tracker, policy, batch, optimizer, grad_clip_norm, precision, scheduler=None) -> dict:
    """One optimizer step on a preprocessed batch; returns what the policy reports beside its loss."""
    policy.train()
    with precision.autocast():
        loss, info = policy.forward(batch)
    precision.backward(loss)
    precision.unscale(optimizer)
    clip = grad_clip_norm if grad_clip_norm > 0 else float("inf")
    grad_norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), clip, error_if_nonfinite=False)
    precision.step(optimizer)
    optimizer.zero_grad(set_to_none=True)
    if scheduler is not None:
        scheduler.step()
    if hasattr(policy, "update"):
        policy.update()
    tracker.loss = loss.detach()
    tracker.grad_norm = grad_norm.detach()
    tracker.lr = optimizer.param_groups[0]["lr"]
    return info or {}


@parser.wrap()
def train(cfg: TrainPipelineConfig):
    """Run the training that `cfg` describes and return the folder of the last checkpoint."""
    cfg.validate()
    if cfg.seed is not None:
        set_seed(cfg.seed)
    torch.backends.cudnn.benchmark = not cfg.cudnn_deterministic
    torch.backends.cuda.matmul.allow_tf32 = True

    train_episodes, held_out = split_episodes(cfg)
    dataset = make_dataset(cfg, episodes=train_episodes, return_uint8=True)
    log_dataset(dataset, held_out)
    match_dataset(cfg, dataset)
    policy = make_policy(cfg.policy, ds_meta=dataset.meta, rename_map=cfg.rename_map)
    preprocessor, postprocessor = make_training_processors(cfg, dataset.meta.stats)
    optimizer, scheduler = make_optimizer_and_scheduler(cfg, policy)
    precision = Precision(cfg.policy)
    step = 0
    if cfg.resume:
        step, optimizer, scheduler = load_training_state(cfg.checkpoint_path, optimizer, scheduler)

    loader = make_loader(dataset, cfg, precision.device, start_step=step)
    batches = endless(loader)
    tracker = make_tracker(cfg, dataset, step)
    metrics_file = MetricsFile(cfg, resume_step=step)
    describe(cfg, policy, dataset, step)

    timer = Timer()
    while step < cfg.steps:
        batch = preprocessor(images_as_float(next(batches), precision.device))
        tracker.dataloading_s = timer()
        if cfg.seed is not None:  # draws are a function of the step, so a resumed run repeats them
            set_seed(derive_seed(cfg.seed, step))
        info = update_policy(tracker, policy, batch, optimizer, cfg.optimizer.grad_clip_norm, precision, scheduler)
        step += 1
        tracker.step()
        tracker.update_s = timer()

        if cfg.log_freq and (step % cfg.log_freq == 0 or step == cfg.steps):
            require_finite(tracker, step)
            metrics_file.log(tracker, info)
        if cfg.save_checkpoint and (step == cfg.steps or (cfg.save_freq and step % cfg.save_freq == 0)):
            checkpoint_dir = get_step_checkpoint_dir(cfg.output_dir, cfg.steps, step)
            logging.info("Checkpoint %s", checkpoint_dir)
            save_checkpoint(checkpoint_dir, step, cfg, policy, optimizer, scheduler, preprocessor, postprocessor)
            update_last_checkpoint(checkpoint_dir)
        if cfg.env and cfg.eval_freq and step % cfg.eval_freq == 0:
            metrics_file.log_eval(step, evaluate_in_env(cfg, policy, preprocessor, postprocessor, step))
        timer()

    return finish(cfg, policy, preprocessor, postprocessor, held_out, metrics_file, dataset.meta)


def main():
    """Entry point of the command line."""
    init_logging()
    cfg = parser.parse(TrainPipelineConfig, sys.argv[1:])
    smoke(cfg, train) if cfg.smoke else train(cfg)


if __name__ == "__main__":
    run_command(main)
