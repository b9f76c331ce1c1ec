"""What is wrong with a robot before it moves: motors, calibration, supply, cameras, what dataset and policy need."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from lerobot.common.checks.finding import Finding, Where

DAY_S = 86_400
OLD_CALIBRATION_DAYS = 90
HOT_SHARE = 0.95  # of the temperature limit
FULL_SCALE = 101.0  # of -100..100, with room for rounding
SAME_RATE = 0.02  # two rates within this share are the same
SLOWEST_CAMERA = 0.8  # of the rate that is asked for; half a second is measured
# Bits of Drive_Mode that a Koch arm must not have set.
ODD_DRIVE_MODES = {4: "its speed limit would be read as a time", 8: "a goal would switch its torque on"}
FAR_OUTSIDE = 30.0  # joint units beyond the arm's range: no arm of this kind was recorded like that
SUPPLY = {"xl430-w250": (11.0, 13.0), "xl330-m288": (4.5, 5.6), "xl330-m077": (4.5, 5.6)}  # of a Koch arm, volts


def check_motors(arm: str, bus) -> list[Finding]:
    """Missing motors, wrong models, hardware errors and supply of a connected bus; nothing moves."""
    from lerobot.common.robot_devices.motors.control_table import MODEL_NAMES, MODELS

    found, present = [], {name: bus.ping(name) for name in bus.motors}
    missing = [name for name, number in present.items() if number is None]
    if len(missing) == len(present):
        return [_silent_bus(arm, bus)]
    if missing:
        ids = {name: bus.motors[name][0] for name in missing}
        text = f"{arm}: no answer from {ids} (motor: id) on '{bus.port}'."
        fix = "check the cable before the first missing motor; set an id with lerobot/scripts/configure_motor.py"
        found.append(Finding("robot.motor.missing", "error", text, evidence={"missing": ids}, fix=fix))
    for name, number in present.items():
        expected = bus.motors[name][1]
        if number is not None and number != MODELS[expected].number:
            other = MODEL_NAMES.get(number, f"model number {number}")
            text = f"{arm}: motor '{name}' is a {other}, expected {expected}."
            fix = "swap the motors, or name the right arm's port"
            evidence = {"motor": name, "found": number, "expected": MODELS[expected].number}
            found.append(Finding("robot.motor.model", "error", text, evidence=evidence, fix=fix))
    answering = [name for name, number in present.items() if number is not None]
    terse = check_answers(arm, bus, answering)
    if terse:
        return found + terse  # nothing else can be asked of them
    return found + check_drive_modes(arm, bus, answering) + check_health(arm, bus, answering)


def check_answers(arm: str, bus, names: list[str]) -> list[Finding]:
    """Servos that do not answer every instruction (Status_Return_Level), so that no write to them can be trusted."""
    from lerobot.common.robot_devices.motors.control_table import ANSWER_ALL

    levels = {name: level for name in names if (level := bus.answer_level(name)) != ANSWER_ALL}
    if not levels:
        return []
    silent = [name for name, level in levels.items() if level == 0]
    deaf = [name for name, level in levels.items() if level]
    parts = [f"{', '.join(silent)} answer a ping but no read (0)"] if silent else []
    parts += [f"{', '.join(deaf)} acknowledge no write ({levels[deaf[0]]})"] if deaf else []
    text = (
        f"{arm}: Status_Return_Level of {len(levels)} motors on '{bus.port}' is not {ANSWER_ALL}: {'; '.join(parts)}."
    )
    command = f"python lerobot/scripts/configure_motor.py --port={bus.port} --answer_all"
    fix = f"{command}, or switch the arm's power off and on"
    return [Finding("robot.motor.answers", "error", text, evidence={"levels": levels}, fix=fix)]


def check_drive_modes(arm: str, bus, names: list[str]) -> list[Finding]:
    """Servos whose Drive_Mode gives another meaning to what is written to them."""
    found = []
    for name, mode in zip(names, bus.read("Drive_Mode", names).tolist() if names else [], strict=True):
        odd = [meaning for bit, meaning in ODD_DRIVE_MODES.items() if mode & bit]
        if odd:
            text = f"{arm}: motor '{name}' has Drive_Mode {mode}: {'; '.join(odd)}."
            fix = f"with torque off, write {mode & ~sum(ODD_DRIVE_MODES)} to its Drive_Mode (Dynamixel Wizard)"
            found.append(
                Finding("robot.motor.drive_mode", "error", text, evidence={"motor": name, "mode": mode}, fix=fix)
            )
    return found


def _silent_bus(arm: str, bus) -> Finding:
    rate = bus.answering_baud_rate()
    if rate is None:
        text, fix = f"{arm}: no motor answers on '{bus.port}'.", "switch its power supply on and check the first cable"
    else:
        text = f"{arm}: the motors on '{bus.port}' talk at {rate} baud, the bus at {bus.config.baud_rate}."
        fix = f"set each motor to {bus.config.baud_rate} baud with lerobot/scripts/configure_motor.py"
    return Finding("robot.bus.silent", "error", text, evidence={"answering_baud_rate": rate}, fix=fix)


def check_health(arm: str, bus, names: list[str] | None = None) -> list[Finding]:
    """Hardware errors, temperature and supply of the motors of a connected bus."""
    from lerobot.common.robot_devices.motors.control_table import MODELS

    found = []
    for name, health in bus.health(names).items():
        model = bus.motors[name][1]
        evidence = {"motor": name, "volts": health.volts, "celsius": health.celsius, "errors": list(health.errors)}
        if health.errors:
            text = f"{arm}: motor '{name}' reports {', '.join(health.errors)}."
            fix = "switch the arm's power off and on; look for a blocked joint or a loose cable"
            found.append(Finding("robot.motor.error", "error", text, evidence=evidence, fix=fix))
        if health.celsius >= HOT_SHARE * MODELS[model].hottest:
            text = f"{arm}: motor '{name}' is at {health.celsius} C, it switches off at {MODELS[model].hottest} C."
            found.append(Finding("robot.motor.hot", "error", text, evidence=evidence, fix="let it cool down"))
        low, high = SUPPLY[model]
        if not low <= health.volts <= high:
            allowed = MODELS[model].volts
            severity = "warning" if allowed[0] <= health.volts <= allowed[1] else "error"
            text = f"{arm}: motor '{name}' gets {health.volts:.1f} V, expected {low:.1f} to {high:.1f} V."
            fix = "check the power supply and the converter of the arm"
            found.append(Finding("robot.motor.voltage", severity, text, evidence=evidence, fix=fix))
    return found


def check_calibration(arm: str, path: Path, bus) -> list[Finding]:
    """Whether an arm's calibration file exists, is whole and recent."""
    from lerobot.common.robot_devices.motors.calibration import load_calibration

    where, fix = Where(file=str(path)), f"--control.type=calibrate --control.arms='[\"{arm}\"]'"
    if not path.exists():
        text = f"{arm} is not calibrated; this is done by hand at the start."
        return [Finding("robot.calibration.missing", "warning", text, where, fix=fix)]
    try:
        calibration = load_calibration(path, bus.motors)
    except ValueError as e:
        return [Finding("robot.calibration.broken", "error", str(e), where, fix=fix)]
    found = _check_memory(arm, bus, calibration, where, fix) if bus.is_connected else []
    days = (time.time() - path.stat().st_mtime) / DAY_S
    if days > OLD_CALIBRATION_DAYS:
        text = f"{arm} was calibrated {days:.0f} days ago."
        found.append(Finding("robot.calibration.old", "info", text, where, {"days": round(days, 1)}, fix))
    return found


