"""The process that outlives the program: it lands the arm and switches torque off when the program dies or hangs.

It is told what to do before torque is switched on, and learns of the program's end, even by kill -9, from the pipe
between them, or from being an orphan (a process forked from the program may hold the pipe open). While a control loop
runs, the program sends a heartbeat with every goal; when none comes for `release_after_s`, the program is killed and
the arm landed. After the program's end the torque is off within `landing_s + LIMIT_S` seconds.
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
import threading
import time

import numpy as np

from lerobot.common.robot_devices.motors.calibration import to_raw
from lerobot.common.robot_devices.motors.configs import DynamixelMotorsBusConfig
from lerobot.common.robot_devices.motors.dynamixel import DynamixelMotorsBus
from lerobot.common.robot_devices.motors.dynamixel_port import import_sdk
from lerobot.common.robot_devices.utils import DeviceError

BEAT, ARM, DISARM, DONE = b".", b"A", b"D", b"Q"
SILENT = "the control program gives no sign of life"
GONE = "the control program ended without switching the torque off"
READY = b"ready\n"
TICK_S = 1 / 30
START_S = 60.0  # for the supervising process to begin, on a machine that is busy
LIMIT_S = 2.0  # to notice, open the ports and switch off, beside the landing itself
ORPHAN_S = 0.25  # between two looks at who the parent is
QUESTION_TRIES = 3
INSIST_S = 30.0  # a port that cannot be opened, or servos that do not answer, are tried again for this long
PRIORITY = -10  # where the system allows it: on a busy machine the arm comes first


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
            raise DeviceError(
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
            raise DeviceError("The supervising process is gone: nothing would land the arm. The run is stopped.") from e


# --- the supervising process --------------------------------------------------------------------------------------


def wait_for_trouble(pipe: int, release_after_s: float, parent: int) -> str | None:
    """Block until the program, the process `parent`, is done (None), gone, or silent; returns what happened."""
    armed, last = False, time.monotonic()
    while os.getppid() == parent:
        silent_in = last + release_after_s - time.monotonic() if armed else ORPHAN_S
        ready, _, _ = select.select([pipe], [], [], max(0.0, min(silent_in, ORPHAN_S)))
        if not ready:
            if armed and time.monotonic() - last >= release_after_s:
                return SILENT
            continue
        data = os.read(pipe, 4096)
        if not data:
            return GONE
        if DONE in data:
            return None
        for sign in data:
            armed = {ARM[0]: True, DISARM[0]: False}.get(sign, armed)
        last = time.monotonic()
    return GONE


def land(bus: DynamixelMotorsBus, rest: np.ndarray, landing_s: float, noticed: float) -> None:
    """Move one arm to its rest position (steps) and switch its torque off `landing_s` after `noticed`.

    What cannot be moved is switched off where it is; ConnectionError or RuntimeError where even that failed.
    """
    _insist(bus.connect if not bus.is_connected else bus.reconnect)
    try:
        try:
            if not bus.read_with_motor_ids(bus.motor_models, bus.motor_indices, "Torque_Enable", QUESTION_TRIES).any():
                return
            left = landing_s - (time.monotonic() - noticed)
            _glide(bus, rest, max(left, landing_s / 3))
        except (ConnectionError, RuntimeError) as e:
            logging.error("The arm could not be landed (%s); its torque is switched off where it is.", e)
        _insist(lambda: bus.set_torque(False), bus.reconnect)
    finally:
        bus.disconnect(torque_off=False)


def _insist(action, before_next=lambda: None) -> None:
    """Until it works, for `INSIST_S` at most."""
    end, tries = time.monotonic() + INSIST_S, 0
    while True:
        try:
            if tries:
                before_next()
            return action()
        except (ConnectionError, RuntimeError) as e:
            tries += 1
            if time.monotonic() > end:
                raise
            logging.log(logging.ERROR if tries == 1 else logging.DEBUG, "%s Trying again.", e)
            time.sleep(TICK_S)


def _glide(bus: DynamixelMotorsBus, rest: np.ndarray, seconds: float) -> None:
    bus.send("Bus_Watchdog", 0)  # a servo that stopped by itself takes goals again only then
    bus.send("Bus_Watchdog", 0)  # nothing is acknowledged here, which would take time
    start = bus.read_with_motor_ids(bus.motor_models, bus.motor_indices, "Present_Position", QUESTION_TRIES)
    begin = time.monotonic()
    share = 0.0
    while share < 1.0:
        share = min(1.0, (time.monotonic() - begin) / seconds)
        bus.write("Goal_Position", np.round(start + (3 * share**2 - 2 * share**3) * (rest - start)).astype(np.int32))
        time.sleep(TICK_S)


def _land_all(arms: list[tuple[DynamixelMotorsBus, np.ndarray]], landing_s: float, noticed: float) -> bool:
    """Land all arms at once; whether the torque of each is off."""
    off = []

    def land_one(bus, rest):
        try:
            land(bus, rest, landing_s, noticed)
            off.append(bus)
        except (OSError, RuntimeError) as e:
            logging.error("%s: %s CUT THE POWER of the arm.", bus.port, e)

    threads = [threading.Thread(target=land_one, args=arm, daemon=True) for arm in arms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(landing_s + 3 * INSIST_S)
    return len(off) == len(arms)


def _read_task(pipe: int) -> dict | None:
    """The first line; None if the program ended before it was complete."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(pipe, 1)
        if not byte:
            return None
        line += byte
    return json.loads(line)


def _buses(arms: list[dict]) -> list[tuple[DynamixelMotorsBus, np.ndarray]]:
    """The buses, not yet connected, and rest positions; whatever takes time is done now, not after the trouble."""
    if arms:
        import_sdk()
    configs = [
        DynamixelMotorsBusConfig(
            arm["port"], {name: tuple(motor) for name, motor in arm["motors"].items()}, arm["baud_rate"]
        )
        for arm in arms
    ]
    rests = [np.array(arm["rest"], dtype=np.float64) for arm in arms]
    return [(DynamixelMotorsBus(config), rest) for config, rest in zip(configs, rests, strict=True)]


def main() -> None:
    """Read the task from standard input, then supervise."""
    logging.basicConfig(level=logging.INFO, format="supervisor: %(message)s")
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    pipe = sys.stdin.fileno()
    task = _read_task(pipe)
    if task is None:
        return
    arms = _buses(task["arms"])
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    trouble = wait_for_trouble(pipe, task["release_after_s"], task["pid"])
    if trouble is None:
        return
    noticed = time.monotonic()
    logging.error("%s: landing the arm, then switching its torque off.", trouble)
    if trouble == SILENT and os.getppid() == task["pid"]:  # it hangs, and would talk on the same bus
        with contextlib.suppress(ProcessLookupError):
            os.kill(task["pid"], signal.SIGKILL)
    if _land_all(arms, task["landing_s"], noticed):
        logging.error("Torque is off, %.2f s after the trouble was noticed.", time.monotonic() - noticed)


if __name__ == "__main__":
    main()
