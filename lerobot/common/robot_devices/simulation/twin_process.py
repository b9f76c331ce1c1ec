"""Starting the twin and asking it things, from the program that controls the arm."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from dataclasses import asdict

import numpy as np

from lerobot.common.robot_devices.simulation.messages import Inbox, send_message
from lerobot.common.robot_devices.utils import DeviceError

FPS = 30
ANSWER_S = 120.0  # a twin that is silent for this long hangs
END_S = 10.0
ALMOST = 1e-6  # of a frame: sums of seconds are not exact


class TwinProcess:
    """A simulated arm in a process of its own; `ports` are the device paths of its follower and leader."""

    def __init__(self, **options):
        self.time = options.get("time", "realtime")
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "lerobot.common.robot_devices.simulation.twin", str(theirs.fileno())]
        # A session of its own: Ctrl-C must reach the program, not the arm it controls. It outlives a program that is
        # killed, whose output must not stay open for that long.
        self.process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL, start_new_session=True
        )
        theirs.close()
        ours.settimeout(ANSWER_S)
        self._link, self._inbox, self._lock = ours, Inbox(ours), threading.Lock()
        self._owed = False  # an answer; still so at the next question when Ctrl-C cut one off
        self.success = False  # as of the newest answer
        send_message(ours, options)
        self.ports: list[str] = self._receive()[0]["ports"]

    def ask(self, do: str, **arguments) -> dict:
        """Make the twin do something; its answer. RuntimeError with what went wrong there."""
        return self._ask(do, arguments)[0]

    def picture(self, camera: str) -> tuple[np.ndarray, float]:
        """What a camera sees, uint8 (height, width, 3), and when (seconds, monotonic)."""
        header, payload = self._ask("picture", {"camera": camera})
        return np.frombuffer(payload, np.uint8).reshape(header["shape"]), header["time"]

    def close(self) -> None:
        """End the process."""
        self._link.close()
        self.process.terminate()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(END_S)

    def _ask(self, do: str, arguments: dict) -> tuple[dict, bytearray]:
        with self._lock:
            if self._owed:
                self._inbox.receive()
            self._owed = True
            send_message(self._link, {"do": do, **arguments})
            answer = self._receive()
            self.success = answer[0].get("success", self.success)
            return answer

    def _receive(self) -> tuple[dict, bytearray]:
        message = self._inbox.receive()
        self._owed = False
        if message is None:
            ended = self.process.poll() is not None
            what = "process ended" if ended else f"process gave no answer within {ANSWER_S:.0f} s"
            raise DeviceError(f"The simulated arm's {what}; its own message, if any, stands above.")
        if "error" in message[0]:
            raise DeviceError(f"The simulated arm: {message[0]['error']}")
        return message


class TwinClock:
    """The time of a twin in lockstep: it passes only while the program waits, there in whole frames of 1/30 s."""

    lockstep = True

    def __init__(self, twin: TwinProcess):
        self._twin, self._seconds, self._frames = twin, 0.0, 0

    def now(self) -> float:
        """Seconds of simulated time."""
        return self._seconds

    def wait(self, seconds: float) -> None:
        """Let that time pass; a frame is over when all of it has passed."""
        self._seconds += max(0.0, seconds)
        frames = int(self._seconds * FPS + ALMOST) - self._frames
        if frames > 0:
            self._frames += frames
            self._twin.ask("advance", frames=frames)


def start(options) -> TwinProcess:
    """A twin with `TwinOptions` or a dict of them."""
    return TwinProcess(**(options if isinstance(options, dict) else asdict(options)))
