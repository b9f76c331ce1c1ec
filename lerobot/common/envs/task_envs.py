"""`lerobot.envs.factory` of LeRobot 0.3.4-0.4.4: environments by group and task, and processors for them."""

from __future__ import annotations

from typing import Any

from lerobot.common.envs import factory
from lerobot.common.envs.configs import EnvConfig
from lerobot.common.envs.factory import make_env_config
from lerobot.common.processor import PolicyProcessorPipeline

__all__ = ["make_env", "make_env_config", "make_env_pre_post_processors"]


def make_env(
    cfg: EnvConfig | str,
    n_envs: int = 1,
    use_async_envs: bool = False,
    hub_cache_dir: str | None = None,
    trust_remote_code: bool = False,
) -> dict[str, dict[int, Any]]:
    """{type: {0: vector environment}}: the environment of `lerobot.common.envs.factory.make_env` as LeRobot 0.4 has it.

    Raises ValueError for the name of an environment on the hub: its code is not run here.
    """
    if isinstance(cfg, str):
        raise ValueError(
            f"make_env('{cfg}'): environments on the hub are code that is not run here. Install the environment's "
            "package and give its configuration, for example make_env_config('koch')."
        )
    return {cfg.type: {0: factory.make_env(cfg, n_envs, use_async_envs)}}


def make_env_pre_post_processors(
    env_cfg: EnvConfig, policy_cfg: Any
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """Pipelines between an environment and a policy's own; empty, since no environment here needs a step."""
    return PolicyProcessorPipeline(steps=[]), PolicyProcessorPipeline(steps=[])
