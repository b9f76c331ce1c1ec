"""The twin's joints driven by simulated servos: goals in steps become torques, angles become steps."""

from __future__ import annotations

import numpy as np

from lerobot.common.envs.koch_sim.arm import JOINT_NAMES, SERVOS
from lerobot.common.envs.koch_sim.scene import FPS
from lerobot.common.envs.koch_sim.world import KochWorld
from lerobot.common.robot_devices.motors.control_table import HALF_TURN, RESOLUTION
from lerobot.common.robot_devices.simulation.presets import CALIBRATIONS
from lerobot.common.robot_devices.simulation.servo import Servo

FOLLOWER_MODELS = ("xl430-w250", "xl430-w250", "xl330-m288", "xl330-m288", "xl330-m288", "xl330-m288")
LEADER_MODEL = "xl330-m077"
# The twin's gains are those of the arm as the preset sets it up: the elbow's P is 1500, the others' the factory's.
ELBOW_P = 1500
TORQUE_PER_AMPERE = 0.52 / 1.47  # N m, XL330-M288 at stall
# N m at which a servo stalls: the motor's, or the twin's where that is stronger.
STALL = np.maximum([1.5, 1.5, 0.52, 0.52, 0.52, 0.52], [servo.torque for servo in SERVOS])


class StepsOfAngles:
    """Between degrees and steps of each servo, as its mounting (drive mode and homing offset) has it."""

    def __init__(self, preset: str):
        drive_mode, homing_offset = CALIBRATIONS[preset]
        self._sign = np.where(drive_mode, -1.0, 1.0)
        self._offset = np.array(homing_offset, dtype=np.float64)

    def steps(self, degrees) -> np.ndarray:
        """Shaft steps, float64 (6,), within the turn that the calibration calls zero."""
        return self._sign * (np.asarray(degrees) * HALF_TURN / 180.0 - self._offset)

    def degrees(self, steps) -> np.ndarray:
        """The inverse."""
        return (self._sign * np.asarray(steps) + self._offset) * 180.0 / HALF_TURN


class TwinFollower:
    """Six servos on the joints of a `KochWorld`; `disturbance` (radians) shakes what the arm executes.

    With `overload` a servo that presses against something for two seconds shuts down.
    """

    def __init__(self, world: KochWorld, preset: str, disturbance: float = 0.0, overload: bool = True):
        self.world, self.mounting = world, StepsOfAngles(preset)
        self.servos = [Servo(index + 1, model) for index, model in enumerate(FOLLOWER_MODELS)]
        if not overload:
            for servo in self.servos:
                servo.overload_s = np.inf
        self._gain = world.model.actuator_gainprm[:, 0].copy()
        self._bias = world.model.actuator_biasprm.copy()
        self._force = world.model.actuator_forcerange.copy()
        self._true = np.zeros(6)  # steps of the present angles, without slipped turns
        self._path = np.zeros(6)  # where each servo's profile has got to, in steps
        self._disturbance, self._shake = np.rad2deg(disturbance), np.zeros(6)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Take over the world's angles after it was laid out anew; servos that are on hold where they are."""
        turns = self._turns()
        self._true = self.mounting.steps(self.world.joint_angles())
        self._rng, self._shake = np.random.default_rng([seed, 7]), np.zeros(6)
        self._read_gains()
        for servo, steps, turn in zip(self.servos, self._true, turns, strict=True):
            servo.shaft = steps + turn * RESOLUTION
            servo.sense()
            servo.set("Goal_Position", servo.get("Present_Position"))
        self._path = self._true.copy()

    def advance(self) -> None:
        """One frame of 1/30 s."""
        turns = self._turns()
        for index, servo in enumerate(self.servos):
            if servo.torque and not servo.stuck:
                shaft = self._path[index] + turns[index] * RESOLUTION
                self._path[index] = servo.move_towards_goal(shaft, 1 / FPS) - turns[index] * RESOLUTION
            elif not servo.torque:
                self._path[index] = self._true[index]
        self._set_gains()
        self.world.step(self.mounting.degrees(self._path) + self._next_shake())
        self._true = self.mounting.steps(self.world.joint_angles())
        shares = self.world.data.actuator_force / STALL
        for index, servo in enumerate(self.servos):
            servo.shaft = self._true[index] + turns[index] * RESOLUTION
            servo.watch(1 / FPS)
            servo.bear(1.0 if servo.presses else float(shares[index]), 1 / FPS)
            servo.sense()

    def goals(self) -> np.ndarray:
        """The servos' goals as angles in degrees, (6,)."""
        steps = np.array([servo.goal for servo in self.servos])
        return self.mounting.degrees(steps - self._turns() * RESOLUTION)

    def _turns(self) -> np.ndarray:
        """Whole turns by which each servo's count differs from the joint's angle."""
        return np.round((np.array([servo.shaft for servo in self.servos]) - self._true) / RESOLUTION)

    def _next_shake(self) -> np.ndarray:
        # First-order autoregressive with memory 0.9, as the recorded demonstrations have it.
        if self._disturbance:
            self._shake = 0.9 * self._shake + self._rng.normal(0, self._disturbance * np.sqrt(1 - 0.81), 6)
        return self._shake

    def _read_gains(self) -> None:
        scale = self.world.randomizer.gain_scale
        self._gain = np.array([servo.kp for servo in SERVOS]) * scale

    def _set_gains(self) -> None:
        model = self.world.model
        for index, servo in enumerate(self.servos):
            reference = ELBOW_P / 400 if JOINT_NAMES[index] == "elbow_flex" else 1.0
            on = float(servo.torque)
            stiffness = self._gain[index] * servo.stiffness / reference * on
            model.actuator_gainprm[index, 0] = stiffness
            model.actuator_biasprm[index, 1] = -stiffness
            model.actuator_biasprm[index, 2] = self._bias[index, 2] * on
        amperes = abs(self.servos[-1].get("Goal_Current")) / 1000
        most = min(self._force[-1, 1], TORQUE_PER_AMPERE * amperes)
        model.actuator_forcerange[-1] = (-most, most)


class TwinLeader:
    """Six servos that somebody else's hand moves: `pose` sets where they are."""

    def __init__(self, preset: str):
        self.mounting = StepsOfAngles(preset)
        self.servos = [Servo(index + 1, LEADER_MODEL) for index in range(6)]
        self._true = np.array([servo.shaft for servo in self.servos])

    def pose(self, degrees) -> None:
        """Move every joint of the leader to angles in degrees (6,)."""
        moved = self.mounting.steps(degrees)
        for servo, before, after in zip(self.servos, self._true, moved, strict=True):
            servo.shaft += after - before  # a servo's own count of turns stays as it is
            servo.sense()
        self._true = moved
