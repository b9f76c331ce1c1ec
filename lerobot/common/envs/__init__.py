"""Gymnasium environments to evaluate policies in; `koch_sim` is the arm's twin."""

from lerobot.common.envs.configs import AlohaEnv, EnvConfig, KochEnv, PushtEnv, XarmEnv
from lerobot.common.envs.hil_serl import HILSerlRobotEnvConfig, LiberoEnv
from lerobot.common.envs.hub_envs import HubEnvConfig, IsaaclabArenaEnv, MetaworldEnv

__all__ = [
    "AlohaEnv",
    "EnvConfig",
    "HILSerlRobotEnvConfig",
    "HubEnvConfig",
    "IsaaclabArenaEnv",
    "KochEnv",
    "LiberoEnv",
    "MetaworldEnv",
    "PushtEnv",
    "XarmEnv",
]
