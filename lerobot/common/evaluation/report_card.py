"""The report card of a checkpoint: what it was measured to do on recorded episodes, and what that means in words."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lerobot.common.checks.finding import Finding
from lerobot.common.constants import CHECKPOINTS_DIR, PRETRAINED_MODEL_DIR
from lerobot.common.datasets.collate import collate
from lerobot.common.evaluation import probes as p
from lerobot.common.evaluation.motion import error_at_events, gripper_events, roughness, seam_jumps
from lerobot.common.evaluation.open_loop import OpenLoopReport
from lerobot.common.processor.images import images_to_float
from lerobot.common.utils.device import mixed_precision

LATENCY_RUNS = 7
EVENT_WINDOW_S = 1.0  # a gripper movement further away counts as missed
EVENT_RADIUS_S = 0.2


@dataclass
class ReportCard:
    """Measurements of one checkpoint on recorded episodes; errors are in the units of the recording.

    `every` is the number of actions of a chunk that the arm carries out; `latency_s` what a chunk takes for one frame;
    `trained_on` whether the episodes were trained on (None: not known); `tasks` the sentences of the dataset;
    `mismatches` how the recording differs from what the checkpoint was trained on.
    """

    name: str
    path: str
    policy_type: str
    parameters: int
    device: str
    reads_instruction: bool
    report: OpenLoopReport
    every: int
    fps: float
    latency_s: list[float]
    trained_on: bool | None
    tasks: list[str]
    mismatches: list[Finding] = field(default_factory=list)

    @cached_property
    def probes(self) -> list[p.ProbeResult]:
        """Results of the probes; none if the policy does the same for every frame."""
        return p.probe_results(self.report)

    @cached_property
    def seams(self) -> tuple[np.ndarray, np.ndarray]:
        """`seam_jumps`."""
        return seam_jumps(self.report)

    @cached_property
    def roughness(self) -> tuple[float, float]:
        """`roughness`."""
        return roughness(self.report)

    @cached_property
    def events(self) -> list:
        """`gripper_events`."""
        return gripper_events(self.report, round(EVENT_WINDOW_S * self.fps))

    @cached_property
    def error_at_events(self) -> tuple[float, float]:
        """`error_at_events`."""
        return error_at_events(self.report, self.events, round(EVENT_RADIUS_S * self.fps))

    @property
    def seconds(self) -> float:
        """How far ahead its chunks reach."""
        return self.report.steps / self.fps

    @property
    def latency(self) -> float:
        """Median seconds for a chunk."""
        return float(np.median(self.latency_s))

    @property
    def lags_s(self) -> list[float]:
        """Seconds by which the gripper is late (early: negative), for the movements that happen."""
        return [event.lag / self.fps for event in self.events if event.lag is not None]

    @cached_property
    def findings(self) -> list[Finding]:
        """What the numbers mean, the worst first."""
        return sorted(find(self), key=lambda f: ("error", "warning", "info").index(f.severity))

    def to_dict(self) -> dict[str, Any]:
        """The numbers and findings as JSON values."""
        jump, recorded_jump = self.seams
        near, far = self.error_at_events
        return {
            "checkpoint": self.path,
            "policy": self.policy_type,
            "parameters": self.parameters,
            "every": self.every,
            "open_loop": self.report.to_dict(),
            "probes": {one.name: {"change": one.change, "error": one.error} for one in self.probes},
            "seam_jump": float(jump.mean()) if len(jump) else None,
            "seam_jump_recorded": float(recorded_jump.mean()) if len(jump) else None,
            "roughness": None
            if np.isnan(self.roughness[0])
            else {"predicted": self.roughness[0], "recorded": self.roughness[1]},
            "gripper": {
                "events": len(self.events),
                "missed": sum(event.lag is None for event in self.events),
                "mean_lag_s": float(np.mean(self.lags_s)) if self.lags_s else None,
                "error_near": None if np.isnan(near) else near,
                "error_elsewhere": None if np.isnan(far) else far,
            },
            "latency_s": {"median": self.latency, "worst": max(self.latency_s), "device": self.device},
            "trained_on_these_episodes": self.trained_on,
            "findings": [finding.to_dict() for finding in self.findings],
        }


def run_name(path: str, folders: int = 1) -> str:
    """What a person calls a checkpoint: the run's folder (and those above it), and its step unless that is the last."""
    parts = [part for part in Path(path).parts if part != PRETRAINED_MODEL_DIR]
    step = "last"
    if CHECKPOINTS_DIR in parts[1:]:
        at = len(parts) - 1 - parts[::-1].index(CHECKPOINTS_DIR)
        step = parts[at + 1] if at + 1 < len(parts) else "last"
        parts = parts[:at]
    name = "/".join(parts[-folders:]) or str(path)
    return name if step == "last" else f"{name} {step}"


