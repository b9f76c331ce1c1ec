"""One table before anything moves: what is there, and everything that is wrong at once, each with its fix."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lerobot.common.checks import camera_ghost as ghost
from lerobot.common.checks.finding import Finding, by_severity
from lerobot.common.checks.robot import (
    DAY_S,
    check_actions,
    check_camera,
    check_dataset_fits,
    check_joints,
    check_policy_fits,
    check_rate,
    check_task,
    check_trained_rate,
    check_units,
    recorded_units,
)
from lerobot.common.robot_devices.robots.arm_setup import mechanical_range

MEASURE_S = 0.5  # how long the cameras' rate is measured
MARKS = {"error": "NO", "warning": "! ", "info": "ok"}


@dataclass
class Plan:
    """What the run needs, as far as it applies."""

    fps: float | None = None
    dataset_meta: Any = None  # of a dataset that is continued or replayed
    policy_config: Any = None
    statistics: dict[str, Any] = field(default_factory=dict)  # of the checkpoint
    policy_units: str | None = None
    policy_actions: dict[str, Any] = field(default_factory=dict)  # the feature `action` that it was trained on
    trained_fps: float | None = None  # at which its actions were recorded
    replayed: Any = None  # recorded actions float (T, A), and
    replayed_meta: Any = None  # what their dataset says about them
    known_tasks: list[str] = field(default_factory=list)
    task: str | None = None
    overlay_dir: Path | None = None


def preflight(robot, plan: Plan) -> tuple[list[tuple[str, str]], list[Finding]]:
    """Rows (what, how it is) and findings about an open robot; nothing moves, torque is not touched."""
    findings = robot.check()
    _read_calibrations(robot)
    rows = [(name, _arm(robot, name, bus)) for name, bus in robot.buses.items()]
    for name, camera in robot.cameras.items():
        if camera.is_connected:
            findings += check_camera(name, camera)
        text, rate = _camera(robot, camera)
        rows.append((f"camera {name}", text))
        findings += check_rate(name, rate, plan.fps or camera.fps) if rate and camera.fps else []
    rows.append(("units", robot.units))
    if plan.task is not None:
        task = sentence(robot, plan.task)
        rows.append(("task", task))
        findings += check_task(task, plan.known_tasks)
    if plan.dataset_meta is not None:
        meta = plan.dataset_meta
        rows.append(("dataset", f"{meta.total_episodes} episodes, {meta.fps} fps, {', '.join(robot.features)}"))
        fps = plan.fps or meta.fps
        findings += check_dataset_fits(robot.features, robot.robot_type, fps, robot.units, meta)
    if plan.policy_config is not None:
        findings += _policy(robot, plan, rows)
    if plan.replayed is not None:
        findings += _replay(robot, plan, rows)
    return rows, findings + _envelope(robot, rows)


def sentence(robot, task: str) -> str:
    """What an episode is to be labelled with: `scene` stands for the sentence of the simulated arm's layout."""
    return robot.task if task == "scene" and hasattr(robot, "reset_scene") else task


def _envelope(robot, rows: list[tuple[str, str]]) -> list[Finding]:
    """The limits that the run will keep to; a dataset that they cannot be learned from is a finding."""
    config = robot.envelope_config
    source = f"learned from {config.dataset_root}" if config.dataset_root else "the arm's own limits"
    rows.append(("safety", source if robot.safety else "OFF: only targets that are no numbers are refused"))
    found = []
    for name, bus in robot.follower_arms.items():
        if bus.calibration is not None and robot.safety:
            try:
                robot.learn_limits(name, bus)
            except (ValueError, OSError) as e:
                fix = "another --envelope.dataset_root, or none"
                found.append(Finding("robot.envelope", "error", f"{name}_follower: {e}", fix=fix))
    return found


def _range(robot) -> tuple[np.ndarray, np.ndarray] | None:
    """Lowest and highest value of every joint of the followers, (A,) each; None while one is not calibrated."""
    bounds = [mechanical_range(bus) for bus in robot.follower_arms.values() if bus.calibration is not None]
    if len(bounds) < len(robot.follower_arms):
        return None
    return tuple(np.concatenate([pair[i] for pair in bounds]) for i in (0, 1))


