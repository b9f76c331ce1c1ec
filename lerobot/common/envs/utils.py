"""From what an environment gives to what a policy takes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lerobot.common.constants import OBS_ENV_STATE, OBS_IMAGE, OBS_IMAGES, OBS_STATE, TASK
from lerobot.configs.types import FeatureType, PolicyFeature

if TYPE_CHECKING:
    import gymnasium as gym

    from lerobot.common.envs.configs import EnvConfig


def preprocess_observation(observations: dict[str, Any]) -> dict[str, Tensor]:
    """Names and layout of a policy's batch, from the numpy observation of a vector environment.

    Pictures uint8 (B, H, W, C) or (H, W, C) become float32 (B, C, H, W) in [0, 1]; `agent_pos` and
    `environment_state` become float32, with a batch axis. Raises ValueError on pictures of another kind.
    """
    batch = {}
    pixels = observations.get("pixels", {})
    pictures = (
        {f"{OBS_IMAGES}.{name}": picture for name, picture in pixels.items()}
        if isinstance(pixels, dict)
        else {OBS_IMAGE: pixels}
    )
    for key, picture in pictures.items():
        batch[key] = _channel_first(key, picture)
    for name, key in (("environment_state", OBS_ENV_STATE), ("agent_pos", OBS_STATE)):
        if name in observations:
            value = torch.from_numpy(np.asarray(observations[name])).float()
            batch[key] = value[None] if value.ndim == 1 else value
    return batch


def env_to_policy_features(env_cfg: EnvConfig) -> dict[str, PolicyFeature]:
    """The policy's features for an environment: its keys, with pictures channel-first."""
    features = {}
    for key, feature in env_cfg.features.items():
        shape = tuple(feature.shape)
        if feature.type is FeatureType.VISUAL:
            shape = get_channel_first_image_shape(shape)
        features[env_cfg.features_map[key]] = PolicyFeature(feature.type, shape)
    return features


def get_channel_first_image_shape(image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """(C, H, W) of a picture given as that or as (H, W, C); the channels are the smallest dimension."""
    if len(image_shape) == 3:
        first, middle, last = image_shape
        if last < first and last < middle:
            return last, first, middle
        if first < middle and first < last:
            return tuple(image_shape)
    raise ValueError(f"expected a picture's shape with the channels first or last, got {tuple(image_shape)}")


def add_envs_task(env: gym.vector.VectorEnv, observation: dict[str, Any]) -> dict[str, Any]:
    """Adds `task`: per environment its sentence (`task_description`, else `task`, else an empty string)."""
    from lerobot.common.envs.task import task_sentence

    if hasattr(env, "envs"):
        observation[TASK] = [task_sentence(one) for one in env.envs]
    else:
        observation[TASK] = [str(sentence) for sentence in env.call("task_description")]
    return observation


def episode_successes(info: dict[str, Any], num_envs: int) -> np.ndarray:
    """Which environments report success in this step, bool (num_envs,).

    Understands the `final_info` of an environment that has just started anew: a sequence with one entry per
    environment before gymnasium 1.0, a dict of arrays since.
    """
    successes = np.zeros(num_envs, dtype=bool)
    if "is_success" in info:
        successes |= np.asarray(info["is_success"], dtype=bool)
    final = info.get("final_info")
    if isinstance(final, dict):
        if "is_success" in final:
            ended = np.asarray(final.get("_is_success", True))
            successes = np.where(ended, np.asarray(final["is_success"], dtype=bool), successes)
    elif final is not None:
        for index, one in enumerate(final):
            if one is not None:
                successes[index] = bool(one.get("is_success", False))
    return successes


def are_all_envs_same_type(env: gym.vector.VectorEnv) -> bool:
    """True when the copies of a synchronous vector environment have one class."""
    return len({type(one.unwrapped) for one in env.envs}) == 1


def check_env_attributes_and_types(env: gym.vector.VectorEnv) -> None:
    """Warns when a synchronous vector environment mixes classes or has no sentence to tell a policy."""
    if not hasattr(env, "envs"):
        return
    if not all(hasattr(one.unwrapped, "task_description") or hasattr(one.unwrapped, "task") for one in env.envs):
        warnings.warn(
            "The environment has neither task_description nor task: policies get an empty sentence.",
            stacklevel=2,
        )
    if not are_all_envs_same_type(env):
        warnings.warn("The vector environment mixes classes of environments.", stacklevel=2)


def _channel_first(key: str, picture: np.ndarray) -> Tensor:
    picture = torch.from_numpy(np.asarray(picture))
    if picture.ndim == 3:
        picture = picture.unsqueeze(0)
    *_, height, width, channels = picture.shape
    if picture.dtype != torch.uint8 or not channels < min(height, width):
        raise ValueError(f"{key}: expected uint8 pictures, channels last, got {picture.dtype} {tuple(picture.shape)}")
    return picture.permute(0, 3, 1, 2).float().div_(255).contiguous()
