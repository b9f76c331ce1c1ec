"""A simulated Koch pair behind two serial devices, for everything that talks to a real one; it can be broken at will.

python lerobot/scripts/koch_sim_bus.py --calibration_dir=outputs/sim_pair
python lerobot/scripts/koch_sim_bus.py --broken follower.wrist_flex.vanish leader.gripper.volts=3.2 --lost=0.01

It prints the flags that name the two devices, for `control_robot.py --robot.type=koch`. Servos only: nothing falls,
collides or is seen. While it runs, lines typed here do what a hand does: `zero`, `rotated`, `rest` put arms whose
torque is off into a pose (for calibrating), `leader.gripper.slip=1` breaks something, `wave` lets the leader move.
"""

from __future__ import annotations

import argparse
import math
import os
import select
import sys
import time
from pathlib import Path

from lerobot.common.robot_devices.motors.calibration import DEGREE, save_calibration
from lerobot.common.robot_devices.motors.control_table import RESOLUTION, STEPS_PER_DEGREE
from lerobot.common.robot_devices.robots.configs import FOLLOWER_MODELS, JOINTS, LEADER_MODELS
from lerobot.common.robot_devices.simulation.faults import SERVO_FAULTS, Faults, inject
from lerobot.common.robot_devices.simulation.presets import HAND_POSES
from lerobot.common.robot_devices.simulation.pty_server import ServoThread
from lerobot.common.robot_devices.simulation.servo import Servo
from lerobot.common.utils.utils import run_command

ARMS = ("follower", "leader")
WAVE_DEGREES, WAVE_S = 20.0, 6.0  # how far and how slowly a waving leader goes
TICK_S = 0.02
CHUNK = 4096


class SimulatedPair:
    """The servos of both arms at rest, behind pseudo-terminals."""

    def __init__(self, faults: Faults | None = None):
        self._servos = {
            arm: [Servo(index + 1, model) for index, model in enumerate(models)]
            for arm, models in zip(ARMS, (FOLLOWER_MODELS, LEADER_MODELS), strict=True)
        }
        self.pose("rest")
        self.thread = ServoThread(list(self._servos.values()), faults)
        self.ports = dict(zip(ARMS, self.thread.paths, strict=True))
        self._waving_since: float | None = None

    def close(self) -> None:
        """Remove the devices."""
        self.thread.close()

    def command(self, line: str) -> None:
        """Do what a typed line says; ValueError for one that says nothing known."""
        word = line.strip()
        if word in HAND_POSES:
            with self.thread.lock:
                self.pose(word)
        elif word in ("wave", "still"):
            self._waving_since = time.monotonic() if word == "wave" else None
        else:
            with self.thread.lock:
                self.break_(word)

    def pose(self, name: str) -> None:
        """Put every servo whose torque is off where the pose has it."""
        for chain in self._servos.values():
            for servo, degrees in zip(chain, HAND_POSES[name], strict=True):
                if not servo.torque:
                    servo.shaft = _steps(degrees)
                    servo.sense()

    def break_(self, text: str) -> None:
        """`arm.joint.fault` or `arm.joint.fault=number`."""
        name, _, number = text.partition("=")
        arm, _, rest = name.partition(".")
        joint, _, fault = rest.partition(".")
        if arm not in ARMS or joint not in JOINTS or fault not in SERVO_FAULTS:
            raise ValueError(
                f"'{text}': expected ARM.JOINT.FAULT or ARM.JOINT.FAULT=NUMBER, the arms being {', '.join(ARMS)}, the "
                f"joints {', '.join(JOINTS)}, the faults {', '.join(SERVO_FAULTS)}."
            )
        inject(self._servos[arm][JOINTS.index(joint)], fault, float(number or 0))

    def tick(self) -> None:
        """A moment passes: the leader waves, if it was told to."""
        if self._waving_since is None:
            return
        lift = math.sin((time.monotonic() - self._waving_since) * 2 * math.pi / WAVE_S) * WAVE_DEGREES
        with self.thread.lock:
            for servo, degrees in zip(self._servos["leader"], HAND_POSES["rest"], strict=True):
                if not servo.torque:  # the gripper is held by its spring
                    servo.shaft = _steps(degrees - WAVE_DEGREES + lift)
                    servo.sense()


def _steps(degrees: float) -> float:
    return RESOLUTION / 2 + degrees * STEPS_PER_DEGREE


def write_calibrations(folder: Path) -> None:
    """The calibration of both arms as they are mounted here."""
    ends = {"start_pos": [RESOLUTION // 2] * 6, "end_pos": [RESOLUTION * 3 // 4] * 6}
    plain = {"homing_offset": [-RESOLUTION // 2] * 6, "drive_mode": [0] * 6, **ends}
    for arm in ARMS:
        calibration = {**plain, "calib_mode": [DEGREE] * 6, "motor_names": list(JOINTS)}
        save_calibration(calibration, folder / f"main_{arm}.json")


def serve(pair: SimulatedPair, seconds: float | None) -> None:
    """Obey typed lines until the time is over or Ctrl-C."""
    end = math.inf if seconds is None else time.monotonic() + seconds
    keyboard, typed = sys.stdin.fileno(), b""
    listening = True
    while time.monotonic() < end:
        pair.tick()
        if not select.select([keyboard] if listening else [], [], [], TICK_S)[0]:
            continue
        data = os.read(keyboard, CHUNK)
        listening = bool(data)
        *lines, typed = (typed + data).split(b"\n")
        for line in filter(bytes.strip, lines):
            try:
                pair.command(line.decode(errors="replace"))
            except ValueError as e:
                print(e, flush=True)


def main() -> None:
    """The command."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument(
        "--broken", nargs="*", default=[], metavar="ARM.JOINT.FAULT[=NUMBER]", help="servos with a fault"
    )
    for name in ("lost", "late", "corrupt", "duplicate"):
        parser.add_argument(f"--{name}", type=float, default=0.0, help=f"share of packets that are {name}")
    parser.add_argument("--calibration_dir", type=Path, help="write the pair's calibration files here")
    parser.add_argument("--wave", action="store_true", help="the leader moves slowly up and down")
    parser.add_argument("--seconds", type=float, help="end by itself")
    args = parser.parse_args()

    def run() -> None:
        pair = SimulatedPair(Faults(args.lost, args.late, args.corrupt, args.duplicate))
        try:
            for text in (*args.broken, *(["wave"] if args.wave else [])):
                pair.command(text)
            flags = " ".join(f"--robot.{arm}_port={pair.ports[arm]}" for arm in ARMS)
            if args.calibration_dir is not None:
                write_calibrations(args.calibration_dir)
                flags += f" --robot.calibration_dir={args.calibration_dir}"
            print(f"--robot.type=koch {flags} --robot.cameras='{{}}'", flush=True)
            serve(pair, args.seconds)
        finally:
            pair.close()

    run_command(run)


if __name__ == "__main__":
    main()
