"""The process that outlives the program: it lands the arm and switches torque off when the program dies or hangs.

It is told what to do before torque is switched on, and learns of the program's end, even by kill -9, from the pipe
between them. While a control loop runs, the program sends a heartbeat with every goal; when none comes for
`release_after_s`, the program is killed and the arm landed. After the program's end the torque is off within
`landing_s + LIMIT_S` seconds.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time

import numpy as np

from lerobot.common.robot_devices.motors.calibration import to_raw
from lerobot.common.robot_devices.motors.configs import DynamixelMotorsBusConfig
from lerobot.common.robot_devices.motors.dynamixel import DynamixelMotorsBus

BEAT, ARM, DISARM, DONE = b".", b"A", b"D", b"Q"
SILENT = "the control program gives no sign of life"
GONE = "the control program ended without switching the torque off"
READY = b"ready\n"
TICK_S = 1 / 30
START_S = 60.0  # for the supervising process to begin, on a machine that is busy
LIMIT_S = 2.0  # to notice, open the ports and switch off, beside the landing itself
TRIES = 5


class Supervision:
    """The program's end of the pipe."""

    def __init__(self, task: dict):
        command = [sys.executable, "-m", "lerobot.common.robot_devices.supervisor"]
        # A session of its own: Ctrl-C ends the program, which lands the arm itself; the supervisor must stay.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self._send(json.dumps(task).encode() + b"\n")
        begun, _, _ = select.select([self._process.stdout], [], [], START_S)
        if not begun or self._process.stdout.readline() != READY:
            self._process.kill()
            self._process.wait(START_S)
            raise RuntimeError(
                f"The supervising process did not start within {START_S:.0f} s; its own message, if any, stands above."
            )

    @classmethod
    def start(cls, robot) -> Supervision:
        """A supervisor for a robot whose followers lie at rest; raises RuntimeError if it does not start."""
        arms = [
            {
                "port": bus.port,
                "baud_rate": bus.config.baud_rate,
                "motors": bus.motors,
                "rest": to_raw(robot.resting[name], bus.motor_names, bus.calibration).tolist(),
            }
            for name, bus in robot.follower_arms.items()
        ]
        config = robot.envelope_config
        times = {"release_after_s": config.release_after_s, "landing_s": config.landing_s}
        return cls({"pid": os.getpid(), "arms": arms, **times})

    @property
    def pid(self) -> int:
        """The supervisor's process."""
        return self._process.pid

    def beat(self) -> None:
        """The program is alive."""
        self._send(BEAT)

    def arm(self) -> None:
        """From now on a heartbeat is expected."""
        self._send(ARM)

    def disarm(self) -> None:
        """From now on only the program's end counts."""
        self._send(DISARM)

    def finish(self) -> None:
        """The torque is off: nothing is left to do."""
        with contextlib.suppress(OSError):
            self._send(DONE)
            self._process.stdin.close()
        try:
            self._process.wait(START_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(START_S)
        self._process.stdout.close()

    def _send(self, data: bytes) -> None:
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except BrokenPipeError as e:
            raise RuntimeError(
                "The supervising process is gone: nothing would land the arm. The run is stopped."
            ) from e


# --- the supervising process --------------------------------------------------------------------------------------


def wait_for_trouble(pipe: int, release_after_s: float) -> str | None:
    """Block until the program is done (None), gone, or silent; returns what happened."""
    armed, last = False, time.monotonic()
    while True:
        remaining = max(0.0, last + release_after_s - time.monotonic()) if armed else None
        ready, _, _ = select.select([pipe], [], [], remaining)
        if not ready:
            return SILENT
        data = os.read(pipe, 4096)
        if not data:
            return GONE
        if DONE in data:
            return None
        for sign in data:
            armed = {ARM[0]: True, DISARM[0]: False}.get(sign, armed)
        last = time.monotonic()


def land(arm: dict, seconds: float) -> None:
    """Move one arm to its rest position in that time and switch its torque off; failing to move, only that."""
    motors = {name: tuple(motor) for name, motor in arm["motors"].items()}
    bus = DynamixelMotorsBus(DynamixelMotorsBusConfig(arm["port"], motors, arm["baud_rate"]))
    bus.connect()
    try:
        if not bus.read("Torque_Enable").any():
            return
        try:
            _glide(bus, np.array(arm["rest"], dtype=np.float64), seconds)
        except (ConnectionError, RuntimeError) as e:
            logging.error("The arm could not be landed (%s); its torque is switched off where it is.", e)
        _release(bus)
    finally:
        bus.disconnect(torque_off=False)


def _release(bus: DynamixelMotorsBus) -> None:
    for attempt in range(1, TRIES + 1):
        try:
            bus.set_torque(False)
            return
        except (ConnectionError, RuntimeError) as e:
            if attempt == TRIES:
                raise
            logging.error("Switching torque off failed (try %d): %s", attempt, e)
            bus.reconnect()


def _glide(bus: DynamixelMotorsBus, rest: np.ndarray, seconds: float) -> None:
    bus.write("Bus_Watchdog", 0)  # a servo that stopped by itself takes goals again only then
    start = bus.read("Present_Position").astype(np.float64)
    begin = time.monotonic()
    share = 0.0
    while share < 1.0:
        share = min(1.0, (time.monotonic() - begin) / seconds)
        bus.write("Goal_Position", np.round(start + (3 * share**2 - 2 * share**3) * (rest - start)).astype(np.int32))
        time.sleep(TICK_S)


def main() -> None:
    """Read the task from standard input, then supervise."""
    logging.basicConfig(level=logging.INFO, format="supervisor: %(message)s")
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    pipe = sys.stdin.fileno()
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(pipe, 1)
        if not byte:
            return
        line += byte
    task = json.loads(line)
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    trouble = wait_for_trouble(pipe, task["release_after_s"])
    if trouble is None:
        return
    logging.error("%s: landing the arm, then switching its torque off.", trouble)
    if trouble == SILENT and os.getppid() == task["pid"]:  # it hangs, and would talk on the same bus
        with contextlib.suppress(ProcessLookupError):
            os.kill(task["pid"], signal.SIGKILL)
    start, failed = time.monotonic(), False
    for arm in task["arms"]:
        try:
            land(arm, task["landing_s"])
        except (OSError, RuntimeError) as e:
            failed = True
            logging.error("%s: %s CUT THE POWER of the arm.", arm["port"], e)
    if not failed:
        logging.error("Torque is off, %.2f s after the trouble was noticed.", time.monotonic() - start)


if __name__ == "__main__":
    main()
