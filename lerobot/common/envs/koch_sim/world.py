"""The simulated table: physics in control frames of 1/30 s, pictures on demand, and the success rule."""

from __future__ import annotations

import weakref

import numpy as np

from lerobot.common.envs.koch_sim.arm import JOINT_HIGH, JOINT_LOW, JOINT_NAMES, LINKS, REST_POSE
from lerobot.common.envs.koch_sim.gl import check_gl, import_mujoco
from lerobot.common.envs.koch_sim.randomize import Randomizer
from lerobot.common.envs.koch_sim.scene import (
    CAMERAS,
    COLOURS,
    CUBE_COUNTS,
    CUBE_HALF,
    PARKED,
    SUBSTEPS,
    TABLE_HALF,
    TRAY,
    TRAY_INNER,
    Layout,
    draw_layout,
    scene_xml,
)

mujoco = import_mujoco()

SUCCESS_FRAMES = 10
PADS = ("static_pad", "moving_pad")
AT_LIMIT = 0.05  # degrees
SHADOW_PIXELS = 2048


class KochWorld:
    """One arm, one tray and the cubes of scene "A" or "B".

    Angles are degrees in the order of `arm.JOINT_NAMES`. The same seed and the same targets give the same
    bytes. Pictures are uint8 (height, width, 3), drawn only when asked for, at most once per frame.
    """

    def __init__(
        self,
        scene: str = "A",
        width: int = 640,
        height: int = 480,
        randomization: str = "none",
        shadows: bool = False,
    ):
        self.scene, self.width, self.height, self.shadows = scene, width, height, shadows
        self.cube_total = CUBE_COUNTS[scene][1]
        self.model = mujoco.MjModel.from_xml_string(scene_xml(self.cube_total))
        self.data = mujoco.MjData(self.model)
        self.layout: Layout | None = None
        self.randomizer = Randomizer(self.model, randomization)
        self.frame = 0
        self._renderer = None
        self._pictures: dict[str, np.ndarray] = {}
        self._held = 0
        self._pads = {self.model.geom(name).id for name in PADS}
        self._cubes = [self.model.geom(f"cube{index}").id for index in range(self.cube_total)]
        self._tcp = self.model.site("tcp").id
        arm = [self.model.body(link.name).id for link in LINKS]
        self._arm_geoms = np.isin(self.model.geom_bodyid, arm)
        first = self.model.joint(JOINT_NAMES[0])
        self.arm_slice = slice(first.qposadr[0], first.qposadr[0] + len(JOINT_NAMES))  # in qpos
        self.arm_dofs = slice(first.dofadr[0], first.dofadr[0] + len(JOINT_NAMES))  # in qvel

    # -- time --------------------------------------------------------------------------------------------

    def reset(self, seed: int, cube_pose=None, qpos=None, randomization: str | None = None) -> None:
        """Lays out the episode of `seed`.

        Optional: pose of the named cube, (x, y, yaw) or as `cube_pose` gives it, start angles, and the level of
        randomisation from now on.
        """
        layout = draw_layout(self.scene, seed)
        if cube_pose is not None:
            layout = Layout(layout.colours, (_flat_pose(cube_pose), *layout.poses[1:]))
        self.layout = layout
        self.randomizer.apply(seed, randomization)
        mujoco.mj_resetData(self.model, self.data)
        start = np.deg2rad(REST_POSE if qpos is None else qpos)
        self.data.qpos[self.arm_slice] = start
        self.data.ctrl[:] = start
        for index in range(self.cube_total):
            self._place_cube(index)
        self.frame, self._held = 0, 0
        self._pictures.clear()
        mujoco.mj_forward(self.model, self.data)

    def step(self, target) -> None:
        """Advances one control frame (1/30 s) towards the six target angles, clipped to the joint range."""
        self.data.ctrl[:] = np.deg2rad(np.clip(target, JOINT_LOW, JOINT_HIGH))
        mujoco.mj_step(self.model, self.data, SUBSTEPS)
        # Positions moved after the last contact search; pictures and the success rule need the new ones.
        mujoco.mj_forward(self.model, self.data)
        self.frame += 1
        self._pictures.clear()
        self._held = self._held + 1 if self._placed() else 0

    # -- what an observer sees ---------------------------------------------------------------------------

    def joint_angles(self) -> np.ndarray:
        """The six joint angles in degrees, float64 (6,)."""
        return np.rad2deg(self.data.qpos[self.arm_slice])

    def render(self, camera: str) -> np.ndarray:
        """The picture of one camera, uint8 (height, width, 3); raises RuntimeError without OpenGL."""
        if camera not in self._pictures:
            if self._renderer is None:
                self._renderer = self._open_renderer()
            self._renderer.update_scene(self.data, camera)
            self._pictures[camera] = self._renderer.render()
        return self._pictures[camera]

    def close(self) -> None:
        """Frees the OpenGL context; must run in the thread that rendered."""
        if self._renderer is not None:
            self._free_renderer()
            self._renderer = None

    # -- ground truth ------------------------------------------------------------------------------------

    @property
    def task(self) -> str:
        """The sentence that names the cube to move."""
        return self.layout.task

    @property
    def tcp(self) -> np.ndarray:
        """Pinch point in metres, (3,)."""
        return self.data.site_xpos[self._tcp]

    def cube_pose(self, index: int = 0) -> np.ndarray:
        """Position in metres and quaternion (w, x, y, z) of a cube, (7,); cube 0 is the named one."""
        start = self.model.joint(f"cube{index}").qposadr[0]
        return self.data.qpos[start : start + 7]

    @property
    def success(self) -> bool:
        """True once the named cube has rested in the tray, released, for ten frames."""
        return self._held >= SUCCESS_FRAMES

    @property
    def stage(self) -> str:
        """How far the named cube has come: reach, grasp, lift, over_tray, placed or success."""
        x, y, z = self.cube_pose()[:3]
        over_tray = max(abs(x - TRAY[0]), abs(y - TRAY[1])) < TRAY_INNER
        if self.success:
            return "success"
        if self._placed():
            return "placed"
        if len(self._pads_touching(0)) < 2:
            return "reach"
        if z < 0.03:
            return "grasp"
        return "over_tray" if over_tray else "lift"

    @property
    def cube_off_table(self) -> bool:
        """True when the named cube has left the visible table."""
        return bool(np.abs(self.cube_pose()[:2]).max() > TABLE_HALF)

    @property
    def touches_itself(self) -> bool:
        """True while a part of the arm presses against another one."""
        return bool(self._arm_geoms[self.data.contact.geom].all(axis=1).any())

    @property
    def at_joint_limit(self) -> bool:
        """True while any joint is at the end of its range."""
        angles = self.joint_angles()
        return bool(((angles < np.array(JOINT_LOW) + AT_LIMIT) | (angles > np.array(JOINT_HIGH) - AT_LIMIT)).any())

    def _placed(self) -> bool:
        position = self.cube_pose()[:3]
        speed = self.data.qvel[self.model.joint("cube0").dofadr[0] :][:3]
        return bool(
            np.abs(position[:2] - TRAY).max() < TRAY_INNER
            and position[2] < 0.03
            and np.linalg.norm(speed) < 0.02
            and np.linalg.norm(self.tcp - position) > 0.03
            and not self._pads_touching(0)
        )

    def _pads_touching(self, index: int) -> set[int]:
        pairs = self.data.contact.geom
        touching = pairs[(pairs == self._cubes[index]).any(axis=1)]
        return self._pads & set(touching.ravel().tolist())

    # -- set-up ------------------------------------------------------------------------------------------

    def _place_cube(self, index: int) -> None:
        used = index < len(self.layout.colours)
        x, y, yaw = self.layout.poses[index] if used else (PARKED[0], PARKED[1] + 0.1 * index, 0.0)
        self.cube_pose(index)[:] = (x, y, CUBE_HALF, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
        colour = COLOURS[self.layout.colours[index]] if used else (0, 0, 0)
        self.model.geom_rgba[self._cubes[index]] = (*colour, float(used))

    def _open_renderer(self):
        check_gl(mujoco)
        if self.shadows:
            self.model.vis.quality.shadowsize = SHADOW_PIXELS
            self.model.light_castshadow[:] = True
        renderer = mujoco.Renderer(self.model, self.height, self.width, max_geom=100)
        # Also runs when the interpreter ends, before the OpenGL library's own clean-up makes it fail.
        self._free_renderer = weakref.finalize(self, renderer.close)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = self.shadows
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = False
        return renderer


def _flat_pose(pose) -> tuple[float, float, float]:
    """(x, y, yaw) of a cube on the table, from that or from position and quaternion (w, x, y, z)."""
    values = np.asarray(pose, dtype=np.float64)
    if values.shape not in ((3,), (7,)) or not np.isfinite(values).all():
        raise ValueError(f"cube_pose {values.tolist()}: expected (x, y, yaw), or position and quaternion.")
    if len(values) == 3:
        return tuple(values.tolist())
    x, y, _, w, *_, z = values.tolist()
    return x, y, 2 * float(np.arctan2(z, w))


def camera_names() -> tuple[str, ...]:
    """Every camera that `KochWorld.render` knows."""
    return tuple(CAMERAS)