def _replay(robot, plan: Plan, rows: list[tuple[str, str]]) -> list[Finding]:
    meta = plan.replayed_meta
    rows.append(("replay", f"{len(plan.replayed)} frames at {plan.fps} fps of {meta.root}"))
    action = meta.features["action"]
    units = recorded_units(meta.info.get("units"), action, meta.stats) or "legacy"
    findings = check_units(robot.units, units, "dataset")
    findings += check_joints(robot.motor_features["action"]["names"], action, "dataset")
    bounds = _range(robot)
    return findings + (check_actions(plan.replayed, *bounds) if bounds and not findings else [])


def _policy(robot, plan: Plan, rows: list[tuple[str, str]]) -> list[Finding]:
    config = plan.policy_config
    needs = ", ".join([*config.input_features, *config.output_features])
    rows.append(("policy", f"{config.type} {config.pretrained_path}: {needs}"))
    findings = check_policy_fits(config, robot.features, plan.statistics, *(_range(robot) or ()))
    if plan.policy_units is not None:
        findings += check_units(robot.units, plan.policy_units, "checkpoint")
    findings += check_joints(robot.motor_features["action"]["names"], plan.policy_actions, "checkpoint's training")
    if plan.fps is not None:
        findings += check_trained_rate(plan.fps, plan.trained_fps)
    references = ghost.load_references(config.pretrained_path) if config.pretrained_path else {}
    live = {name: c.read_latest() for name, c in robot.cameras.items() if c.is_connected and c.age_ms < 1e9}
    findings += ghost.check_cameras(live, references)
    if plan.overlay_dir is not None and references:
        paths = ghost.save_overlays(live, references, plan.overlay_dir)
        rows += [("ghost", ", ".join(map(str, paths)))] if paths else []
    return findings


def _read_calibrations(robot) -> None:
    for name, bus in robot.buses.items():
        if bus.calibration is None:
            with contextlib.suppress(FileNotFoundError, ValueError):  # told by the check of the file
                bus.set_calibration(robot.read_calibration(name, bus))


def _arm(robot, name: str, bus) -> str:
    if not bus.is_connected:
        return f"{bus.port}: not open"
    parts = [bus.port]
    try:
        health = bus.health().values()
        volts = [h.volts for h in health]
        parts.append(
            f"{len(bus.motors)} motors, {min(volts):.1f}-{max(volts):.1f} V, {max(h.celsius for h in health)} C"
        )
    except ConnectionError:
        parts.append("not all motors answer")
    path = robot._calibration_path(name)
    if path.exists():
        parts.append(f"calibrated {(time.time() - path.stat().st_mtime) / DAY_S:.0f} days ago")
    else:
        parts.append("not calibrated")
    return ", ".join(parts)


def _camera(robot, camera) -> tuple[str, float | None]:
    """The row of a camera, and its measured rate if it gives pictures by itself."""
    if not camera.is_connected:
        return "not open", None
    size = f"{camera.width}x{camera.height}"
    if robot.clock.lockstep:
        return f"{size}, a picture per frame", None
    before, start = camera.frames, time.monotonic()
    time.sleep(MEASURE_S)
    rate = (camera.frames - before) / (time.monotonic() - start)
    return f"{size}, {rate:.0f} of {camera.fps} fps", rate


def format_table(rows: list[tuple[str, str]], findings: list[Finding]) -> str:
    """The table and, below it, every finding with its fix."""
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {text}" for name, text in rows]
    for finding in by_severity(findings):
        lines.append(f"  {MARKS[finding.severity]} {finding.message}")
        if finding.fix:
            lines.append(f"     -> {finding.fix}")
    errors = sum(finding.severity == "error" for finding in findings)
    lines.append(f"  {count_problems(errors)}: nothing was moved." if errors else "  ready")
    return "\n".join(["Preflight", *lines])


def count_problems(count: int) -> str:
    """`1 problem`, `2 problems`."""
    return f"{count} problem{'s' if count != 1 else ''}"