@torch.inference_mode()
def measure_latency(policy, preprocessor, postprocessor, dataset, row: int) -> list[float]:
    """Seconds from a frame to its chunk, several times after a first one that is not counted."""
    batch = images_to_float(collate([dataset[row]]))
    device = torch.device(policy.config.device)

    def chunk() -> Tensor:
        with mixed_precision(device, policy.config.use_amp):
            return postprocessor(policy.predict_action_chunk(preprocessor(dict(batch)))[:, 0]).cpu()

    chunk()
    seconds = []
    for _ in range(LATENCY_RUNS):
        start = time.perf_counter()
        chunk()
        seconds.append(time.perf_counter() - start)
    return seconds


# --- sentences --------------------------------------------------------------------------------------------------------


def find(card: ReportCard) -> list[Finding]:
    """Every finding on a card."""
    found = [*card.mismatches, _on_error(card), *_on_probes(card), *_on_gripper(card), *_on_motion(card)]
    found.append(_on_latency(card))
    if card.trained_on:
        text = "It was trained on these very episodes, so its errors say little about new ones."
        found.append(Finding("report.trained_on", "warning", text, fix="train with --dataset.eval_split=0.1"))
    return [finding for finding in found if finding]


def _on_error(card: ReportCard) -> Finding | None:
    error, still = card.report.overall, card.report.holding_still
    if still is None:
        return None
    ratio = error / still if still else float("inf")
    numbers = {"error": error, "holding_still": still}
    off = f"Its actions are {error:.3g} off" + (
        f" over a chunk of {card.seconds:.2g} s" if card.report.steps > 1 else ""
    )
    if ratio >= 0.9:
        text = f"{off}, holding still would be {still:.3g} off: it has learned little."
        return Finding("report.error", "error", text, evidence=numbers)
    text = f"{off}, {ratio:.0%} of what an arm that holds still would be ({still:.3g})."
    return Finding("report.error", "warning" if ratio > 0.5 else "info", text, evidence=numbers)


def _on_probes(card: ReportCard) -> list[Finding]:
    if len(card.report.predicted) < 2:
        text = "These episodes give one chunk only: what the policy looks at cannot be told. Name more of them."
        return [Finding("probe.none", "warning", text, fix="--dataset.episodes=[...]")]
    if not card.probes:
        text = "It does the same whatever it sees: its actions are equal for every frame."
        return [Finding("probe.constant", "error", text)]
    return [_on_probe(card, result) for result in card.probes]


def _on_probe(card: ReportCard, result: p.ProbeResult) -> Finding | None:
    numbers = {"change": result.change, "error": result.error}
    used = p.how_used(result.change, result.error, card.report.overall)
    if result.name == p.INSTRUCTION:
        return _on_instruction(card, result, numbers)
    if result.name == p.SHIFTED:
        worse = result.error / card.report.overall - 1
        text = f"A camera nudged by {p.SHIFT:.0%} of the picture makes its error {worse:+.0%}"
        if abs(worse) < 0.005:
            text = f"A camera nudged by {p.SHIFT:.0%} of the picture does not change its error."
            return Finding("probe.shift", "info", text, evidence=numbers)
        if worse < 0.25:
            return Finding("probe.shift", "info", f"{text}: it does not mind.", evidence=numbers)
        return Finding("probe.shift", "warning", f"{text}: mount the cameras firmly.", evidence=numbers)
    if result.name == p.STATE:
        what, code = "its own joint positions", "probe.state"
    elif result.name == p.ALL_BLANK:
        if used == "uses":
            return None
        what, code = "the cameras altogether", "probe.cameras"
    else:
        what, code = f"the {p.camera_name(result.name)} camera", "probe.camera"
    if used == "ignores":
        text = f"Ignores {what}: without, its actions stay the same ({result.change:.1%} change)."
        return Finding(code, "warning", text, evidence=numbers)
    effect = f"its actions change by {result.change:.0%}, its error goes from {card.report.overall:.3g} to"
    text = f"{used.capitalize()} {what}: without, {effect} {result.error:.3g}."
    return Finding(code, "info" if used == "uses" else "warning", text, evidence=numbers)


