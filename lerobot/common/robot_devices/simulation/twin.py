"""The process of a simulated arm: physics, cameras, and both buses behind pseudo-terminals.

Started by `TwinProcess`. Reads its options as one line of JSON; then serves the buses, and the requests of the program
that started it. When that program is gone, time goes on by the clock until the torque is off.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from dataclasses import asdict, dataclass, field

import numpy as np

from lerobot.common.envs.koch_sim.arm import REST_POSE
from lerobot.common.envs.koch_sim.expert import KochExpert, Style
from lerobot.common.envs.koch_sim.kinematics import OutOfReachError
from lerobot.common.envs.koch_sim.scene import FPS
from lerobot.common.envs.koch_sim.world import KochWorld
from lerobot.common.robot_devices.simulation.faults import Faults, inject
from lerobot.common.robot_devices.simulation.messages import Inbox, send_message
from lerobot.common.robot_devices.simulation.pty_server import PtyServer, ServoBus
from lerobot.common.robot_devices.simulation.twin_arm import TwinFollower, TwinLeader

ORPHAN_S = 30.0  # after its program died, the twin ends at the latest then
QUIET_S = 10.0  # and already when nobody has talked on the follower's bus for this long
PATIENCE_S = 2.0  # a program that takes no answer for this long hangs; the buses must not wait for it
LIMP_S = 3.0  # it goes on for this long after the torque went off, so that others can see that it did
REQUESTS = ("reset", "advance", "picture", "state", "pose", "fault")
# The operator waits, for so many frames, for a follower that lags by more degrees; one that keeps up lags by 10.
LAG, PATIENT_FRAMES = 20.0, 150
CATCH_UP = 3  # frames of physics at once when rendering was slower than time


@dataclass
class TwinOptions:
    """What the twin simulates; `time` is realtime or lockstep (time passes when the program waits)."""

    scene: str = "A"
    seed: int = 0
    time: str = "realtime"
    leader: str = "expert"  # who moves the leader: expert or hold
    calibration: str = "plain"
    width: int = 640
    height: int = 480
    randomization: str = "none"
    disturbance: float = 0.0
    overload: bool = False
    faults: dict[str, float] = field(default_factory=dict)


class Twin:
    """World, servos and requests of one simulated robot."""

    def __init__(self, options: TwinOptions):
        self.options = options
        self.world = KochWorld(options.scene, options.width, options.height, options.randomization)
        self.world.reset(options.seed)
        self.follower = TwinFollower(self.world, options.calibration, options.disturbance, options.overload)
        self.leader = TwinLeader(options.calibration)
        faults = Faults(**options.faults)
        self.buses = [ServoBus(self.follower.servos, faults), ServoBus(self.leader.servos, faults)]
        self.server = PtyServer(self.buses)
        self.expert = KochExpert()
        self._asked, self._waited = np.zeros(6), 0  # where the operator holds the leader, degrees; frames of waiting
        self.reset(options.seed)

    # -- requests: each returns a header and a payload -----------------------------------------------------------

    def reset(self, seed: int) -> tuple[dict, bytes]:
        """Lay out the episode of `seed`, with the arm at rest."""
        self.seed = seed
        self.world.reset(seed)
        self.follower.reset(seed)
        self.expert.reset(self.world, Style.draw(np.random.default_rng([seed, 0, 1])))
        self._asked, self._waited = self.world.joint_angles(), 0
        self._move_leader()
        return self.state()

    def advance(self, frames: int) -> tuple[dict, bytes]:
        """Let that many frames of 1/30 s pass."""
        for _ in range(frames):
            self.follower.advance()
            self._move_leader()
        return self.state()

    def picture(self, camera: str) -> tuple[dict, bytes]:
        """What a camera sees now."""
        image = self.world.render(camera)
        header = {"shape": image.shape, "frame": self.world.frame, "time": time.monotonic()}
        return {**header, "success": bool(self.world.success)}, image.tobytes()

    def state(self) -> tuple[dict, bytes]:
        """Task, progress, and what the servos are doing."""
        servos = self.follower.servos
        return {
            "task": self.world.task,
            "success": bool(self.world.success),
            "stage": self.world.stage,
            "seed": self.seed,
            "frame": self.world.frame,
            "angles": self.world.joint_angles().tolist(),
            "torque": [servo.torque for servo in servos],
            "goals": self.follower.goals().tolist(),
            "faults": self.buses[0].faults.counts,
            "pid_time": time.monotonic(),
        }, b""

    def pose(self, arm: str, degrees: list[float]) -> tuple[dict, bytes]:
        """Put an arm into a pose, as the calibrating operator's hand does."""
        if arm == "leader":
            self.options.leader = "hold"
            self.leader.pose(degrees)
        else:
            self.world.reset(self.seed, qpos=degrees)
            self.follower.reset(self.seed)
        return self.state()

    def fault(self, kind: str, arm: str = "follower", motor: int = 1, value: float = 0.0) -> tuple[dict, bytes]:
        """Inject one of `faults.inject`, or unplug an arm's adapter."""
        index = ("follower", "leader").index(arm)
        if kind == "unplug":
            self.server.unplug(index)
        else:
            inject(self.buses[index].servos[motor - 1], kind, value)
        return self.state()

    def _move_leader(self) -> None:
        """The expert goes on, unless a slow loop left the follower behind: it would be dragged through the table."""
        if self.options.leader != "expert":
            return
        behind = np.abs(self._asked - self.world.joint_angles())[:-1].max()  # a jaw on a cube never arrives
        self._waited = self._waited + 1 if behind > LAG else 0
        if 0 < self._waited <= PATIENT_FRAMES:
            return
        try:
            self._asked = self.expert.act(self.world)
        except OutOfReachError:
            self._asked = np.array(REST_POSE)
        self.leader.pose(self._asked)

    # -- the process ---------------------------------------------------------------------------------------------

    def serve(self, link: socket.socket) -> None:
        """Until the program says goodbye, or is gone and the torque is off."""
        parent, orphaned_at, due = os.getppid(), None, time.monotonic() + 1 / FPS
        limp_at = None
        while orphaned_at is None or time.monotonic() < self._end(orphaned_at, limp_at):
            limp_at = None if self._energised() else limp_at or time.monotonic()
            if orphaned_at is None and os.getppid() != parent:  # a process forked from the program may hold the link
                orphaned_at = due = time.monotonic()
            realtime = self.options.time == "realtime" or orphaned_at is not None
            timeout = max(0.0, due - time.monotonic()) if realtime else 0.5
            for _ in self.server.serve_once(timeout, [] if orphaned_at is not None else [link]):
                if not self._answer(link):
                    orphaned_at = due = time.monotonic()
            if realtime and time.monotonic() >= due:
                behind = int((time.monotonic() - due) * FPS) + 1
                self.advance(min(behind, CATCH_UP))
                due += behind / FPS

    def _end(self, orphaned_at: float, limp_at: float | None) -> float:
        """When the twin of a program that is gone ends, by the clock."""
        last_word = time.monotonic() - min(servo.idle_s for servo in self.follower.servos)
        limp = float("inf") if limp_at is None else limp_at + LIMP_S
        return min(orphaned_at + ORPHAN_S, max(orphaned_at, last_word) + QUIET_S, limp)

    def _energised(self) -> bool:
        return any(servo.torque for servo in self.follower.servos)

    def _answer(self, link: socket.socket) -> bool:
        message = Inbox(link).receive()
        if message is None:
            return False
        request = message[0]
        do = request.pop("do")
        try:
            if do not in REQUESTS:
                raise ValueError(f"unknown request '{do}', expected one of {', '.join(REQUESTS)}")
            header, payload = getattr(self, do)(**request)
        except (RuntimeError, ValueError, KeyError, OutOfReachError) as e:
            header, payload = {"error": f"{type(e).__name__}: {e}"}, b""
        try:
            send_message(link, header, payload)
        except OSError:
            return False
        return True


def main() -> None:
    """Serve one twin over the socket whose number is the first argument."""
    link = socket.socket(fileno=int(sys.argv[1]))
    link.settimeout(PATIENCE_S)
    options = TwinOptions(**Inbox(link).receive()[0])
    twin = Twin(options)
    try:
        send_message(link, {"ports": twin.server.paths, "options": json.dumps(asdict(options))})
        twin.serve(link)
    except BrokenPipeError:
        pass  # the program was ended while this arm was built
    finally:
        twin.world.close()
        twin.server.close()


if __name__ == "__main__":
    main()