def _check_memory(arm: str, bus, calibration: dict[str, list], where: Where, fix: str) -> list[Finding]:
    """Whether the motors hold the offsets and directions of a newer file; an older one knows nothing of them."""
    from lerobot.common.robot_devices.motors.calibration import DEGREE, LINEAR

    try:
        offsets = dict(zip(bus.motor_names, bus.read("Homing_Offset").tolist(), strict=True))
        reversed_ = dict(zip(bus.motor_names, (bus.read("Drive_Mode") & 1).tolist(), strict=True))
    except ConnectionError:
        return []  # told by the check of the motors
    rows = {name: i for i, name in enumerate(calibration["motor_names"])}
    legacy = {name: calibration["calib_mode"][rows[name]] in (DEGREE, LINEAR) for name in offsets}

    def differing(stored: dict[str, int], key: str) -> dict[str, int]:
        return {n: v for n, v in stored.items() if not legacy[n] and v != calibration[key][rows[n]]}

    found = []
    wrong = {"homing offsets": differing(offsets, "homing_offset"), "directions": differing(reversed_, "drive_mode")}
    for what, motors in wrong.items():
        if motors:
            text = f"{arm}: the motors store other {what} than the calibration file: {motors}."
            remedy = f"write the file to the motors with the program that made it (lerobot-calibrate, Enter), or {fix}"
            if what == "directions":
                remedy = f"set bit 0 of Drive_Mode as the file has drive_mode (Dynamixel Wizard), or {fix}"
            found.append(Finding("robot.calibration.motors", "error", text, where, {"stored": motors}, remedy))
    changed = {
        "shift their positions by {} steps": {name: value for name, value in offsets.items() if legacy[name] and value},
        "count backwards {}": {name: value for name, value in reversed_.items() if legacy[name] and value},
    }
    for how, motors in changed.items():
        if motors:
            text = f"{arm}: motors {how.format(motors)}, as newer releases set them."
            remedy = f"if this was done after the calibration, calibrate again: {fix}"
            found.append(Finding("robot.calibration.shifted", "warning", text, where, {"stored": motors}, remedy))
    return found


