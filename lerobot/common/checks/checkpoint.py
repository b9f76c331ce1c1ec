"""Is a checkpoint whole, and does it say how its inputs are normalized?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lerobot.common.checks.facts import Facts, checkpoint_facts
from lerobot.common.checks.finding import Finding, Where
from lerobot.common.constants import (
    CHECKPOINTS_DIR,
    LAST_CHECKPOINT_LINK,
    POLICY_PREPROCESSOR_DEFAULT_NAME,
    PRETRAINED_MODEL_DIR,
    SAFETENSORS_SINGLE_FILE,
)
from lerobot.configs.types import NormalizationMode

CONSTANT = 1e-6  # a spread below this (in the units of the recording) is a joint that never moves


@dataclass
class CheckedCheckpoint:
    """A checkpoint as far as it could be read."""

    findings: list[Finding]
    config: Any = None
    facts: Facts | None = None


def check_checkpoint(path: str | Path) -> CheckedCheckpoint:
    """Read a checkpoint (a step folder, its pretrained_model, or a run) and say what is wrong with it."""
    from lerobot.common.policies.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS
    from lerobot.common.training.record import read_record
    from lerobot.configs.policies import PreTrainedConfig

    folder, findings = find_model_folder(path)
    if folder is None:
        return CheckedCheckpoint(findings)
    findings += check_files(folder)
    try:
        config = PreTrainedConfig.from_pretrained(folder)
    except (ValueError, OSError) as e:
        fix = "copy the checkpoint again, or name another one by --policy.path"
        return CheckedCheckpoint([*findings, Finding("checkpoint.config", "error", str(e), fix=fix)])
    adapter = (folder / ADAPTER_CONFIG).is_file()  # then the weights are those of another checkpoint
    findings += check_weights(folder / (ADAPTER_WEIGHTS if adapter else SAFETENSORS_SINGLE_FILE))
    stats, more = check_processors(folder, config)
    findings += more
    return CheckedCheckpoint(findings, config, checkpoint_facts(folder, config, stats, read_record(folder)))


def find_model_folder(path: str | Path) -> tuple[Path | None, list[Finding]]:
    """The folder with config.json that a path means; a run's folder means its last checkpoint."""
    path = Path(path).expanduser()
    checkpoints = path / CHECKPOINTS_DIR
    link = checkpoints / LAST_CHECKPOINT_LINK
    if checkpoints.is_dir() and not link.exists():
        steps = sorted(p.name for p in checkpoints.glob("[0-9]*"))
        message = f"{link} leads nowhere; there are the steps {', '.join(steps) or 'none'}."
        fix = f"ln -sfn {steps[-1]} {link}" if steps else "start the run again"
        return None, [Finding("checkpoint.last", "error", message, Where(file=str(link)), {"steps": steps}, fix)]
    for folder in (path, path / PRETRAINED_MODEL_DIR, link / PRETRAINED_MODEL_DIR):
        if (folder / "config.json").is_file():
            return folder, []
    message = f"{path} is no checkpoint: no config.json in it, in {PRETRAINED_MODEL_DIR}/ or in {CHECKPOINTS_DIR}/last."
    fix = "--policy.path=RUN/checkpoints/last/pretrained_model"
    return None, [Finding("checkpoint.absent", "error", message, Where(file=str(path)), fix=fix)]


def check_files(folder: Path) -> list[Finding]:
    """That every file is as it was written, where the manifest is at hand."""
    from lerobot.common.training.manifest import MANIFEST_NAME, damage, newest_whole_checkpoint

    step = folder.resolve().parent
    faults = damage(step) if (step / MANIFEST_NAME).is_file() else []
    if not faults:
        return []
    other, _ = newest_whole_checkpoint(step.parent.parent)
    fix = f"--policy.path={other / PRETRAINED_MODEL_DIR}" if other else "copy the checkpoint again"
    message = f"The checkpoint is damaged: {'; '.join(faults)}."
    return [Finding("checkpoint.damaged", "error", message, Where(file=str(step)), {"faults": faults}, fix)]


