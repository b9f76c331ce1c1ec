"""`lerobot.envs.factory` of LeRobot 0.3.4-0.4.4: environments by group and task, and processors for them."""

from __future__ import annotations

from typing import Any

from lerobot.common.envs import factory
from lerobot.common.envs.configs import EnvConfig
from lerobot.common.envs.factory import make_env_config
from lerobot.common.envs.hil_serl import LiberoEnv
from lerobot.common.envs.hub_envs import IsaaclabArenaEnv, make_hub_env, split_names
from lerobot.common.processor import IsaaclabArenaProcessorStep, LiberoProcessorStep, PolicyProcessorPipeline

__all__ = ["make_env", "make_env_config", "make_env_pre_post_processors"]


def make_env(
    cfg: EnvConfig | str,
    n_envs: int = 1,
    use_async_envs: bool = False,
    hub_cache_dir: str | None = None,
    trust_remote_code: bool = False,
) -> dict[str, dict[int, Any]]:
    """{type: {0: vector environment}}: the environment of `lerobot.common.envs.factory.make_env` as LeRobot 0.4 has it.

    cfg: a configuration, or a hub id `owner/name[@revision][:file]` (see `make_hub_env`).
    """
    where = cfg if isinstance(cfg, str) else getattr(cfg, "hub_path", None)
    if where:
        return make_hub_env(where, n_envs, use_async_envs, trust_remote_code, hub_cache_dir)
    return {cfg.type: {0: factory.make_env(cfg, n_envs, use_async_envs)}}


def make_env_pre_post_processors(
    env_cfg: EnvConfig, policy_cfg: Any
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """Pipelines between an environment and a policy's own: what LIBERO and IsaacLab Arena need, else empty."""
    steps = []
    if isinstance(env_cfg, LiberoEnv):
        steps = [LiberoProcessorStep()]
    elif isinstance(env_cfg, IsaaclabArenaEnv):
        steps = [IsaaclabArenaProcessorStep(split_names(env_cfg.state_keys), split_names(env_cfg.camera_keys))]
    return PolicyProcessorPipeline(steps=steps), PolicyProcessorPipeline(steps=[])
