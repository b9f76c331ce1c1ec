"""Gymnasium environments to evaluate policies in; `koch_sim` is the arm's twin."""

from lerobot.common.envs.configs import AlohaEnv, EnvConfig, KochEnv, PushtEnv, XarmEnv

__all__ = ["AlohaEnv", "EnvConfig", "KochEnv", "PushtEnv", "XarmEnv"]
