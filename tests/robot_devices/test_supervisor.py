"""The process that outlives the program: what it notices, and that it switches torque off whatever else fails."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

pytest.importorskip("dynamixel_sdk")

from lerobot.common.robot_devices import supervisor
from lerobot.common.robot_devices.motors.configs import DynamixelMotorsBusConfig
from lerobot.common.robot_devices.motors.dynamixel import DynamixelMotorsBus
from lerobot.common.robot_devices.supervisor import ARM, DISARM, DONE, GONE, SILENT, land, wait_for_trouble
from tests.kill import REPO

LIMIT_S = 120


@pytest.fixture
def pipe():
    ours, theirs = os.pipe()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(
    ("sent", "found"),
    [(ARM, SILENT), (ARM + DISARM + DONE, None), (DONE, None), (b"." + ARM + b"...", SILENT)],
)
def test_silence_counts_only_while_armed(pipe, sent, found):
    os.write(pipe[1], sent)
    assert wait_for_trouble(pipe[0], 0.01, os.getppid()) == found


def test_an_orphan_knows_that_the_program_is_gone_though_the_pipe_is_open(pipe):
    assert wait_for_trouble(pipe[0], 1000.0, os.getppid() + 1) == GONE


FORK_AND_DIE = """
    import os, signal, time
    from lerobot.common.robot_devices.supervisor import Supervision
    supervision = Supervision({"pid": os.getpid(), "arms": [], "release_after_s": 1000.0, "landing_s": 0.1})
    holder = os.fork()  # as a worker that writes pictures: it has the pipe too, and outlives the program
    if holder == 0:
        os.close(1)
        time.sleep(100)
        os._exit(0)
    print(holder, supervision.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_that_outlives_the_program_does_not_hide_its_end():
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(FORK_AND_DIE)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, timeout=LIMIT_S)
    holder, watcher = map(int, done.stdout.split())
    deadline = time.monotonic() + LIMIT_S
    while _runs(watcher) and time.monotonic() < deadline:
        select.select([], [], [], 0.05)
    still_there = _runs(watcher)
    os.kill(holder, signal.SIGKILL)
    assert not still_there


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def second(arm):
    """The supervisor's own bus on the port of `arm`, whose torque is on."""
    arm.write("Operating_Mode", 4)
    arm.set_torque(True)
    arm.disconnect(torque_off=False)
    yield DynamixelMotorsBus(DynamixelMotorsBusConfig(arm.port, arm.motors))


def test_an_arm_is_moved_to_its_rest_and_let_go(arm, second):
    rest = np.array([servo.shaft + 40 for servo in arm.servos])
    land(second, rest, 0.3, time.monotonic())
    assert [round(servo.get("Goal_Position")) for servo in arm.servos] == rest.round().tolist()
    assert not any(servo.torque for servo in arm.servos) and not second.is_connected


def test_a_servo_that_does_not_answer_keeps_no_other_from_being_switched_off(arm, second, monkeypatch):
    monkeypatch.setattr(supervisor, "INSIST_S", 0.0)
    arm.servos[0].muted = True
    with pytest.raises(ConnectionError):
        land(second, np.full(6, 2048.0), 0.3, time.monotonic())
    assert [servo.torque for servo in arm.servos] == [True] + [False] * 5


def test_a_servo_that_answers_again_is_switched_off_after_all(arm, second, monkeypatch):
    arm.servos[0].muted = True
    monkeypatch.setattr(second, "reconnect", lambda: setattr(arm.servos[0], "muted", False))
    land(second, np.full(6, 2048.0), 0.3, time.monotonic())
    assert not any(servo.torque for servo in arm.servos)


def test_an_arm_whose_torque_is_off_is_not_moved(arm):
    land(arm, np.full(6, 100.0), 0.3, time.monotonic())
    assert not any(servo.goal_writes for servo in arm.servos)
