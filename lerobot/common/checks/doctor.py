"""Every check that applies to what was given, in one list."""

from __future__ import annotations

from pathlib import Path

from lerobot.common.checks import environment, training
from lerobot.common.checks.checkpoint import check_checkpoint
from lerobot.common.checks.dataset_checks import DatasetCheck
from lerobot.common.checks.devices import check_devices
from lerobot.common.checks.facts import Facts, dataset_facts, robot_facts
from lerobot.common.checks.finding import Finding
from lerobot.common.checks.match import check_match
from lerobot.common.checks.reading import check_reading
from lerobot.configs.types import FeatureType, PolicyFeature


def examine(cfg, robot=None) -> list[Finding]:
    """Findings on the machine and on whichever of dataset, checkpoint, run and robot `cfg` names (a DoctorConfig)."""
    findings = environment.check_environment(cfg.policy.device, cfg.output_dir or ".")
    data, policy, checkpoint = None, None, None
    if cfg.policy.path:
        checked = check_checkpoint(cfg.policy.path)
        findings += checked.findings
        policy, checkpoint = checked.config, checked.facts
    elif cfg.policy.type:
        policy, more = _policy_from_zero(cfg)
        findings += more
    if cfg.dataset.root:
        meta, more = check_reading(cfg.dataset.root)
        findings += more
        data = dataset_facts(meta) if meta is not None else None
        if not more:  # it can be read: look into it
            chunk = len(policy.action_delta_indices or [0]) if policy is not None else 1
            findings += DatasetCheck(cfg.dataset.root, chunk=chunk, decode=cfg.decode).run()
    if policy is not None:
        findings += _with_policy(cfg, policy, data)
    findings += _pairs(cfg, policy, data, checkpoint, robot_facts(robot) if robot is not None else None)
    if robot is not None:
        findings += check_devices(robot)
    if cfg.output_dir and (Path(cfg.output_dir) / "checkpoints").exists():
        findings += training.check_run(cfg.output_dir)
    return list({(f.code, f.message): f for f in findings}.values())


def _policy_from_zero(cfg) -> tuple[object | None, list[Finding]]:
    from lerobot.common.policies.factory import UnknownPolicyError, make_policy_config

    try:
        policy = make_policy_config(cfg.policy.type, device=cfg.policy.device)
    except UnknownPolicyError as e:
        return None, [Finding("plan.policy", "error", str(e), fix="--policy.type=act")]
    return policy, environment.check_packages(cfg.policy.type)


def _with_policy(cfg, policy, data: Facts | None) -> list[Finding]:
    if data is not None and not policy.input_features:
        policy.input_features = {k: PolicyFeature(FeatureType.VISUAL, shape) for k, shape in data.cameras.items()}
    findings = training.check_plan(cfg, policy, data)
    parameters = training.parameters_of(policy.pretrained_path or _folder(cfg.policy.path))
    return findings + training.check_memory(
        policy, cfg.batch_size, parameters, training.free_memory(policy.device or "cpu")
    )


def _folder(path: str | None) -> Path | None:
    folders = [Path(path), Path(path) / "pretrained_model"] if path else []
    return next((f for f in folders if (f / "config.json").is_file()), None)


def _pairs(cfg, policy, data, checkpoint, robot) -> list[Finding]:
    findings, language = [], policy is not None and hasattr(policy, "tokenizer_max_length")
    if data is not None and checkpoint is not None:
        findings += check_match(data, checkpoint, cfg.rename_map, needs_tasks=language)
    if robot is not None and checkpoint is not None:
        findings += check_match(robot, checkpoint, cfg.rename_map)
    elif robot is not None and data is not None:
        findings += check_match(robot, data)
    return findings
