"""A policy that moves the simulated arm through the chunk player."""

from __future__ import annotations

import json
import threading

import pytest
import torch

pytest.importorskip("mujoco")
pytest.importorskip("dynamixel_sdk")

from lerobot.common.robot_devices import control_utils
from lerobot.common.robot_devices.control_configs import parse_control
from lerobot.common.robot_devices.control_utils import PolicyRunner
from lerobot.common.robot_devices.playing import PlayedRunner
from lerobot.common.robot_devices.robots.utils import make_robot
from tests.evaluation.stand_ins import make_policy, same
from tests.robot_devices.test_control import RECORD, make_checkpoint, run


class Still:
    """A policy that answers with chunks of one pose, when it is allowed to."""

    name = "still"

    def __init__(self, pose):
        self.pose, self.config, self.may_answer = pose, make_policy().config, threading.Event()
        self.may_answer.set()

    def predict_action_chunk(self, batch):
        assert batch["task"] == ["Pick."] and batch["observation.state"].shape == (1, 6)
        self.may_answer.wait(20)
        return self.pose.expand(1, 4, -1)


@pytest.fixture(params=["lockstep", "realtime"])
def robot(request):
    made = make_robot("koch_sim", time=request.param, cameras={}, supervise=False)
    made.connect()
    yield made
    if made.is_open:
        made.disconnect(land=False)


class Recorder:
    fps = 30

    def __init__(self):
        self.frames = []

    def add_frame(self, frame):
        self.frames.append(frame)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_arm_is_held_until_the_first_chunk_and_then_follows_it(robot, mode):
    start = torch.tensor(robot.envelopes["main"].commanded, dtype=torch.float32)  # the arm itself may sag meanwhile
    policy = Still(start + 3.0)
    runner = PlayedRunner(PolicyRunner(policy, same, same), mode, 30, robot)
    if not robot.clock.lockstep:
        policy.may_answer.clear()
    frames = Recorder()
    late = not robot.clock.lockstep

    def arrived():
        if len(frames.frames) == 8:
            policy.may_answer.set()
        return bool((frames.frames[-1]["action"] - start - 3.0).abs().max() < 0.5)

    runner.reset()
    control_utils.control_loop(robot, 30, dataset=frames, policy=runner, fps=30, single_task="Pick.", stop_when=arrived)
    runner.close()
    sent = torch.stack([frame["action"] for frame in frames.frames])
    if late or mode == "async":  # in lockstep, sync plans between two ticks
        torch.testing.assert_close(sent[0], start, atol=0.2, rtol=0)
    torch.testing.assert_close(sent[-1], start + 3.0, atol=0.5, rtol=0)
    report = runner.report()
    assert set(report["latency"]) == {"capture", "preprocess", "model", "postprocess", "send"}
    assert report["latency"]["send"]["n"] == len(sent) and report["player"]["mode"] == mode
    if late:
        torch.testing.assert_close(sent[7], start, atol=0.2, rtol=0)


def test_a_recording_with_async_reports_motion_and_latency(tmp_path):
    cameras = json.dumps({"laptop": {"type": "sim", "name": "laptop", "width": 64, "height": 48}})
    dataset = run(*RECORD, f"--control.root={tmp_path / 'cubes'}", "--control.num_episodes=1",
                  "--control.episode_time_s=0.5", f"--robot.cameras={cameras}")  # fmt: skip
    checkpoint = make_checkpoint(dataset, tmp_path / "checkpoint")
    flags = [*RECORD, f"--robot.cameras={cameras}", f"--control.policy.path={checkpoint}", "--control.num_episodes=2",
             "--control.episode_time_s=0.5", "--control.repo_id=me/eval_cubes"]  # fmt: skip
    root = tmp_path / "eval_cubes"
    with pytest.raises(ValueError, match="--control.player=async"):
        run(*flags, f"--control.root={root}", "--control.player=rtc")
    run(*flags, f"--control.root={root}", "--control.player=async")
    lines = (tmp_path / "eval_cubes.control_report.jsonl").read_text().splitlines()
    reports = [json.loads(line) for line in lines]
    assert [r["player"]["mode"] for r in reports] == ["async"] * 2
    # How many seams there are depends on how fast chunks come, which depends on the machine.
    assert all(r["latency"]["model"]["p99_ms"] > 0 and r["player"]["seams"] >= 0 for r in reports)


def test_a_player_without_a_policy_is_refused():
    with pytest.raises(ValueError, match="--control.policy.path"):
        parse_control([*RECORD, "--control.player=async"])
    with pytest.raises(ValueError, match="sync, async or rtc"):
        parse_control([*RECORD, "--control.player=fast"])
