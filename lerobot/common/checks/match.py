"""Do dataset, checkpoint and robot belong together? Names, order, shapes, rates, units, statistics, tasks."""

from __future__ import annotations

import json

import numpy as np

from lerobot.common.checks.facts import Facts
from lerobot.common.checks.finding import Finding, Where
from lerobot.common.constants import ACTION, OBS_STATE

TURN = 180 / np.pi  # degrees in a radian
FAR_MEAN, FAR_SCALE = 4.0, 4.0  # standard deviations, and ratio of them, beyond which two recordings differ in kind
UPSIDE = 0.05  # relative difference of two aspect ratios that is worth a word


def check_match(one: Facts, other: Facts, rename_map: dict[str, str] | None = None, needs_tasks: bool = False):
    """Findings on two sides that are to work together; `one` is renamed by `rename_map` first."""
    renamed = {(rename_map or {}).get(k, k): shape for k, shape in one.cameras.items()}
    return [
        *_cameras(one, other, renamed),
        *_sizes(one, other),
        *_joints(one, other),
        *_rate(one, other),
        *_units(one, other),
        *_statistics(one, other),
        *(_tasks(one, other) if needs_tasks else []),
    ]


def _cameras(one: Facts, other: Facts, renamed: dict) -> list[Finding]:
    wanted = {k: s for k, s in other.cameras.items() if "empty_camera" not in k}
    if not renamed and not wanted:
        return []
    missing, extra = [k for k in wanted if k not in renamed], [k for k in renamed if k not in wanted]
    if missing:
        map_ = dict(zip(extra, missing, strict=False))
        return [
            Finding(
                "match.cameras",
                "error",
                f"{one.label} has the cameras {_names(renamed)}, {other.label} has {_names(wanted)}.",
                Where(feature=missing[0]),
                {"missing": missing, "unused": extra},
                fix=f"--rename_map='{json.dumps(map_)}'" if map_ else "record with these cameras",
            )
        ]
    findings = [_aspect(one, other, key, renamed[key], wanted[key]) for key in wanted]
    order = [k for k in renamed if k in wanted]
    if order != list(wanted):
        message = f"{one.label} orders its cameras {_names(order)}, {other.label} {_names(wanted)}: order is by name."
        findings.append(Finding("match.camera_order", "info", message, evidence={"order": order}))
    return [f for f in findings if f]


def _aspect(one: Facts, other: Facts, key: str, mine: tuple, theirs: tuple) -> Finding | None:
    if mine[0] != theirs[0]:
        message = f"{key} has {mine[0]} channels in {one.label} and {theirs[0]} in {other.label}."
        return Finding("match.channels", "error", message, Where(feature=key), fix="record colour pictures")
    ratios = [shape[2] / shape[1] for shape in (mine, theirs)]
    if abs(ratios[0] / ratios[1] - 1) < UPSIDE:
        return None
    message = f"{key} is {mine[2]}x{mine[1]} in {one.label} and {theirs[2]}x{theirs[1]} in {other.label}: stretched."
    return Finding(
        "match.aspect",
        "warning",
        message,
        Where(feature=key),
        {"one": list(mine), "other": list(theirs)},
        fix=f"set the camera to {theirs[2]}x{theirs[1]}",
    )


def _sizes(one: Facts, other: Facts) -> list[Finding]:
    findings = []
    for key in (OBS_STATE, ACTION):
        mine, theirs = one.sizes.get(key), other.sizes.get(key)
        if mine is None and theirs is not None:
            message = f"{one.label} has no {key}, which {other.label} has with {theirs} values."
            findings.append(Finding("match.missing", "error", message, Where(feature=key), fix="record this feature"))
        elif None not in (mine, theirs) and mine != theirs:
            message = f"{key} has {mine} values in {one.label} and {theirs} in {other.label}."
            evidence = {"one": mine, "other": theirs}
            fix = "train on this dataset from the start: --policy.type instead of --policy.path"
            findings.append(Finding("match.size", "error", message, Where(feature=key), evidence, fix=fix))
    return findings


