#!/usr/bin/env python
"""Train a policy on a LeRobotDataset.

    python lerobot/scripts/train.py --policy.type=act --dataset.root=grasp_dataset --steps=20000
    python lerobot/scripts/train.py --preset=smolvla_mini --dataset.root=grasp_dataset
    python lerobot/scripts/train.py --resume=true --output_dir=outputs/train/RUN

The road of a sample: dataset -> collate -> preprocessor -> policy -> loss -> optimizer -> checkpoint.
"""

import sys
from contextlib import closing

import torch

from lerobot.common.checks.camera_ghost import references_of_dataset
from lerobot.common.datasets.factory import make_dataset
from lerobot.common.optim.factory import make_optimizer_and_scheduler
from lerobot.common.policies.adapters import add_adapter
from lerobot.common.policies.factory import make_policy
from lerobot.common.training.data import (
    Timer,
    augment_on_device,
    endless,
    log_dataset,
    make_loader,
    make_plan,
    make_prepare,
    split_episodes,
)
from lerobot.common.training.engine import make_engine
from lerobot.common.training.estimate import Outlook, estimate, facts_of
from lerobot.common.training.frozen_features import FrozenFeatures
from lerobot.common.training.metrics import MetricsFile, describe, make_tracker, progress_bar, require_finite
from lerobot.common.training.processors import make_training_processors, match_dataset
from lerobot.common.training.record import make_record
from lerobot.common.training.report import evaluate_in_env, finish
from lerobot.common.training.run import Run
from lerobot.common.training.saver import CheckpointSaver
from lerobot.common.training.smoke import smoke
from lerobot.common.training.validation import HeldOut
from lerobot.common.utils.random_utils import derive_seed, set_seed
from lerobot.common.utils.utils import init_logging, run_command
from lerobot.configs import parser
from lerobot.configs.train import TrainPipelineConfig


def train_step(tracker, policy, batches, sizes, optimizer, grad_clip_norm, engine, scheduler=None) -> dict:
    """One optimizer step on preprocessed micro-batches; returns what the policy reports beside its loss."""
    policy.train()
    loss, info = engine.backward_of(batches, sizes)
    grad_norm = engine.clip(policy, optimizer, grad_clip_norm)
    engine.step(optimizer)
    if scheduler is not None:
        scheduler.step()
    if hasattr(policy, "update"):
        policy.update()
    tracker.loss = loss.detach()
    tracker.grad_norm = grad_norm.detach()
    tracker.lr = optimizer.param_groups[0]["lr"]
    return info


@parser.wrap()
def train(cfg: TrainPipelineConfig):
    """Run the training that `cfg` describes and return the folder of the last checkpoint (None: only estimated)."""
    cfg.validate()
    engine = make_engine(cfg)
    set_seed(cfg.seed)
    torch.backends.cudnn.benchmark = not cfg.cudnn_deterministic
    torch.backends.cuda.matmul.allow_tf32 = True

    with engine.main_first():
        train_episodes, held_out = split_episodes(cfg)
        dataset = make_dataset(cfg, episodes=train_episodes, return_uint8=True)
        log_dataset(dataset, held_out)
        match_dataset(cfg, dataset)
        policy = make_policy(cfg.policy, ds_meta=dataset.meta, rename_map=cfg.rename_map)
        if cfg.peft and not cfg.resume:
            add_adapter(policy, cfg.peft)
    preprocessor, postprocessor = make_training_processors(cfg, dataset.meta.stats)
    prepare = make_prepare(preprocessor, engine.device)
    with engine.main_first():
        features = FrozenFeatures.open(cfg, policy, dataset, prepare, engine)
    if engine.device.type != "cpu":  # on a CPU the loader's workers augment side by side
        prepare = make_prepare(preprocessor, engine.device, augment_on_device(dataset, engine.device))
    optimizer, scheduler = make_optimizer_and_scheduler(cfg, policy)
    optimizer = engine.prepare(policy, optimizer)
    plan = make_plan(dataset, cfg, engine.world_size)
    if cfg.estimate:
        loader = make_loader(dataset, cfg, plan, engine.device, rank=engine.rank)
        print(estimate(cfg, dataset, loader, prepare, features, policy, optimizer, engine))
        return None
    record, references = make_record(cfg, dataset, plan), references_of_dataset(dataset.meta)
    run = Run(cfg, engine, plan, policy, optimizer, scheduler, preprocessor, postprocessor, record, references)
    validation = HeldOut(cfg, held_out)

    with closing(CheckpointSaver(cfg, engine)) as saver:
        saver.require_space(policy)
        step = run.restore() if cfg.resume else 0
        batches = endless(make_loader(dataset, cfg, plan, engine.device, start_step=step, rank=engine.rank))
        batches = batches if features is None else features.ahead(batches)
        tracker = make_tracker(plan, dataset, step)
        metrics = MetricsFile(cfg, engine, resume_step=step)
        describe(cfg, policy, dataset, plan, step)

        timer, evaluated = Timer(), {}
        outlook = Outlook(step, cfg.steps, engine.device, facts_of(cfg, policy, features))
        with progress_bar(cfg, engine, step) as bar:
            while step < cfg.steps:
                parts = [prepare(next(batches)) for _ in range(plan.accumulation)]
                tracker.dataloading_s = timer()
                # Draws are a function of the step, so a resumed run repeats them.
                set_seed(derive_seed(cfg.seed, step, *([engine.rank] if engine.rank else [])))
                clip = cfg.optimizer.grad_clip_norm
                info = train_step(tracker, policy, parts, plan.sizes(step), optimizer, clip, engine, scheduler)
                metrics.observe(info)
                step += 1
                run.after_update(step)
                tracker.step()
                tracker.update_s = timer()
                outlook(step, tracker.dataloading_s.val)
                bar.update()

                if cfg.log_freq and (step % cfg.log_freq == 0 or step == cfg.steps):
                    require_finite(tracker, step, engine.scaler.is_enabled())
                    metrics.log(tracker)
                if saver.is_due(step):
                    require_finite(tracker, step, engine.scaler.is_enabled())
                    saver.save(run.snapshot(step))
                if validation.is_due(step):
                    saver.consider(step, metrics.log_eval(step, validation.validate(run, step)))
                if cfg.env and cfg.eval_freq and step % cfg.eval_freq == 0:
                    evaluated = {step: evaluate_in_env(cfg, run, step, metrics)}
                    saver.consider(step, metrics.log_eval(step, evaluated[step]))
                timer()
        saver.wait(final=True)
        checkpoint = finish(cfg, run, validation, metrics, evaluated.get(cfg.steps))
    engine.close()
    return checkpoint


def main():
    """Entry point of the command line."""
    init_logging()
    cfg = parser.parse(TrainPipelineConfig, sys.argv[1:])
    smoke(cfg, train) if cfg.smoke else train(cfg)


if __name__ == "__main__":
    run_command(main)
