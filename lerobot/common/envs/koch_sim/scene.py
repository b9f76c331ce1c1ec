"""Table, tray, coloured cubes and cameras around the arm, and the layouts that an episode's seed draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lerobot.common.envs.koch_sim.arm import actuators_xml, arm_xml, contact_xml, numbers

COLOURS = {
    "red": (0.90, 0.06, 0.05),
    "green": (0.05, 0.62, 0.12),
    "blue": (0.06, 0.16, 0.90),
    "yellow": (0.98, 0.85, 0.05),
    "purple": (0.62, 0.05, 0.72),
    "cyan": (0.02, 0.72, 0.82),
}
TASK = "Pick up the {colour} cube and place it in the tray."
CUBE_COUNTS = {"A": (1, 1), "B": (2, 3)}  # fewest and most cubes on the table
CUBE_HALF = 0.0105
CUBE_MASS = 0.015
CUBE_GAP = 0.055  # between centres: room for the open jaw
PAN_AXIS = (-0.012, 0.0)
SPAWN_RADIUS = (0.12, 0.18)
SPAWN_ANGLE = (-50.0, 35.0)  # degrees about the pan axis, positive to the left
TRAY = (0.12, 0.13)
TRAY_INNER = 0.043  # half width
TRAY_FLOOR = 0.004
TRAY_WALL_HEIGHT = 0.02
TRAY_CLEARANCE = 0.075
TABLE_HALF = 0.45  # a cube beyond it counts as lost
PARKED = (3.0, 0.0)  # where the cubes that an episode does not use stand, unseen

CUBE_CONTACT = 'condim="4" friction="1.5 0.02 0.0005" solref="0.004 1" solimp="0.95 0.99 0.001"'
TIMESTEP = 1 / 480
SUBSTEPS = 16
FPS = 30


@dataclass(frozen=True)
class Camera:
    """A fixed pin-hole camera (metres, vertical field of view in degrees) in the frame of `body`."""

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    fovy: float
    body: str = "world"


CAMERAS = {
    "laptop": Camera((0.46, 0.03, 0.30), (0.09, 0.03, 0.05), 38),
    "phone": Camera((-0.03, 0.0, 0.07), (0.066, 0.0, 0.0), 70, "gripper"),
    "side": Camera((0.11, -0.34, 0.24), (0.10, 0.03, 0.06), 48),
    "top": Camera((0.119, 0.0, 0.55), (0.12, 0.0, 0.0), 45),
}


@dataclass(frozen=True)
class Layout:
    """What one episode puts on the table: per cube a colour and (x, y, yaw); the first is the one to move."""

    colours: tuple[str, ...]
    poses: tuple[tuple[float, float, float], ...]

    @property
    def task(self) -> str:
        return TASK.format(colour=self.colours[0])


def draw_layout(scene: str, seed: int) -> Layout:
    """The layout of scene "A" (one cube) or "B" (two or three of different colours) of `seed`."""
    rng = np.random.default_rng(seed)
    fewest, most = CUBE_COUNTS[scene]
    count = int(rng.integers(fewest, most + 1))
    colours = tuple(str(name) for name in rng.permutation(list(COLOURS))[:count])
    while True:
        poses = [_draw_pose(rng) for _ in range(count)]
        spots = np.array([pose[:2] for pose in poses])
        gaps = np.linalg.norm(spots[:, None] - spots[None], axis=-1)[np.triu_indices(count, 1)]
        clear = np.linalg.norm(spots - TRAY, axis=-1).min() >= TRAY_CLEARANCE
        if clear and (gaps >= CUBE_GAP).all():
            return Layout(colours, tuple(poses))


def scene_xml(cube_count: int) -> str:
    """MJCF of arm, table, tray, cameras and `cube_count` free cubes `cube0`, `cube1`, ..."""
    wrist = "".join(_camera_xml(name, camera) for name, camera in CAMERAS.items() if camera.body == "gripper")
    fixed = "".join(_camera_xml(name, camera) for name, camera in CAMERAS.items() if camera.body == "world")
    cubes = "".join(_cube_xml(index) for index in range(cube_count))
    return f"""<mujoco model="koch">
<compiler angle="degree" autolimits="true"/>
<option timestep="{TIMESTEP:.12g}" integrator="implicitfast" cone="elliptic" impratio="10"/>
<visual>
  <global offwidth="1280" offheight="960"/>
  <quality offsamples="0" shadowsize="0"/>
  <headlight ambient="0.5 0.5 0.5" diffuse="0 0 0" specular="0 0 0"/>
  <map znear="0.01" zfar="10"/>
</visual>
<worldbody>
  <light pos="0.3 -0.4 0.9" dir="-0.25 0.45 -0.9" directional="true" castshadow="false"
    diffuse="0.55 0.55 0.55" specular="0 0 0"/>
  <geom name="table" type="plane" size="2 2 0.1" rgba="0.62 0.58 0.52 1"/>
  {_tray_xml()}{fixed}{cubes}{arm_xml(wrist)}
</worldbody>
{contact_xml()}{actuators_xml()}
</mujoco>"""


def _draw_pose(rng: np.random.Generator) -> tuple[float, float, float]:
    radius = rng.uniform(*SPAWN_RADIUS)
    angle = np.deg2rad(rng.uniform(*SPAWN_ANGLE))
    yaw = rng.uniform(-np.pi, np.pi)
    return PAN_AXIS[0] + radius * np.cos(angle), PAN_AXIS[1] + radius * np.sin(angle), yaw


def _cube_xml(index: int) -> str:
    return (
        f'<body name="cube{index}"><freejoint name="cube{index}"/>'
        f'<geom name="cube{index}" type="box" size="{CUBE_HALF} {CUBE_HALF} {CUBE_HALF}" '
        f'mass="{CUBE_MASS}" {CUBE_CONTACT}/></body>'
    )


def _tray_xml() -> str:
    thick, inner, height = 0.0025, TRAY_INNER, TRAY_WALL_HEIGHT / 2
    outer = inner + 2 * thick
    boxes = [((outer, outer, TRAY_FLOOR / 2), (0, 0, TRAY_FLOOR / 2))]
    for side in (-1, 1):
        boxes.append(((thick, outer, height), (side * (inner + thick), 0, height)))
        boxes.append(((inner, thick, height), (0, side * (inner + thick), height)))
    geoms = "".join(
        f'<geom type="box" size="{numbers(half)}" pos="{numbers(centre)}" rgba="0.22 0.22 0.25 1"/>'
        for half, centre in boxes
    )
    return f'<body name="tray" pos="{numbers((*TRAY, 0))}">{geoms}</body>'


def _camera_xml(name: str, camera: Camera) -> str:
    back = np.subtract(camera.position, camera.target)
    back /= np.linalg.norm(back)
    right = np.cross((0, 0, 1), back)
    right /= np.linalg.norm(right)
    axes = numbers((*right, *np.cross(back, right)))
    where = numbers(camera.position)
    return f'<camera name="{name}" pos="{where}" xyaxes="{axes}" fovy="{camera.fovy}"/>'
