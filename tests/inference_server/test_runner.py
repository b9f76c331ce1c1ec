"""Holding and landing, tick by tick, on a clock that the test owns."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("zmq")

from lerobot.common.inference_server.client import ServerError
from lerobot.common.inference_server.drive import RemoteRunner
from lerobot.common.player.chunk_player import Chunk, ChunkPlayer, LostChunkError
from lerobot.common.player.latency import LatencyBudget
from lerobot.common.robot_devices.safety import EnvelopeConfig, JointLimits, SafetyEnvelope

FPS = 30


class Scripted:
    """A planner that answers in the tick it is asked: with 3 actions at `value`, or that the chunk is lost."""

    def __init__(self):
        self.value, self.lost, self.failures, self.budget = 0.0, False, 0, LatencyBudget()
        self.remote = SimpleNamespace(observe=lambda observation: [observation])

    def start(self, request) -> None:
        pass

    def result(self) -> Chunk:
        if self.lost:
            self.failures += 1
            raise LostChunkError
        return Chunk(torch.full((3, 2), self.value))

    def reset(self) -> None:
        pass


class Run:
    """One arm of two joints: `tick` plays a frame and returns the command."""

    def __init__(self, land_after_s: float = 2.0):
        config = EnvelopeConfig()
        limits = JointLimits.of_arm(["a", "b"], [-90.0] * 2, [90.0] * 2, config)
        self.envelope, self.planner, self.ticks = SafetyEnvelope(limits, 1 / FPS, config), Scripted(), 0
        self.set_by = 0.0  # seconds that the clock was set by
        self.envelope.engage([0.0, 0.0])
        robot = SimpleNamespace(envelopes={"main": self.envelope}, envelope_config=config, clock=self)
        self.runner = RemoteRunner(robot, ChunkPlayer(self.planner, "sync", FPS, 3), land_after_s)

    def now(self) -> float:
        return self.ticks / FPS + self.set_by

    def tick(self) -> np.ndarray:
        self.ticks += 1
        action = self.runner.act({}, "")
        return self.envelope.limit(self.envelope.commanded if action is None else action, self.now())


def test_a_hold_ends_in_a_slow_approach_from_the_last_command():
    run = Run()
    run.planner.value = 10.0
    for _ in range(30):
        before = run.tick()
    run.planner.lost, run.planner.value = True, 60.0
    held = [run.tick() for _ in range(20)]
    assert all((command == held[-1]).all() for command in held[5:]) and abs(held[-1] - before).max() < 1e-3
    run.planner.lost = False
    moving = [run.tick() for _ in range(15)]
    assert np.abs(np.diff([held[-1], *moving], axis=0)).max() <= 45 / FPS * 1.01 and moving[-1][0] > 15


def test_a_short_gap_is_no_hold():
    run = Run()
    run.planner.value = 5.0
    for _ in range(6):
        run.tick()
    run.planner.lost, run.planner.value = True, 25.0
    for _ in range(5):
        run.tick()
    run.planner.lost = False
    assert np.abs(np.diff([run.tick() for _ in range(4)], axis=0)).max() > 45 / FPS * 1.5


def test_without_chunks_the_run_ends_after_the_time_allowed_and_not_before():
    run = Run(land_after_s=1.0)
    run.tick()
    run.planner.lost = True
    for _ in range(2 + FPS):  # two more actions are left, then one second
        run.tick()
    with pytest.raises(ServerError, match="landed"):
        run.tick()
        run.tick()
    assert FPS <= run.planner.failures <= FPS + 2


def test_a_clock_that_is_set_back_does_not_put_off_the_landing():
    run = Run(land_after_s=1.0)
    run.planner.value = 5.0
    run.tick()
    run.planner.lost = True
    before = [run.tick() for _ in range(3)][-1]  # two more actions are left, then it is held
    run.set_by = -3600.0
    held = [run.tick() for _ in range(FPS - 2)]
    assert np.abs(np.diff([before, *held], axis=0)).max() * FPS < 360 and (held[5] == held[-1]).all()
    with pytest.raises(ServerError, match="landed"):
        for _ in range(5):
            run.tick()
    assert run.runner.report()["player"]["clock_jumps"] == 1


def test_after_a_clock_that_was_set_forward_the_arm_goes_on_slowly():
    run = Run()
    run.planner.value = 10.0
    before = [run.tick() for _ in range(30)][-1]
    run.set_by, run.planner.value = 3600.0, 60.0
    moving = [run.tick() for _ in range(20)]
    assert np.abs(np.diff([before, *moving], axis=0)).max() <= 45 / FPS * 1.01 and moving[-1][0] > 15


def test_a_run_that_never_gets_a_chunk_ends_too():
    run = Run(land_after_s=0.5)
    run.planner.lost = True
    with pytest.raises(ServerError):
        for _ in range(FPS):
            run.tick()
    assert FPS // 2 <= run.ticks <= FPS // 2 + 2
