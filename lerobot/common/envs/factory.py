"""Builds vectorised environments from their configuration."""

from __future__ import annotations

import functools
import importlib

from lerobot.common.envs.configs import EnvConfig
from lerobot.common.envs.koch_sim.gl import NO_GL_MESSAGE, RenderingError, select_gl


def make_env_config(env_type: str, **kwargs) -> EnvConfig:
    """The configuration registered as `env_type`; raises ValueError for an unknown one."""
    choices = EnvConfig.get_known_choices()
    if env_type not in choices:
        raise ValueError(f"--env.type={env_type}: expected one of {', '.join(sorted(choices))}")
    return choices[env_type](**kwargs)


def make_env(cfg: EnvConfig, n_envs: int = 1, use_async_envs: bool = False):
    """A gymnasium vector environment of `n_envs` copies, each in its own process with `use_async_envs`.

    An environment that has ended starts anew in the same step (gymnasium 1.0, which cannot, in the next one).
    Raises ValueError for n_envs < 1 or an environment that does not run here, and ModuleNotFoundError naming the extra.
    """
    if n_envs < 1:
        raise ValueError(f"n_envs={n_envs}: at least one environment is needed (--eval.batch_size)")
    if not cfg.runs_here:
        raise ValueError(f"--env.type={cfg.type} is read from files, but does not run here; use --env.type=koch.")
    package = cfg.package_name
    on_mujoco = cfg.type in ("aloha", "xarm")  # koch sees to its drawing itself
    gl = select_gl() if on_mujoco else ""  # before mujoco is imported
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        extra = "sim" if cfg.type == "koch" else cfg.type
        raise ModuleNotFoundError(
            f'--env.type={cfg.type} needs {error.name}: pip install -e ".[{extra}]"', name=error.name
        ) from error
    from gymnasium import vector

    if on_mujoco:
        _require_drawing(cfg, gl)
    _check_request(cfg)
    options = {}
    if hasattr(vector, "AutoresetMode"):
        options["autoreset_mode"] = vector.AutoresetMode.SAME_STEP
    make_vector = vector.AsyncVectorEnv if use_async_envs else vector.SyncVectorEnv
    make_one = functools.partial(_make_one, package, cfg.gym_id, cfg.disable_env_checker, cfg.gym_kwargs)
    return make_vector([make_one] * n_envs, **options)


def _require_drawing(cfg: EnvConfig, gl: str) -> None:
    from gymnasium import __version__ as gymnasium

    if gl == "disable":
        raise RenderingError(NO_GL_MESSAGE.format(""))
    if cfg.type == "xarm" and int(gymnasium.split(".")[0]) >= 1:
        raise ValueError(
            f"--env.type=xarm: gym-xarm cannot draw with gymnasium {gymnasium}, expected one below 1.0, in a Python "
            'environment of its own: pip install -e ".[xarm]"'
        )


def _check_request(cfg: EnvConfig) -> None:
    import gymnasium as gym

    try:
        gym.spec(cfg.gym_id)
    except gym.error.Error as error:
        known = sorted(name.split("/")[1] for name in gym.registry if name.startswith(f"{cfg.package_name}/"))
        raise ValueError(f"--env.task={cfg.task}: {cfg.package_name} has {', '.join(known)}.") from error
    for name in ("episode_length", "observation_height", "observation_width"):
        if (value := getattr(cfg, name, 1)) < 1:
            raise ValueError(f"--env.{name}={value}: expected at least 1.")


def _make_one(package: str, gym_id: str, disable_env_checker: bool, kwargs: dict):
    # Imported here for worker processes that do not inherit the parent's registry.
    importlib.import_module(package)
    import gymnasium as gym

    from lerobot.common.envs.task import TaskSentence

    return TaskSentence(gym.make(gym_id, disable_env_checker=disable_env_checker, **kwargs))
