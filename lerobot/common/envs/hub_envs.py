"""Environments of LeRobot 0.4 whose code lies elsewhere: on the hub, or in the packages of a benchmark."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot.common.constants import ACTION, OBS_IMAGE, OBS_IMAGES, OBS_STATE
from lerobot.common.envs.configs import EnvConfig
from lerobot.common.utils.hub import find_file
from lerobot.configs.types import FeatureType

ENV_FILE = "env.py"


@dataclass
class HubEnvConfig(EnvConfig):
    """An environment that `hub_path` (`owner/name[@revision][:file]`, or a folder) makes by its own code."""

    runs_here = False

    hub_path: str | None = None

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return {}


@EnvConfig.register_subclass("isaaclab_arena")
@dataclass
class IsaaclabArenaEnv(HubEnvConfig):
    """NVIDIA's IsaacLab Arena. `state_keys` and `camera_keys` are names separated by commas."""

    hub_path: str = "nvidia/isaaclab-arena-envs"
    task: str | None = "Reach out to the microwave and open it."
    episode_length: int = 300
    num_envs: int = 1
    embodiment: str | None = "gr1_pink"
    object: str | None = "power_drill"
    mimic: bool = False
    teleop_device: str | None = None
    seed: int | None = 42
    device: str | None = "cuda:0"
    disable_fabric: bool = False
    enable_cameras: bool = False
    headless: bool = False
    enable_pinocchio: bool = True
    environment: str | None = "gr1_microwave"
    state_dim: int = 54
    action_dim: int = 36
    camera_height: int = 512
    camera_width: int = 512
    video: bool = False
    video_length: int = 100
    video_interval: int = 200
    state_keys: str = "robot_joint_pos"
    camera_keys: str | None = None
    kwargs: dict[str, Any] | None = None

    def __post_init__(self):
        self._add(ACTION, FeatureType.ACTION, (self.action_dim,), ACTION)
        self._add(OBS_STATE, FeatureType.STATE, (self.state_dim,), OBS_STATE)
        for camera in split_names(self.camera_keys) if self.enable_cameras else ():
            shape = (self.camera_height, self.camera_width, 3)
            self._add(camera, FeatureType.VISUAL, shape, f"{OBS_IMAGES}.{camera}")


@EnvConfig.register_subclass("metaworld")
@dataclass
class MetaworldEnv(EnvConfig):
    """The MetaWorld benchmark."""

    runs_here = False

    task: str = "metaworld-push-v2"
    fps: int = 80
    episode_length: int = 400
    obs_type: str = "pixels_agent_pos"  # or "pixels"
    render_mode: str = "rgb_array"
    multitask_eval: bool = True

    def __post_init__(self):
        if self.obs_type not in ("pixels", "pixels_agent_pos"):
            raise ValueError(f"Unsupported obs_type: --env.obs_type={self.obs_type}; pixels or pixels_agent_pos.")
        self._add("action", FeatureType.ACTION, (4,), ACTION)
        if self.obs_type == "pixels":
            self._add("top", FeatureType.VISUAL, (480, 480, 3), OBS_IMAGE)
        else:
            self._add("agent_pos", FeatureType.STATE, (4,), OBS_STATE)
            self._add("pixels/top", FeatureType.VISUAL, (480, 480, 3), OBS_IMAGE)

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return {"obs_type": self.obs_type, "render_mode": self.render_mode}


def split_names(text: str | None) -> tuple[str, ...]:
    """The names in a list separated by commas."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def make_hub_env(
    where: str, n_envs: int, use_async_envs: bool, trust_remote_code: bool, cache_dir: str | None = None
) -> dict[str, dict[int, Any]]:
    """What `make_env(n_envs, use_async_envs)` of the file `env.py` of a hub repository or folder gives, by group and
    task; a bare environment becomes `{name: {0: environment}}`.

    Raises RuntimeError without `trust_remote_code`, since this runs that file, and FileNotFoundError.
    """
    repository, _, filename = where.partition(":")
    repository, _, revision = repository.partition("@")
    if not trust_remote_code:
        raise RuntimeError(
            f"Refusing to execute remote code from the Hub for '{repository}': '{filename or ENV_FILE}' there may do "
            "anything. If you trust it, call make_env(..., trust_remote_code=True), best with a fixed revision: "
            "'owner/name@COMMIT:env.py'."
        )
    file = find_file(repository, filename or ENV_FILE, revision=revision or None, cache_dir=cache_dir)
    make = getattr(_run_file(file), "make_env", None)
    if make is None:
        raise AttributeError(f"{file} has no function make_env(n_envs, use_async_envs).")
    made = make(n_envs=n_envs, use_async_envs=use_async_envs)
    if isinstance(made, Mapping):
        return {suite: dict(tasks) for suite, tasks in made.items()}
    return {repository.rpartition("/")[2]: {0: made}}


def _run_file(file: Path):
    spec = importlib.util.spec_from_file_location(f"hub_env_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