def _joints(one: Facts, other: Facts) -> list[Finding]:
    mine, theirs = one.joints, other.joints
    if not mine or not theirs or mine == theirs or len(mine) != len(theirs):
        return []
    evidence = {"one": mine, "other": theirs}
    if sorted(mine) == sorted(theirs):
        message = f"{one.label} orders the joints {', '.join(mine)}, {other.label} {', '.join(theirs)}."
        fix = "put the motors into the same order in the robot's configuration, or record again"
        return [Finding("match.joint_order", "error", message, Where(feature=ACTION), evidence, fix=fix)]
    different = [f"{a} / {b}" for a, b in zip(mine, theirs, strict=True) if a != b]
    message = f"Joints are named differently in {one.label} and {other.label}: {', '.join(different[:4])}."
    fix = "make sure that they mean the same joints; values are matched by place, not by name"
    return [Finding("match.joint_names", "warning", message, Where(feature=ACTION), evidence, fix=fix)]


def _rate(one: Facts, other: Facts) -> list[Finding]:
    if not one.fps or not other.fps or one.fps == other.fps:
        return []
    message = f"{one.label} runs at {one.fps:g} FPS, {other.label} at {other.fps:g}: a chunk lasts another time."
    evidence = {"one": one.fps, "other": other.fps}
    return [Finding("match.fps", "error", message, evidence=evidence, fix=f"--fps={other.fps:g}")]


def _units(one: Facts, other: Facts) -> list[Finding]:
    if one.units and other.units and one.units != other.units:
        message = f"{one.label} is in {one.units}, {other.label} in {other.units}."
        return [
            Finding("match.units", "error", message, evidence={"one": one.units, "other": other.units}, fix="convert")
        ]
    for key in (ACTION, OBS_STATE):
        stds = [side.stats.get(key, {}).get("std") for side in (one, other)]
        if any(s is None or not np.all(s > 0) for s in stds) or stds[0].shape != stds[1].shape:
            continue
        ratio = float(np.median(stds[0] / stds[1]))
        if min(abs(np.log(ratio / TURN)), abs(np.log(ratio * TURN))) < np.log(2):
            names = ("degrees", "radians") if ratio > 1 else ("radians", "degrees")
            message = (
                f"{key} spreads {ratio:.3g} times as far in {one.label} as in {other.label}: {' against '.join(names)}?"
            )
            evidence = {"ratio_of_std": ratio}
            fix = f"convert {one.label} to {names[1]}"
            return [Finding("match.units", "error", message, Where(feature=key), evidence, fix=fix)]
    return []


def _statistics(one: Facts, other: Facts) -> list[Finding]:
    if _units(one, other):
        return []
    findings = []
    for key in (OBS_STATE, ACTION):
        mine, theirs = one.stats.get(key, {}), other.stats.get(key, {})
        if any(n not in side for side in (mine, theirs) for n in ("mean", "std")):
            continue
        if mine["mean"].shape != theirs["mean"].shape:
            continue
        scale = np.maximum(theirs["std"], 1e-6)
        distance, ratio = np.abs(mine["mean"] - theirs["mean"]) / scale, np.maximum(mine["std"], 1e-6) / scale
        far = np.flatnonzero((distance > FAR_MEAN) | (ratio > FAR_SCALE))
        if len(far):
            joint = one.joints[far[0]] if len(one.joints) > far[0] else f"component {far[0]}"
            message = (
                f"{key} of {joint} in {one.label} is {distance[far[0]]:.1f} standard deviations from where "
                f"{other.label} was trained, and spreads {ratio[far[0]]:.1f} times as far ({len(far)} joints in all)."
            )
            evidence = {"joints": far.tolist(), "distance": distance.tolist(), "ratio": ratio.tolist()}
            fix = "fine-tune on it (its own statistics are then used), or check calibration and joint signs"
            findings.append(Finding("match.statistics", "warning", message, Where(feature=key), evidence, fix=fix))
    return findings


def _tasks(one: Facts, other: Facts) -> list[Finding]:
    if not one.tasks or not other.tasks:
        return []
    unseen = [task for task in one.tasks if task not in other.tasks]
    if not unseen:
        return []
    message = f"{other.label} was not trained on {len(unseen)} of the tasks of {one.label}: {unseen[0]!r}."
    evidence = {"unseen": unseen, "known": other.tasks}
    fix = "use a sentence it was trained on, or fine-tune on this dataset"
    return [Finding("match.tasks", "warning", message, evidence=evidence, fix=fix)]


def _names(names) -> str:
    return ", ".join(str(name).rpartition(".")[2] for name in names) or "none"