def check_camera(name: str, camera) -> list[Finding]:
    """Whether a connected camera delivers pictures, at its rate."""
    try:
        camera.read_latest()
    except OSError as e:
        text, fix = f"camera '{name}': {e}", "python lerobot/scripts/find_cameras.py; close other programs that use it"
        return [Finding("robot.camera.silent", "error", text, Where(feature=name), fix=fix)]
    return []


def check_rate(name: str, rate: float, wanted: float) -> list[Finding]:
    """Whether a camera gives about as many pictures per second as the loop takes."""
    if rate >= SLOWEST_CAMERA * wanted:
        return []
    text = f"camera '{name}' gives {rate:.0f} pictures per second, the loop takes {wanted:.0f}: pictures would repeat."
    fix = "more light (long exposures are slow), a smaller picture, another USB port, fewer programs, or --control.fps"
    return [Finding("robot.camera.slow", "warning", text, Where(feature=name), {"rate": rate}, fix=fix)]


def check_trained_rate(fps: float, trained: float | None) -> list[Finding]:
    """Whether actions are sent as fast as they were recorded; at another rate every motion is faster or slower."""
    if trained is None or abs(fps - trained) < SAME_RATE * trained:
        return []
    text = f"The checkpoint learned motions at {trained:g} fps, the loop runs at {fps:g}: they are {fps / trained:.2g} "
    text += "times as fast."
    fix = f"--control.fps={trained:g}"
    return [Finding("robot.policy.fps", "warning", text, evidence={"trained": trained, "fps": fps}, fix=fix)]


