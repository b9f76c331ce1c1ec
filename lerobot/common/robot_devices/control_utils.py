"""The loops of `control_robot.py`: teleoperation, recording and policy runs, all through one tick."""

from __future__ import annotations

import logging
import signal
import time
from contextlib import contextmanager, nullcontext

import cv2
import numpy as np
import torch

from lerobot.common.player.latency import LatencyBudget
from lerobot.common.robot_devices.cameras.base import StaleFrameError
from lerobot.common.robot_devices.keyboard import has_desktop, init_keyboard_listener, is_headless, new_events
from lerobot.common.robot_devices.pace import LiveLine, Pace, log_control_info
from lerobot.common.robot_devices.speech import log_say, say
from lerobot.common.robot_devices.utils import busy_wait
from lerobot.common.robot_devices.viewer import Viewer
from lerobot.common.utils.device import mixed_precision

__all__ = [
    "busy_wait",
    "control_loop",
    "init_keyboard_listener",
    "is_headless",
    "log_control_info",
    "log_say",
    "new_events",
    "predict_action",
    "record_episode",
    "reset_environment",
    "sanity_check_dataset_name",
    "sanity_check_dataset_robot_compatibility",
    "say",
    "warmup_record",
]

LOCKSTEP_FPS = 30
SHORTEST_PERIOD = 0.75  # of the wanted one
STALE_PATIENCE_S = 2.0  # a camera that hiccups for less does not end an episode
HEALTH_S = 20.0  # between two looks at supply, temperature and errors of the motors


class PolicyRunner:
    """A policy with its processors, from a robot's observation to an action (A,) on the CPU."""

    def __init__(self, policy, preprocessor, postprocessor, robot_type: str = ""):
        self.policy, self.robot_type = policy, robot_type
        self.preprocessor, self.postprocessor = preprocessor, postprocessor
        self.budget = LatencyBudget()
        self._planned_on: dict | None = None  # the observation of the present plan, processed

    def reset(self) -> None:
        """A new episode begins: no action of the last one is left."""
        self.budget.clear()
        self._planned_on = None
        for part in (self.policy, self.preprocessor, self.postprocessor):
            if hasattr(part, "reset"):
                part.reset()

    def act(self, observation: dict[str, torch.Tensor], task: str) -> torch.Tensor | None:
        """The next action; None where the arm is to be held."""
        plans = self._planned_on is None or getattr(self.policy, "needs_observation", lambda: True)()
        config = self.policy.config
        device = torch.device(config.device)
        with _inferring(device, config.use_amp):
            if plans:  # while actions are queued, the pictures are not looked at: processing them would be lost time
                with self.budget.measure("preprocess"):
                    batch = as_batch(observation, device, task, self.robot_type)
                    self._planned_on = self.preprocessor(batch) if self.preprocessor is not None else batch
            # Taking an action from the policy's own queue is no inference.
            with self.budget.measure("model") if plans else nullcontext():
                action = self.policy.select_action(self._planned_on)
            if self.postprocessor is not None:
                action = self.postprocessor(action)
        return action.squeeze(0).to("cpu", torch.float32)

    def report(self) -> dict:
        """Milliseconds by stage, for the report file."""
        return {"latency": self.budget.summary()}

    def lines(self) -> list[str]:
        """The same for the terminal."""
        return [f"latency: {self.budget.line()}"]

    def close(self) -> None:
        """The run is over."""


def predict_action(
    observation: dict[str, torch.Tensor],
    policy,
    device,
    preprocessor=None,
    postprocessor=None,
    use_amp: bool | None = None,
    task: str | None = None,
    robot_type: str | None = None,
) -> torch.Tensor:
    """The action (A,) of a policy for one observation: state float32 (S,), pictures uint8 (H, W, 3).

    In LeRobot 0.1 the fourth argument is `use_amp`; a bool there is taken as such.
    """
    if isinstance(preprocessor, bool):
        preprocessor, use_amp = None, preprocessor
    device = torch.device(device)
    with _inferring(device, policy.config.use_amp if use_amp is None else use_amp):
        batch = as_batch(observation, device, task, robot_type)
        if preprocessor is not None:
            batch = preprocessor(batch)
        action = policy.select_action(batch)
        if postprocessor is not None:
            action = postprocessor(action)
    return action.squeeze(0).to("cpu", torch.float32)


@contextmanager
def _inferring(device: torch.device, amp: bool):
    with torch.inference_mode(), mixed_precision(device, amp):
        yield


