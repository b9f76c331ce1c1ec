"""The twin as a gymnasium environment (registered by the package `gym_koch`)."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from lerobot.common.envs.koch_sim.scene import FPS, TRAY
from lerobot.common.envs.koch_sim.units import HIGH, LOW, UNITS, from_degrees, to_degrees
from lerobot.common.envs.koch_sim.world import KochWorld, camera_names

OBS_TYPES = ("pixels_agent_pos", "pixels", "state")
CONTROL_MODES = ("absolute",)  # joint targets


class KochEnv(gym.Env):
    """Pick the named cube and place it in the tray.

    Observation: `pixels` {camera: uint8 (height, width, 3)}, `agent_pos` float32 (6,) in `units`; with
    obs_type "state" `agent_pos` and `environment_state` float32 (9,): cube position, quaternion, tray x, y.
    Action: float32 (6,), absolute joint targets in `units`, held for one frame of 1/30 s; values outside the
    joint range are clipped and counted. Reward 1 on the frame of success, which ends the episode.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": FPS}

    def __init__(
        self,
        obs_type: str = "pixels_agent_pos",
        render_mode: str | None = "rgb_array",
        scene: str = "A",
        units: str = "legacy",
        cameras: tuple[str, ...] = ("laptop", "phone"),
        observation_width: int = 640,
        observation_height: int = 480,
        randomization: str = "none",
        control_mode: str = "absolute",
        shadows: bool = False,
    ):
        _one_of("obs_type", obs_type, OBS_TYPES)
        _one_of("control_mode", control_mode, CONTROL_MODES)
        _one_of("units", units, UNITS)
        for camera in cameras:
            _one_of("cameras", camera, camera_names())
        self.obs_type, self.render_mode, self.units, self.cameras = (
            obs_type,
            render_mode,
            units,
            tuple(cameras),
        )
        self.world = KochWorld(scene, observation_width, observation_height, randomization, shadows)
        low, high = (from_degrees(limit, units).astype(np.float32) for limit in (LOW, HIGH))
        self.action_space = spaces.Box(low, high)
        self.observation_space = self._make_observation_space(observation_height, observation_width)
        self.task = "Pick up the cube and place it in the tray."
        # False: the pictures of the next observations are not looked at and repeat the last ones drawn.
        self.pixels_needed = True
        self._pixels: dict[str, np.ndarray] = {}

    @property
    def task_description(self) -> str:
        """The sentence of the present episode, which names the cube."""
        return self.task

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Lays out the episode of `seed`.

        Options: `cube_pose` (x, y, yaw) or as `info` gives it, `qpos` (6,) degrees, `randomization` from now on.
        """
        super().reset(seed=seed)
        self._seed = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        options = options or {}
        self.world.reset(self._seed, **{name: options.get(name) for name in ("cube_pose", "qpos", "randomization")})
        self.task = self.world.task
        self._clipped = self._self_collisions = self._limit_hits = 0
        self._pixels = {}  # never the last episode's
        return self._observation(), self._info()

    def step(self, action):
        """One control frame; raises ValueError on an action that is not six finite numbers."""
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (6,) or not np.isfinite(action).all():
            raise ValueError(f"expected an action of six finite joint targets, got {action}")
        target = to_degrees(action, self.units)
        # Half a hundredth of a degree: float32 limits do not count as clipped.
        self._clipped += int(((target < LOW - 0.005) | (target > HIGH + 0.005)).any())
        self.world.step(target)
        self._self_collisions += self.world.touches_itself
        self._limit_hits += self.world.at_joint_limit
        success = self.world.success
        return self._observation(), float(success), success, False, self._info()

    def render(self) -> np.ndarray | None:
        """The first camera's picture, uint8 (height, width, 3); None without a render mode."""
        return None if self.render_mode is None else self.world.render(self.cameras[0]).copy()

    def close(self) -> None:
        self.world.close()

    def _observation(self) -> dict:
        agent_pos = from_degrees(self.world.joint_angles(), self.units).astype(np.float32)
        if self.obs_type == "state":
            state = np.concatenate([self.world.cube_pose(), TRAY]).astype(np.float32)
            return {"agent_pos": agent_pos, "environment_state": state}
        if self.pixels_needed or not self._pixels:
            self._pixels = {camera: self.world.render(camera) for camera in self.cameras}
        pixels = {camera: picture.copy() for camera, picture in self._pixels.items()}
        return {"pixels": pixels} if self.obs_type == "pixels" else {"pixels": pixels, "agent_pos": agent_pos}

    def _info(self) -> dict:
        return {
            "is_success": self.world.success,
            "seed": self._seed,
            "cube_pose": self.world.cube_pose().copy(),
            "stage": self.world.stage,
            "clipped": self._clipped,
            "cube_off_table": self.world.cube_off_table,
            "self_collisions": self._self_collisions,  # frames so far
            "joint_limit_hits": self._limit_hits,
        }

    def _make_observation_space(self, height: int, width: int) -> spaces.Dict:
        unbounded = {"low": -np.inf, "high": np.inf, "dtype": np.float32}
        agent_pos = spaces.Box(shape=(6,), **unbounded)
        if self.obs_type == "state":
            return spaces.Dict({"agent_pos": agent_pos, "environment_state": spaces.Box(shape=(9,), **unbounded)})
        picture = spaces.Box(0, 255, (height, width, 3), np.uint8)
        pixels = {"pixels": spaces.Dict(dict.fromkeys(self.cameras, picture))}
        return spaces.Dict(pixels if self.obs_type == "pixels" else {**pixels, "agent_pos": agent_pos})


def _one_of(name: str, value: str, choices) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(choices)}")