def check_dataset_fits(robot_features: dict, robot_type: str, fps: float, units: str, meta) -> list[Finding]:
    """Whether a recording can be continued with, or replayed on, this robot."""
    found = []
    ours = {key: _comparable(feature) for key, feature in robot_features.items()}
    theirs = {key: _comparable(f) for key, f in meta.features.items() if key in ours or _recorded(key)}
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            text = f"'{key}': the robot gives {_in_words(ours.get(key))}, the dataset has {_in_words(theirs.get(key))}."
            what = "--robot.cameras" if "image" in key else "the arm's motors"
            fix = f"{what} as at the recording, or another --control.repo_id"
            found.append(Finding("robot.dataset.feature", "error", text, Where(feature=key), fix=fix))
    if meta.fps != fps:
        text = f"The dataset has {meta.fps} fps, asked for are {fps}."
        found.append(Finding("robot.dataset.fps", "error", text, fix=f"--control.fps={meta.fps}"))
    if meta.robot_type != robot_type:
        text = f"The dataset was recorded with '{meta.robot_type}', this is '{robot_type}'."
        fix = f"--robot.type={meta.robot_type}, or another --control.repo_id"
        found.append(Finding("robot.dataset.type", "error", text, fix=fix))
    theirs = recorded_units(meta.info.get("units"), meta.features.get("action", {}), meta.stats) or "legacy"
    return found + check_units(units, theirs, "dataset")


def recorded_units(stated: str | None, action: dict, stats: dict[str, Any]) -> str | None:
    """How recorded joint values are to be read: as stated, else by the joints' names; None where nothing tells.

    LeRobot 0.1 names them `main_gripper` (degrees), newer releases `gripper.pos` (-100..100, or degrees with the
    gripper in percent, which the largest recorded value tells).
    """
    if stated:
        return stated
    names = action.get("names") or []
    names = [n for group in names.values() for n in group] if isinstance(names, dict) else names
    if names and all(str(name).endswith(".pos") for name in names):
        ends = [float(abs(value)) for side in ("min", "max") for value in stats.get("action", {}).get(side, [])]
        return "deg_percent" if max(ends, default=0.0) > FULL_SCALE else "normalized"
    arms = ("main_", "left_", "right_")
    return "legacy" if names and all(str(name).startswith(arms) for name in names) else None


def plain_joint(name: str) -> str:
    """A joint's name without what the two generations of datasets add: `main_gripper` and `gripper.pos`."""
    return str(name).removeprefix("main_").removesuffix(".pos")


def check_joints(ours: list[str], action: dict, what: str) -> list[Finding]:
    """Whether recorded actions (their entry in a dataset's features; may be empty) have the robot's joints in order."""
    theirs = action.get("names") or []
    theirs = [name for group in theirs.values() for name in group] if isinstance(theirs, dict) else list(theirs)
    count = action["shape"][0] if action else len(ours)
    mine, recorded = [plain_joint(name) for name in ours], [plain_joint(name) for name in theirs]
    if count != len(mine):
        text = f"The actions of the {what} have {count} joints, the robot {len(mine)}."
    elif len(recorded) != count or set(recorded) != set(mine) or recorded == mine:
        return []  # without names that both know, there is nothing to compare
    else:
        text = f"The {what} orders the joints {', '.join(recorded)}, the robot {', '.join(mine)}."
    fix = "name the motors in the order of the recording (--robot.follower_arms)"
    return [Finding("robot.joints", "error", text, Where(feature="action"), {"robot": mine, what: recorded}, fix)]


def check_actions(actions, low, high) -> list[Finding]:
    """Whether recorded actions (T, A) are numbers that this arm can reach."""
    if not np.isfinite(actions).all():
        where = int(np.argwhere(~np.isfinite(actions))[0, 0])
        text = f"The recorded action of frame {where} is not finite."
        return [Finding("robot.actions.finite", "error", text, Where(frame=where), fix="choose another episode")]
    return _check_ranges({"min": actions.min(axis=0), "max": actions.max(axis=0)}, low, high, "recorded")


def check_units(ours: str, theirs: str, what: str) -> list[Finding]:
    """Whether joint values mean the same on both sides."""
    if ours == theirs:
        return []
    text = f"The arm's joint values are in '{ours}', those of the {what} in '{theirs}'."
    fix = "use the calibration that the data was recorded with (--robot.calibration_dir)"
    return [Finding("robot.units", "error", text, evidence={"robot": ours, what: theirs}, fix=fix)]