def check_weights(file: Path) -> list[Finding]:
    """That the weights can be read and are finite."""
    place = Where(file=str(file))
    if not file.is_file():
        return [Finding("checkpoint.no_weights", "error", f"{file.name} is absent.", place, fix="copy it again")]
    try:
        with safe_open(str(file), framework="pt", device="cpu") as f:
            bad = [name for name in f.keys() if not torch.isfinite(f.get_tensor(name).float()).all()]  # noqa: SIM118
    except SafetensorError as e:
        message = f"{file.name} is truncated or no safetensors file ({e})."
        return [Finding("checkpoint.unreadable", "error", message, place, fix="copy the checkpoint again")]
    if not bad:
        return []
    message = f"{len(bad)} tensors of {file.name} hold NaN or infinity, first {bad[0]}: the training had diverged."
    fix = "take an earlier checkpoint and lower --policy.optimizer_lr"
    return [Finding("checkpoint.not_finite", "error", message, place, {"tensors": bad[:20]}, fix)]


def check_processors(folder: Path, config) -> tuple[dict, list[Finding]]:
    """(statistics that inputs are normalized with, findings): present, complete, named like the features, not flat."""
    from lerobot.common.policies.factory import make_pre_post_processors
    from lerobot.common.processor.normalize import NormalizerProcessorStep

    try:
        preprocessor, _ = make_pre_post_processors(config, folder)
    except FileNotFoundError as e:
        if "okenizer" in str(e):
            fix = "run once where there is a network, or set HF_HOME to a filled cache"
            return {}, [Finding("checkpoint.tokenizer", "error", str(e), fix=fix)]
        fix = f"copy {POLICY_PREPROCESSOR_DEFAULT_NAME}.json and its .safetensors files beside the weights"
        return {}, [Finding("checkpoint.processors", "error", str(e), fix=fix)]
    except ImportError as e:
        return {}, [Finding("env.package", "error", str(e), fix='pip install -e ".[smolvla]"')]
    except (ValueError, KeyError) as e:
        fix = "copy the processor files of the checkpoint again"
        return {}, [Finding("checkpoint.processors", "error", str(e), fix=fix)]
    step = next((s for s in preprocessor.steps if isinstance(s, NormalizerProcessorStep)), None)
    stats = dict(step.stats or {}) if step else {}
    return stats, _check_statistics(config, stats)


def _check_statistics(config, stats: dict) -> list[Finding]:
    findings = []
    for name, feature in {**config.input_features, **config.output_features}.items():
        mode = NormalizationMode(config.normalization_mapping.get(feature.type.value, NormalizationMode.IDENTITY))
        if mode is NormalizationMode.IDENTITY or "empty_camera" in name:
            continue
        if name not in stats:
            message = f"{name} is normalized by {mode.value} and the checkpoint has no statistics of that name."
            evidence = {"statistics": sorted(stats)[:20]}
            fix = "fine-tune on your dataset (--policy.path, --dataset.root): its statistics are then used"
            findings.append(Finding("checkpoint.statistics", "error", message, Where(feature=name), evidence, fix))
        elif "image" not in name:
            findings += _check_spread(name, stats[name])
    return findings


def _check_spread(name: str, entry: dict) -> list[Finding]:
    std = torch.as_tensor(entry["std"]).flatten().tolist() if "std" in entry else []
    bad = [i for i, value in enumerate(std) if not math.isfinite(value)]
    if bad:
        message = f"The statistics of {name} are not finite: they were never set."
        fix = "fine-tune on your dataset, whose statistics are then used"
        return [Finding("checkpoint.statistics", "error", message, Where(feature=name), {"components": bad}, fix)]
    flat = [i for i, value in enumerate(std) if value < CONSTANT]
    if not flat:
        return []
    message = (
        f"{name} never moved in component {', '.join(map(str, flat))} of the training data: its value is amplified."
    )
    fix = "record episodes in which this joint moves, or leave it out"
    return [Finding("checkpoint.constant", "warning", message, Where(feature=name), {"components": flat}, fix)]
