"""Building optimizer and scheduler from a training configuration."""

from __future__ import annotations


def make_optimizer_and_scheduler(cfg, policy):
    """Return (optimizer, scheduler or None) for `policy` as `cfg.optimizer` and `cfg.scheduler` say."""
    params = policy.get_optim_params() if cfg.use_policy_training_preset else policy.parameters()
    optimizer = cfg.optimizer.build(params)
    scheduler = cfg.scheduler.build(optimizer, cfg.steps) if cfg.scheduler is not None else None
    return optimizer, scheduler