def check_policy_fits(config, robot_features: dict, statistics: dict[str, Any], low=None, high=None):
    """Findings on whether a checkpoint's inputs exist on the robot, sizes match, and actions mean this arm's degrees.

    `statistics` {key: {min, max, ...}} of the checkpoint; `low`, `high` the arm's range in its own units; without them
    (an arm that is not calibrated) the meaning of the actions is not checked.
    """
    found = []
    for key, feature in {**config.input_features, **config.output_features}.items():
        have = robot_features.get(key)
        if have is None:
            text = f"The checkpoint needs '{key}'; the robot gives {', '.join(robot_features)}."
            fix = "name the cameras as they were named at the recording (--robot.cameras)"
            found.append(Finding("robot.policy.feature", "error", text, Where(feature=key), fix=fix))
        elif len(feature.shape) == 1 and tuple(feature.shape) != tuple(have["shape"]):
            text = f"'{key}' has {feature.shape[0]} values in the checkpoint, {have['shape'][0]} on the robot."
            found.append(Finding("robot.policy.shape", "error", text, Where(feature=key)))
        elif len(feature.shape) == 3 and tuple(feature.shape[1:]) != tuple(have["shape"][:2]):
            text = (
                f"'{key}' was {tuple(feature.shape[1:])} (height, width) in training, here {tuple(have['shape'][:2])}."
            )
            fix = "set the camera's width and height to those of the recording"
            found.append(Finding("robot.policy.picture_size", "warning", text, Where(feature=key), fix=fix))
    for key in ("action", "observation.state"):
        bad = [name for name, value in statistics.get(key, {}).items() if not np.isfinite(value).all()]
        if bad:
            text = f"The checkpoint's statistics of '{key}' are not finite ({', '.join(bad)})."
            found.append(Finding("robot.policy.statistics", "error", text, Where(feature=key), fix="train it again"))
    return found if low is None else found + _check_ranges(statistics.get("action", {}), low, high, "checkpoint's")


def _check_ranges(action: dict[str, Any], low, high, whose: str) -> list[Finding]:
    """Actions whose smallest and largest values leave the arm's range by far."""
    if "min" not in action or "max" not in action:
        return []
    least, most = [float(v) for v in action["min"]], [float(v) for v in action["max"]]
    if len(least) != len(low):
        return []
    evidence = {"actions": [least, most], "arm": [list(map(float, low)), list(map(float, high))]}
    outside = [i for i in range(len(low)) if least[i] < low[i] - FAR_OUTSIDE or most[i] > high[i] + FAR_OUTSIDE]
    if outside:
        text = f"The {whose} actions leave the arm's range at the joints {outside}: other units or another arm."
        fix = "use the calibration of the recording; a newer recording (-100..100) needs its own calibration file"
        return [Finding("robot.policy.units", "error", text, evidence=evidence, fix=fix)]
    return []


def check_task(task: str, known: list[str]) -> list[Finding]:
    """Whether the sentence given is one that the policy was trained with."""
    if not known or task in known:
        return []
    text = f"The task '{task}' is not among those of the training: {'; '.join(task.rstrip('.') for task in known[:5])}."
    return [Finding("robot.task", "warning", text, fix="--control.single_task=... as it was recorded")]


def _comparable(feature: dict) -> dict:
    dtype = "picture" if len(feature["shape"]) == 3 else feature["dtype"]
    return {"dtype": dtype, "shape": tuple(feature["shape"]), "names": feature["names"]}


def _in_words(feature: dict | None) -> str:
    if feature is None:
        return "nothing"
    if feature["dtype"] == "picture":
        height, width, channels = feature["shape"]
        return f"pictures of {width}x{height} with {channels} channels"
    names = feature["names"]
    joints = ", ".join(map(str, names)) if isinstance(names, list) else names
    return f"{feature['dtype']} {feature['shape']} ({joints})"


def _recorded(key: str) -> bool:
    return key == "action" or key.startswith("observation.")
