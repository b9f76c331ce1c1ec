"""Scripted expert: plans a pick-and-place from the true pose of the named cube, anew when it slips."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np

from lerobot.common.envs.koch_sim.arm import REST_POSE, SERVOS
from lerobot.common.envs.koch_sim.kinematics import OutOfReachError, gripper_side, reach_down
from lerobot.common.envs.koch_sim.scene import CUBE_HALF, FPS, TRAY, TRAY_INNER
from lerobot.common.envs.koch_sim.world import KochWorld, mujoco

STATIC_PAD_FACE = -0.008  # gripper-frame y of the fixed finger's inner face
CLEARANCE = 0.010  # between that face and the cube while descending: half of the open jaw's play
OPEN, RELEASE, SQUEEZE = 50.0, 40.0, 8.0  # jaw angles in degrees
FINGERS_OUT = (-0.017, 0.047)  # gripper-frame y of the outer sides of both fingers when open
FINGER_MARGIN = 0.014  # half a finger's width, and 4 mm
SLIPPED = 0.006  # a cube this far (metres) from where the plan has it is approached anew


@dataclass(frozen=True)
class Style:
    """What differs between demonstrations: factor on the duration of each phase, two heights in metres."""

    tempo: tuple[float, ...] = (1.0,) * 10
    hover: float = 0.050
    lift: float = 0.055

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Style:
        """Durations within 15 %, heights within a centimetre."""
        heights = rng.uniform(-0.01, 0.01, 2) + (cls.hover, cls.lift)
        return cls(tuple(rng.uniform(0.85, 1.15, 10)), *heights)


class KochExpert:
    """Policy-like: `reset(world)` plans, `act(world)` returns the next six targets in degrees.

    A plan holds clean targets, whatever disturbs the arm meanwhile. It is made anew where the cube is not
    where it should be before the jaw closes or after the lift. After the last frame the arm stays at rest.
    """

    def reset(self, world: KochWorld, style: Style | None = None) -> None:
        """Plans from the arm's and the named cube's present pose; raises OutOfReachError."""
        self.style = style or Style()
        self._plan(world, world.joint_angles())

    def act(self, world: KochWorld) -> np.ndarray:
        """The targets of this frame, float64 (6,) in degrees."""
        if self._slipped(world):
            # A cube that was pushed out of reach stays lost: the plan in hand is finished.
            with contextlib.suppress(OutOfReachError):
                self._plan(world, self.plan[self.frame - 1])
        target = self.plan[min(self.frame, len(self.plan) - 1)]
        self.frame += 1
        return target

    @property
    def done(self) -> bool:
        """True once the whole plan has been commanded."""
        return self.frame >= len(self.plan)

    def _plan(self, world: KochWorld, start: np.ndarray) -> None:
        self._cube = world.cube_pose()[:3].copy()
        grasp = choose_grasp(world)
        tray = (np.array([*TRAY, 0.0]), 0.0)
        rise = (np.array([*world.tcp[:2], max(world.tcp[2], 0.065)]), start[4])
        phases = (  # where (point and roll), how far above it, jaw, seconds
            (rise, 0.0, OPEN, 0.6),
            (grasp, self.style.hover, OPEN, 0.9),
            (grasp, 0.0, OPEN, 0.6),
            (grasp, 0.0, SQUEEZE, 0.4),
            (grasp, self.style.lift, SQUEEZE, 0.6),
            (tray, 0.060, SQUEEZE, 1.1),
            (tray, 0.035, SQUEEZE, 0.4),
            (tray, 0.035, RELEASE, 0.3),
            (tray, 0.075, RELEASE, 0.5),
        )
        targets = [reach_down(point + (0, 0, height), roll, jaw) for (point, roll), height, jaw, _ in phases]
        commands = [start, *(pose + gravity_sag(world, pose) for pose in (*targets, np.array(REST_POSE)))]
        seconds = (*(phase[-1] for phase in phases), 1.3)
        counts = [max(1, round(time * tempo * FPS)) for time, tempo in zip(seconds, self.style.tempo, strict=True)]
        legs = zip(commands, commands[1:], counts, strict=False)
        self.plan = np.concatenate([_smooth(first, last, count) for first, last, count in legs])
        self._before_closing, self._after_lift = int(sum(counts[:3])), int(sum(counts[:5]))
        self.frame = 0

    def _slipped(self, world: KochWorld) -> bool:
        position = world.cube_pose()[:3]
        if self.frame == self._before_closing:
            return bool(np.linalg.norm(position - self._cube) > SLIPPED)
        return self.frame == self._after_lift and position[2] < self.style.lift / 2


def choose_grasp(world: KochWorld) -> tuple[np.ndarray, float]:
    """Pinch point (3,) in metres and roll in degrees for the named cube.

    The jaw is squared to two faces, with the fixed finger's clearance beside one of them; of the four rolls
    the one nearest to zero whose open fingers clear tray and other cubes, else the one that clears them most.
    """
    x, y, z, qw, _, _, qz = world.cube_pose()
    point = np.array([x, y, z + 0.001])
    pan = reach_down(point, 0.0, OPEN)[0]
    square = -((np.rad2deg(2 * np.arctan2(qz, qw)) + pan + 45.0) % 90.0 - 45.0)
    best = None
    for roll in sorted((square + turn for turn in (-180, -90, 0, 90, 180) if abs(square + turn) < 160), key=abs):
        side = gripper_side(reach_down(point, roll, OPEN))
        aim = point - (STATIC_PAD_FACE + CUBE_HALF + CLEARANCE) * side
        room = min(_room(world, aim + reach * side) for reach in FINGERS_OUT)
        if best is None or min(room, FINGER_MARGIN) > best[0]:
            best = (min(room, FINGER_MARGIN), aim, roll)
    return best[1:]


def gravity_sag(world: KochWorld, angles) -> np.ndarray:
    """Degrees to add to the command so that the servos' error under gravity leaves the arm at `angles`."""
    scratch = mujoco.MjData(world.model)
    scratch.qpos[:] = world.data.qpos
    scratch.qpos[world.arm_slice] = np.deg2rad(angles)
    mujoco.mj_forward(world.model, scratch)
    torque = scratch.qfrc_bias[world.arm_dofs]
    return np.rad2deg(torque / [servo.kp for servo in SERVOS])


def _room(world: KochWorld, finger: np.ndarray) -> float:
    """Distance in metres on the table from a finger to the tray's outside or the nearest other cube."""
    tray = np.linalg.norm(np.maximum(np.abs(finger[:2] - TRAY) - TRAY_INNER - 0.005, 0))
    others = [world.cube_pose(index)[:2] for index in range(1, world.cube_total)]
    return min([tray, *(np.linalg.norm(finger[:2] - other) - CUBE_HALF * 1.42 for other in others)])


def _smooth(start: np.ndarray, end: np.ndarray, frames: int) -> np.ndarray:
    """Smoothstep from start (left out) to end, (frames, 6)."""
    time = np.arange(1, frames + 1)[:, None] / frames
    return start + (end - start) * (3 - 2 * time) * time**2