def as_batch(observation: dict[str, torch.Tensor], device, task: str | None, robot_type: str | None) -> dict:
    """The unprocessed batch of one of a robot's observation: pictures float32 (1, 3, H, W) in [0, 1]."""
    batch: dict = {"task": [task or ""], "robot_type": robot_type or ""}
    for key, value in observation.items():
        value = torch.as_tensor(value)
        if "image" in key:
            value = _planes(value).to(device)  # bytes travel in a quarter of the time that floats need
            value = value.to(torch.float32).div_(255) if value.dtype == torch.uint8 else value.to(torch.float32)
        batch[key] = value.unsqueeze(0).to(device)
    return batch


def _planes(picture: torch.Tensor) -> torch.Tensor:
    """(H, W, 3) -> (3, H, W), contiguous."""
    if picture.dtype != torch.uint8 or picture.is_cuda:
        return picture.permute(2, 0, 1).contiguous()
    planes = np.empty((picture.shape[2], *picture.shape[:2]), np.uint8)
    cv2.split(picture.contiguous().numpy(), list(planes))  # ten times as fast as a transposed copy
    return torch.from_numpy(planes)


def control_loop(
    robot,
    control_time_s: float | None = None,
    teleoperate: bool = False,
    display_data: bool | Viewer = False,
    dataset=None,
    events: dict[str, bool] | None = None,
    policy: PolicyRunner | None = None,
    fps: float | None = None,
    single_task: str | None = None,
    *,
    pace: Pace | None = None,
    stop_when=None,
) -> None:
    """Tick until the time is over, `events["exit_early"]` or `stop_when()`; at least one tick.

    With `teleoperate` the leader moves the arm, with `policy` the policy, else it holds. With `dataset` every tick is a
    frame: the state, the pictures and the action that was really sent. A policy without its processors (one of
    LeRobot 0.1, which normalises by itself) is taken as well.
    """
    if not robot.is_connected:
        robot.connect()
    _check_arguments(teleoperate, policy, dataset, single_task, fps)
    kind, events = ("teleop", new_events()) if events is None else ("record", events)
    fps = fps or (LOCKSTEP_FPS if robot.clock.lockstep else None)
    policy = _runner(policy, robot)
    pace, line = pace or Pace(fps), LiveLine(robot, budget=policy.budget if policy else None)
    shown = _viewer(kind, display_data)
    clock, end = robot.clock, float("inf") if control_time_s is None else control_time_s
    robot.set_rate(fps)
    robot.resume()
    start, watched, checked = clock.now(), False, time.monotonic()
    due = seen = start
    try:
        while True:
            tick, work = clock.now(), time.perf_counter()
            if tick < seen:  # the clock was set back: neither a long wait nor a longer run
                start, due = start - (seen - tick), tick
            observation, action = _patient_tick(robot, teleoperate, policy, single_task, pace)
            if not watched:
                robot.watch(True)  # from the first goal on: what comes before may take long
                watched = True
            if dataset is not None:
                dataset.add_frame({**observation, **action, "task": single_task})
            if shown is not None:
                shown.log(observation, action)
            worked = time.perf_counter() - work
            pace.tick(tick, 0.0 if clock.lockstep else worked)
            line.show(pace)
            if fps:
                due = max(due + 1 / fps, tick + SHORTEST_PERIOD / fps)  # a late tick is made up for, in small steps
                clock.wait(min(due - clock.now(), 1 / fps))
            if time.monotonic() - checked > HEALTH_S:
                checked = _check_health(robot)
            seen = max(tick, clock.now())
            over = seen - start >= end - 1e-6
            if over or events["exit_early"] or (stop_when is not None and stop_when()):
                events["exit_early"] = False
                return
    finally:
        line.end()
        if watched and robot.is_connected:
            robot.watch(False)


def _viewer(kind: str, wanted: bool | Viewer) -> Viewer | None:
    """The viewer that was opened, or one that is opened now where there is a desktop."""
    if isinstance(wanted, Viewer):
        return wanted
    return Viewer(kind) if wanted and has_desktop() else None


def _runner(policy, robot) -> PolicyRunner | None:
    return policy if policy is None or hasattr(policy, "act") else PolicyRunner(policy, None, None, robot.robot_type)


