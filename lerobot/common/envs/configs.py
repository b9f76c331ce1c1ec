"""Configuration of each environment: what it is called, what it observes, and the policy's names for that."""

import abc
from dataclasses import dataclass, field
from typing import Any

import draccus

from lerobot.common.constants import ACTION, OBS_ENV_STATE, OBS_IMAGE, OBS_IMAGES, OBS_STATE
from lerobot.configs.types import FeatureType, PolicyFeature


@dataclass
class EnvConfig(draccus.ChoiceRegistry, abc.ABC):
    """Fields that every environment has.

    `features` maps a key of the environment (`pixels/<camera>` for one of several pictures, height x width
    x 3) to its role and shape; `features_map` maps the same keys to the policy's.
    """

    runs_here = True  # not a field: whether `make_env` can build it

    task: str | None = None  # the environment's name inside its package gym_<type>
    fps: int = 30
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=dict)
    max_parallel_tasks: int = 1  # kept for LeRobot 0.4: tasks run one after the other
    disable_env_checker: bool = True

    @property
    def package_name(self) -> str:
        """The package that registers the environment with gymnasium."""
        return f"gym_{self.type}"

    @property
    def gym_id(self) -> str:
        """What `gymnasium.make` is asked for."""
        return f"{self.package_name}/{self.task}"

    @property
    def type(self) -> str:
        """The registered name, for example `koch`."""
        return self.get_choice_name(type(self))

    @property
    @abc.abstractmethod
    def gym_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of `gymnasium.make`."""

    def _add(self, key: str, role: FeatureType, shape: tuple[int, ...], policy_key: str) -> None:
        # What a configuration file or the command line says about a key wins.
        self.features.setdefault(key, PolicyFeature(role, shape))
        self.features_map.setdefault(key, policy_key)

    def _make_kwargs(self, **more: Any) -> dict[str, Any]:
        return {
            "obs_type": self.obs_type,
            "render_mode": self.render_mode,
            "max_episode_steps": self.episode_length,
            **more,
        }


@EnvConfig.register_subclass("koch")
@dataclass
class KochEnv(EnvConfig):
    """The simulated Koch arm: KochPickPlace-v0, KochPickPlaceColor-v0 or KochPickPlaceState-v0."""

    task: str = "KochPickPlace-v0"
    fps: int = 30
    episode_length: int = 450
    obs_type: str = "pixels_agent_pos"  # or "pixels", "state"
    render_mode: str = "rgb_array"
    units: str = "legacy"  # or "deg_percent", "normalized"
    cameras: list[str] = field(default_factory=lambda: ["laptop", "phone"])  # also "side", "top"
    observation_height: int = 480
    observation_width: int = 640
    randomization: str = "none"  # light or full: lights, colours, camera poses, friction, masses, servo gains

    def __post_init__(self):
        if self.task.startswith("KochPickPlaceState"):
            self.obs_type = "state"
        self._add("action", FeatureType.ACTION, (6,), ACTION)
        if self.obs_type != "pixels":
            self._add("agent_pos", FeatureType.STATE, (6,), OBS_STATE)
        if self.obs_type == "state":
            self._add("environment_state", FeatureType.ENV, (9,), OBS_ENV_STATE)
            return
        shape = (self.observation_height, self.observation_width, 3)
        for camera in self.cameras:
            self._add(f"pixels/{camera}", FeatureType.VISUAL, shape, f"{OBS_IMAGES}.{camera}")

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return self._make_kwargs(
            units=self.units,
            cameras=tuple(self.cameras),
            observation_height=self.observation_height,
            observation_width=self.observation_width,
            randomization=self.randomization,
        )


@EnvConfig.register_subclass("aloha")
@dataclass
class AlohaEnv(EnvConfig):
    """Two ViperX arms (package gym-aloha)."""

    task: str = "AlohaInsertion-v0"
    fps: int = 50
    episode_length: int = 400
    obs_type: str = "pixels_agent_pos"  # or "pixels"
    render_mode: str = "rgb_array"
    observation_height: int = 480
    observation_width: int = 640

    def __post_init__(self):
        shape = (self.observation_height, self.observation_width, 3)
        self._add("action", FeatureType.ACTION, (14,), ACTION)
        if self.obs_type == "pixels":
            self._add("top", FeatureType.VISUAL, shape, f"{OBS_IMAGE}.top")
        else:
            self._add("agent_pos", FeatureType.STATE, (14,), OBS_STATE)
            self._add("pixels/top", FeatureType.VISUAL, shape, f"{OBS_IMAGES}.top")

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return self._make_kwargs()


@EnvConfig.register_subclass("pusht")
@dataclass
class PushtEnv(EnvConfig):
    """Push a T-shaped block to its target (package gym-pusht)."""

    task: str = "PushT-v0"
    fps: int = 10
    episode_length: int = 300
    obs_type: str = "pixels_agent_pos"  # or "environment_state_agent_pos"
    render_mode: str = "rgb_array"
    visualization_width: int = 384
    visualization_height: int = 384
    observation_height: int = 384  # of the policy's picture: 384 stands for the environment's own, 96
    observation_width: int = 384

    def __post_init__(self):
        self._add("action", FeatureType.ACTION, (2,), ACTION)
        self._add("agent_pos", FeatureType.STATE, (2,), OBS_STATE)
        if self.obs_type == "environment_state_agent_pos":
            self._add("environment_state", FeatureType.ENV, (16,), OBS_ENV_STATE)
        else:
            shape = (self.observation_height, self.observation_width, 3)
            self._add("pixels", FeatureType.VISUAL, shape, OBS_IMAGE)

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        size = {"observation_width": self.observation_width, "observation_height": self.observation_height}
        # LeRobot declares 384x384 and lets gym-pusht draw its own 96x96, as published checkpoints have it.
        drawn = {} if set(size.values()) == {384} else size
        return self._make_kwargs(
            visualization_width=self.visualization_width, visualization_height=self.visualization_height, **drawn
        )


@EnvConfig.register_subclass("xarm")
@dataclass
class XarmEnv(EnvConfig):
    """Lift a cube with an xArm (package gym-xarm)."""

    task: str = "XarmLift-v0"
    fps: int = 15
    episode_length: int = 200
    obs_type: str = "pixels_agent_pos"
    render_mode: str = "rgb_array"
    visualization_width: int = 384
    visualization_height: int = 384

    def __post_init__(self):
        self._add("action", FeatureType.ACTION, (4,), ACTION)
        self._add("agent_pos", FeatureType.STATE, (4,), OBS_STATE)
        self._add("pixels", FeatureType.VISUAL, (84, 84, 3), OBS_IMAGE)

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return self._make_kwargs(
            visualization_width=self.visualization_width, visualization_height=self.visualization_height
        )
