"""The commands of `control_robot.py`, each from an open robot to a landed arm."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lerobot.common.checks.robot import recorded_units
from lerobot.common.constants import HF_LEROBOT_HOME, SAFETENSORS_SINGLE_FILE
from lerobot.common.robot_devices.control_configs import (
    CalibrateControlConfig,
    RecordControlConfig,
    ReplayControlConfig,
    TeleoperateControlConfig,
)
from lerobot.common.robot_devices.control_utils import (
    PolicyRunner,
    control_loop,
    init_keyboard_listener,
    log_say,
    sanity_check_dataset_name,
)
from lerobot.common.robot_devices.episodes import Recording
from lerobot.common.robot_devices.keyboard import HINT
from lerobot.common.robot_devices.pace import Pace
from lerobot.common.robot_devices.preflight import Plan, count_problems, format_table, preflight, sentence
from lerobot.common.robot_devices.robots.dynamixel_calibration import run_arm_calibration
from lerobot.common.robot_devices.viewer import open_viewer
from lerobot.common.training.record import read_record

DEFAULT_FPS = 30
HASHED_AT_ONCE = 1 << 20  # bytes
ALIGN_SPEED = 45.0  # joint units per second on the way to a replay's first frame
GLIDE_PEAK = 1.5  # fastest over mean speed of a glide


def calibrate(robot, cfg: CalibrateControlConfig) -> None:
    """Calibrate arms by hand; an old file stays until the new one is complete. ValueError for unknown arms."""
    arms = robot.available_arms if cfg.arms is None else cfg.arms
    unknown = [arm for arm in arms if arm not in robot.available_arms]
    if unknown or not arms:
        raise ValueError(f"--control.arms={arms}: expected some of {', '.join(robot.available_arms)}.")
    findings = [
        f for f in robot.open() if f.severity == "error" and f.code.startswith(tuple(f"robot.{a}." for a in arms))
    ]
    if findings:
        raise ConnectionError(" ".join(finding.message for finding in findings))
    for arm in arms:
        bus = robot.buses[arm]
        bus.set_torque(False)
        bus.set_calibration(None)
        name, kind = arm.rsplit("_", 1)
        ask = (lambda prompt, arm=arm: robot.hand(arm, prompt)) if hasattr(robot, "hand") else input
        robot.keep_calibration(arm, run_arm_calibration(bus, robot.robot_type, name, kind, ask))


def prepare(robot, plan: Plan) -> None:
    """Open the robot, show the preflight table, and energise it; ValueError (nothing moved) if anything is wrong."""
    robot.open()
    rows, findings = preflight(robot, plan)
    print(format_table(rows, findings), flush=True)
    errors = sum(finding.severity == "error" for finding in findings)
    if errors:
        raise ValueError(f"{count_problems(errors)} in the table above; torque was not switched on.")
    robot.energise()


def _require_leaders(robot) -> None:
    """ValueError where a follower has nobody to follow."""
    alone = [name for name in robot.follower_arms if name not in robot.leader_arms]
    if alone or not robot.follower_arms:
        raise ValueError(
            f"Nobody moves the arms {alone}: every follower needs a leader of the same name (--robot.leader_arms), or "
            "record with a policy (--control.policy.path=CHECKPOINT)."
            if alone
            else "There is no follower arm to be moved (--robot.follower_arms)."
        )


def teleoperate(robot, cfg: TeleoperateControlConfig, each_tick: Callable[[], None] = lambda: None) -> None:
    """Let the follower follow until the time is over or Ctrl-C."""
    _require_leaders(robot)
    viewer = open_viewer("teleop", cfg)
    prepare(robot, Plan(fps=cfg.fps))
    if hasattr(robot, "reset_scene"):
        robot.reset_scene(robot.seed)
    if cfg.teleop_time_s is None:
        logging.info("The follower follows until Ctrl-C.")
    words = {"display_data": viewer or False, "fps": cfg.fps, "stop_when": each_tick}
    control_loop(robot, cfg.teleop_time_s, teleoperate=True, **words)


# --- record -------------------------------------------------------------------------------------------------------


def record(robot, cfg: RecordControlConfig):
    """Record episodes and return the dataset; what was saved stays, whatever ends the run."""
    sanity_check_dataset_name(cfg.repo_id, cfg.policy)
    if cfg.policy is None:
        _require_leaders(robot)
    viewer = open_viewer("record", cfg)
    dataset = _existing_dataset(cfg)
    policy = _load_policy(cfg, robot.robot_type)
    fps = cfg.fps or (dataset.fps if dataset else _trained_on(cfg).get("fps") or DEFAULT_FPS)
    prepare(robot, _plan(cfg, dataset, policy, fps))
    if dataset is not None and cfg.policy is not None:
        _warn_of_another_policy(dataset.meta.info, cfg.policy)
    dataset = dataset or _new_dataset(robot, cfg, fps)
    policy = _with_player(policy, cfg, fps, robot)
    listener, events = init_keyboard_listener()
    if listener is not None:
        logging.info("%s", HINT)
    recording = Recording(robot, cfg, dataset, policy, fps, events, listener is not None, viewer)
    try:
        recording.run()
    finally:
        if recording.outcomes:
            print(f"{sum(recording.outcomes)} of {len(recording.outcomes)} episodes succeeded.", flush=True)
        if dataset.has_pending_frames():
            dataset.clear_episode_buffer()
        dataset.stop_image_writer()
        if policy is not None:
            policy.close()
        if listener is not None:
            listener.stop()
    log_say("Stop recording", cfg.play_sounds, blocking=True)
    robot.disconnect()
    if cfg.push_to_hub:
        _push(dataset, cfg)
    log_say("Exiting", cfg.play_sounds)
    return dataset


def rollout(robot, cfg: RecordControlConfig) -> None:
    """Let a policy move the arm for `episode_time_s`, or until a simulated one has succeeded; nothing is recorded."""
    viewer = open_viewer("record", cfg)
    policy = _load_policy(cfg, robot.robot_type)
    fps = cfg.fps or _trained_on(cfg).get("fps") or DEFAULT_FPS
    prepare(robot, _plan(cfg, None, policy, fps))
    policy = _with_player(policy, cfg, fps, robot)
    simulated = hasattr(robot, "reset_scene")
    if simulated:
        robot.reset_scene(robot.seed)
    pace, words = Pace(fps), {"fps": fps, "single_task": sentence(robot, cfg.single_task)}
    policy.reset()
    try:
        stop_when = (lambda: robot.success) if simulated else None
        words |= {"display_data": viewer or False, "policy": policy, "pace": pace, "stop_when": stop_when}
        control_loop(robot, cfg.episode_time_s, **words)
    finally:
        policy.close()
    if simulated:
        print(f"Outcome: {'success' if robot.success else 'no success'} (seed {robot.seed})", flush=True)
    rates = ", ".join(f"{name} {value}" for name, value in pace.summary().items())
    print("\n".join([f"Rollout: {rates}.", *policy.lines()]), flush=True)


def _existing_dataset(cfg: RecordControlConfig):
    root = Path(cfg.root) if cfg.root else HF_LEROBOT_HOME / cfg.repo_id
    if not cfg.resume:
        if root.exists():
            raise FileExistsError(
                f"'{root}' exists: add --control.resume=true to continue it, or choose another folder."
            )
        return None
    from lerobot.common.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset(cfg.repo_id, root=cfg.root)


def _new_dataset(robot, cfg: RecordControlConfig, fps: float):
    from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
    from lerobot.common.datasets.utils import write_info

    dtype = "video" if cfg.video else "image"
    features = {**robot.motor_features, **{k: {**f, "dtype": dtype} for k, f in robot.camera_features.items()}}
    dataset = LeRobotDataset.create(
        cfg.repo_id,
        fps,
        root=cfg.root,
        robot_type=robot.robot_type,
        features={key: {k: v for k, v in f.items() if k != "info"} for key, f in features.items()},
        use_videos=cfg.video,
        image_writer_processes=0 if cfg.video else cfg.num_image_writer_processes,
        image_writer_threads=0 if cfg.video else cfg.num_image_writer_threads_per_camera * max(1, robot.num_cameras),
    )
    dataset.meta.info["units"] = robot.units
    if hasattr(robot, "dataset_info"):
        dataset.meta.info |= robot.dataset_info
    if cfg.policy is not None:
        dataset.meta.info["policy"] = _identity(cfg.policy)
    write_info(dataset.meta.info, dataset.root)
    return dataset


def _identity(config) -> dict[str, str]:
    """Which checkpoint recorded a dataset: its type, where it lay, and the SHA-256 of its weights."""
    found = {"type": config.type, "path": str(config.pretrained_path)}
    weights = Path(config.pretrained_path) / SAFETENSORS_SINGLE_FILE
    if weights.is_file():
        digest = hashlib.sha256()
        with weights.open("rb") as file:
            while block := file.read(HASHED_AT_ONCE):
                digest.update(block)
        found["sha256"] = digest.hexdigest()
    return found


def _warn_of_another_policy(info: dict, config) -> None:
    """A dataset that is continued says in `info.json` which checkpoint began it."""
    begun, now = info.get("policy", {}), _identity(config)
    if begun.get("sha256", now.get("sha256")) != now.get("sha256"):
        logging.warning(
            "This dataset was begun with another checkpoint (%s): its episodes do not compare. "
            "Record into another --control.repo_id.",
            begun["path"],
        )


def _push(dataset, cfg: RecordControlConfig) -> None:
    from huggingface_hub import get_token

    if get_token() is None:
        logging.info("Not uploaded: not logged in to the hub (huggingface-cli login; --control.push_to_hub=false).")
        return
    if dataset.meta.total_episodes == 0:
        return
    try:
        dataset.push_to_hub(tags=cfg.tags, private=cfg.private)
    except (OSError, ValueError) as e:
        logging.error("The dataset is complete in '%s' but was not uploaded: %s", dataset.root, e)


# --- policies -----------------------------------------------------------------------------------------------------


def _load_policy(cfg: RecordControlConfig, robot_type: str) -> PolicyRunner | None:
    if cfg.policy is None:
        return None
    from lerobot.common.player.planners import prepare_player
    from lerobot.common.policies.common.fast_inference import use_inference_mode
    from lerobot.common.policies.factory import get_policy_class, make_pre_post_processors

    path = cfg.policy.pretrained_path
    if not path:
        raise ValueError("A policy without training does not move an arm: --control.policy.path=CHECKPOINT.")
    policy = get_policy_class(cfg.policy.type).from_pretrained(path, config=cfg.policy)
    if cfg.player != "sync":
        prepare_player(cfg.player, policy, "--control.player", "--control.player=sync")
    use_inference_mode(policy)
    preprocessor, postprocessor = make_pre_post_processors(cfg.policy, path)
    return PolicyRunner(policy, preprocessor, postprocessor, robot_type)


def _with_player(policy: PolicyRunner | None, cfg: RecordControlConfig, fps: float, robot) -> PolicyRunner | None:
    """Chunks go through the player; a policy that reads the observation of every tick does without."""
    from lerobot.common.player.planners import plays_chunks
    from lerobot.common.robot_devices.playing import PlayedRunner

    if policy is None or not plays_chunks(policy.policy):
        return policy
    return PlayedRunner(policy, cfg.player, fps, robot, cfg.fade)


def _plan(cfg: RecordControlConfig, dataset, policy: PolicyRunner | None, fps: float) -> Plan:
    plan = Plan(fps=fps, dataset_meta=dataset.meta if dataset else None, task=cfg.single_task)
    if policy is not None:
        plan.policy_config = policy.policy.config
        plan.statistics = _statistics(policy.postprocessor)
        trained_on = _trained_on(cfg)
        action = trained_on.get("features", {}).get("action", {})
        plan.policy_units = recorded_units(trained_on.get("units"), action, trained_on.get("stats", {}))
        plan.policy_actions = action
        plan.known_tasks, plan.trained_fps = trained_on.get("tasks", []), trained_on.get("fps")
        plan.overlay_dir = Path("outputs/ghost") / cfg.repo_id.split("/")[1]
    return plan


def _trained_on(cfg: RecordControlConfig) -> dict:
    """What a checkpoint keeps about the dataset of its training; empty without a policy, or where it keeps nothing."""
    record = None if cfg.policy is None else read_record(cfg.policy.pretrained_path)
    return (record or {}).get("dataset", {})


def _statistics(postprocessor) -> dict:
    """Statistics of the step that turns a policy's numbers into joint values."""
    for step in postprocessor.steps:
        if getattr(step, "stats", None):
            return {key: {k: np.asarray(v) for k, v in value.items()} for key, value in step.stats.items()}
    return {}