def _patient_tick(robot, teleoperate: bool, policy: PolicyRunner | None, task: str | None, pace: Pace):
    """A tick; while a camera's newest picture is too old, the arm holds, for `STALE_PATIENCE_S` at most."""
    end = time.monotonic() + STALE_PATIENCE_S
    while True:
        try:
            return _tick(robot, teleoperate, policy, task)
        except StaleFrameError as e:
            if time.monotonic() > end:
                raise
            pace.held += 1
            logging.log(logging.WARNING if pace.held == 1 else logging.DEBUG, "%s The arm holds.", e)
            robot.hold()
            robot.clock.wait(1 / LOCKSTEP_FPS)


def _tick(robot, teleoperate: bool, policy: PolicyRunner | None, task: str | None) -> tuple[dict, dict]:
    if teleoperate:
        return robot.teleop_step(record_data=True)
    if policy is None:
        return robot.capture_observation(), {"action": robot.hold()}
    with policy.budget.measure("capture"):
        observation = robot.capture_observation()
    action = policy.act(observation, task)
    with policy.budget.measure("send"):
        sent = robot.hold() if action is None else robot.send_action(action)
    return observation, {"action": sent}


def _check_arguments(teleoperate, policy, dataset, single_task, fps) -> None:
    if teleoperate and policy is not None:
        raise ValueError("Either the leader or the policy moves the arm, not both.")
    if dataset is not None and single_task is None:
        raise ValueError("Recording needs a task: --control.single_task='what the robot does'.")
    if dataset is not None and fps is not None and dataset.fps != fps:
        raise ValueError(f"The dataset has {dataset.fps} fps, asked for are {fps}: --control.fps={dataset.fps}.")


def _check_health(robot) -> float:
    errors = []
    for finding in robot.watch_health():
        logging.warning("%s", finding)
        errors += [finding.message] if finding.severity == "error" else []
    if errors:
        raise ConnectionError(" ".join(errors))
    return time.monotonic()


# --- phases of a recording ----------------------------------------------------------------------------------------


def warmup_record(robot, events, enable_teleoperation: bool, warmup_time_s: float, display_data: bool, fps) -> None:
    """Cameras and operator get ready: teleoperation, or the arm holds."""
    control_loop(robot, warmup_time_s, enable_teleoperation, display_data, events=events, fps=fps)


def record_episode(
    robot, dataset, events, episode_time_s, display_data, policy, fps, single_task, *, pace=None, stop_when=None
) -> None:
    """One episode into the dataset's buffer, moved by the leader unless there is a policy."""
    if policy is not None:
        policy.reset()
    control_loop(
        robot,
        episode_time_s,
        policy is None,
        display_data,
        dataset,
        events,
        policy,
        fps,
        single_task,
        pace=pace,
        stop_when=stop_when,
    )


def reset_environment(robot, events, reset_time_s: float, fps) -> None:
    """Time to put things back: the leader moves the arm if there is one, else the arm holds."""
    control_loop(robot, reset_time_s, bool(robot.leader_arms), events=events, fps=fps)


# --- checks of names and features ---------------------------------------------------------------------------------


def sanity_check_dataset_name(repo_id: str, policy_cfg) -> None:
    """`user/name`, whose name begins with `eval_` exactly when a policy moves the arm; ValueError."""
    if repo_id.count("/") != 1:
        raise ValueError(f"--control.repo_id={repo_id}: expected user/name with one slash.")
    name = repo_id.split("/")[1]
    if policy_cfg is None and name.startswith("eval_"):
        raise ValueError(f"--control.repo_id={repo_id}: names with eval_ are for runs of a policy; none is given.")
    if policy_cfg is not None and not name.startswith("eval_"):
        suggestion = f"{repo_id.split('/')[0]}/eval_{name}"
        raise ValueError(f"--control.repo_id={repo_id}: a policy moves the arm, call it {suggestion}.")


def sanity_check_dataset_robot_compatibility(dataset, robot, fps: float, use_videos: bool = True) -> None:
    """ValueError listing where a dataset that is continued differs from what the robot gives."""
    from lerobot.common.checks.robot import check_dataset_fits

    findings = check_dataset_fits(robot.features, robot.robot_type, fps, robot.units, dataset.meta)
    if findings:
        raise ValueError("The dataset cannot be continued: " + " ".join(finding.message for finding in findings))


@contextmanager
def landing_on_signals():
    """A polite kill, or a closed terminal, ends the run as Ctrl-C does: the arm is landed."""

    def interrupt(number, _frame):
        raise KeyboardInterrupt(f"signal {signal.Signals(number).name}")

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