def _on_instruction(card: ReportCard, result: p.ProbeResult, numbers: dict[str, float]) -> Finding:
    if not card.reads_instruction:
        text = "Reads no instruction: a policy of this type follows what it sees alone."
        return Finding("probe.instruction", "info", text, evidence=numbers)
    change = f"({result.change:.1%} change in its actions with another one)"
    used = p.how_used(result.change, result.error, card.report.overall)
    if used == "uses":
        return Finding("probe.instruction", "info", f"Listens to the instruction {change}.", evidence=numbers)
    if len(card.tasks) < 2:
        reason = ": the dataset has a single sentence, so there was nothing to learn from it."
        return Finding(
            "probe.instruction", "info", f"{used.capitalize()} the instruction {change}{reason}", evidence=numbers
        )
    text = f"{used.capitalize()} the instruction {change}: fine only where the pictures alone say what to do."
    return Finding("probe.instruction", "warning", text, evidence=numbers)


def _on_gripper(card: ReportCard) -> list[Finding]:
    count = len(card.events)
    if not count:
        return []
    missed = [event for event in card.events if event.lag is None]
    late = float(np.mean(card.lags_s)) if card.lags_s else 0.0
    when = "on time" if abs(late) < 1 / card.fps else f"{abs(late):.2f} s {'late' if late > 0 else 'early'} on average"
    found = []
    if missed:
        closings = sum(not event.opens for event in missed)
        which = f"{closings} closings, {len(missed) - closings} openings"
        text = f"Misses {len(missed)} of {count} gripper movements ({which})"
        rest = "" if len(missed) == count else f"; the others are {when}"
        severity = "error" if len(missed) > count / 2 else "warning"
        found.append(Finding("gripper.missed", severity, f"{text}{rest}.", evidence={"missed": len(missed)}))
    else:
        severity = "warning" if abs(late) > 0.3 else "info"
        where = f"at all {count} places" if count > 1 else "where the recording does"
        found.append(Finding("gripper.timing", severity, f"Moves the gripper {where}, {when}."))
    near, far = card.error_at_events
    if near > 1.5 * far:
        text = f"Around gripper movements its error is {near:.3g}, elsewhere {far:.3g}."
        found.append(Finding("gripper.error", "info", text, evidence={"near": near, "elsewhere": far}))
    return found


def _on_motion(card: ReportCard) -> list[Finding]:
    found = []
    jump, recorded = (float(a.mean()) if len(a) else np.nan for a in card.seams)
    if not np.isnan(jump) and card.report.predicted.shape[1] > 1:
        text = f"Between chunks its actions jump by {jump:.3g} on average; the recording moves {recorded:.3g} there"
        hard = jump > 3 * recorded
        advice = ": expect a jerk there (temporal ensembling or a shorter n_action_steps helps)." if hard else "."
        found.append(Finding("motion.seam", "warning" if hard else "info", text + advice))
    rough, smooth = card.roughness
    if rough > 2 * smooth:
        text = f"Its motion trembles: {rough / smooth:.1f} times as rough as the recording."
        found.append(Finding("motion.rough", "warning", text, evidence={"predicted": rough, "recorded": smooth}))
    return found


def _on_latency(card: ReportCard) -> Finding:
    given = card.every / card.fps
    text = f"A chunk takes {1000 * card.latency:.0f} ms on {card.device}; the {card.every} steps used of it last "
    numbers = {"median_s": card.latency, "available_s": given}
    if card.latency > given:
        text += f"only {1000 * given:.0f} ms: too slow for {card.fps:g} FPS on this machine."
        return Finding("latency", "error", text, evidence=numbers)
    return Finding("latency", "info", f"{text}{1000 * given:.0f} ms.", evidence=numbers)