# --- replay -------------------------------------------------------------------------------------------------------


def replay(robot, cfg: ReplayControlConfig) -> None:
    """Glide to the first recorded action, then send the episode's actions at its rate."""
    from lerobot.common.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata

    meta = LeRobotDatasetMetadata(cfg.repo_id, root=cfg.root)
    if not 0 <= cfg.episode < meta.total_episodes:
        raise ValueError(f"--control.episode={cfg.episode}: '{meta.root}' has 0 to {meta.total_episodes - 1}.")
    dataset = LeRobotDataset(cfg.repo_id, root=cfg.root, episodes=[cfg.episode], download_videos=False, meta=meta)
    actions = dataset.table["action"]
    fps = cfg.fps or dataset.fps
    if robot.cameras:
        robot.cameras = {}  # nothing is looked at
    prepare(robot, Plan(fps=fps, replayed=actions.numpy(), replayed_meta=dataset.meta))
    if hasattr(robot, "reset_scene"):
        seed = _first_seed(dataset.meta.info)
        robot.reset_scene(robot.seed if seed is None else seed + cfg.episode)
    _glide_to(robot, actions[0].numpy())
    robot.set_rate(fps)
    log_say("Replaying episode", cfg.play_sounds, blocking=True)
    pace = Pace(fps)
    with watching(robot):
        for action in actions:
            start = robot.clock.now()
            robot.send_action(action)
            pace.tick(start, robot.clock.now() - start)
            robot.clock.wait(1 / fps - (robot.clock.now() - start))
    logging.info("Replayed %d frames: %s", len(actions), pace.summary())


def _first_seed(info: dict) -> int | None:
    """The layout of a simulated recording's first episode; `record_twin.py` and older ones have it under `sim`."""
    settings = info.get("simulation", info.get("sim"))
    return settings.get("seed", settings.get("seed0")) if isinstance(settings, dict) else None


def _glide_to(robot, target: np.ndarray) -> None:
    """Move the followers slowly to recorded joint values (A,), within the envelope's range and speed."""
    first, targets, seconds = 0, {}, 0.0
    for name, bus in robot.follower_arms.items():
        limits, start = robot.envelopes[name].limits, robot.envelopes[name].commanded
        # Where the arm lies, it may lie outside of the range already.
        low, high = np.minimum(limits.low, start), np.maximum(limits.high, start)
        targets[name] = np.clip(target[first : first + len(bus.motors)], low, high)
        speed = np.minimum(limits.speed, ALIGN_SPEED)
        seconds = max(seconds, float((GLIDE_PEAK * np.abs(targets[name] - start) / speed).max()))
        first += len(bus.motors)
    robot.glide(targets, seconds)


@contextmanager
def watching(robot):
    """While a motion lasts, servos and supervisor notice when goals stop coming."""
    robot.watch(True)
    try:
        yield
    finally:
        if robot.is_connected:
            robot.watch(False)
