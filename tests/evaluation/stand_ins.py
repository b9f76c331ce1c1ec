"""A small environment and a small policy that solves it, for tests of the evaluation."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from lerobot.common.policies.common.action_queue import ActionQueue
from lerobot.common.policies.pretrained import PreTrainedPolicy
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, PolicyFeature

STEP = 0.1
HEIGHT, WIDTH = 24, 32


class ReachEnv(gym.Env):
    """Move a point to a target that the seed places; each step pays 1, so a return is a length."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    render_mode = "rgb_array"

    def __init__(self, with_pixels: bool = True):
        self.pixels_needed, self.drawn, self.with_pixels = True, 0, with_pixels
        picture = spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        space = {"agent_pos": spaces.Box(-np.inf, np.inf, (2,), np.float32)}
        if with_pixels:
            space["pixels"] = spaces.Dict({"front": picture, "top": picture})
        self.observation_space = spaces.Dict(space)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)

    @property
    def task_description(self):
        return self.task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.target = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        self.position = np.zeros(2, np.float32)
        self.task = f"Go to {self.target[0]:.3f}."
        return self._observation(), {"is_success": False}

    def step(self, action):
        self.position = self.position + np.clip(action, -STEP, STEP).astype(np.float32)
        success = bool(np.abs(self.target - self.position).max() < 0.05)
        return self._observation(), 1.0, success, False, {"is_success": success}

    def render(self):
        return np.full((HEIGHT, WIDTH, 3), 90, np.uint8)

    def _observation(self):
        observation = {"agent_pos": self.target - self.position}
        if self.with_pixels:
            if self.pixels_needed:
                self.drawn += 1
                level = int(np.clip(128 + 100 * self.position[0], 0, 255))
                self._last = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
            observation["pixels"] = {"front": self._last, "top": self._last}
        return observation


def make_reach(
    n_envs: int = 1,
    time_limit: int = 40,
    mode: str = "SAME_STEP",
    with_pixels: bool = True,
    make_vector: type = gym.vector.SyncVectorEnv,
):
    """A vector environment of ReachEnv."""

    def make_one():
        return gym.wrappers.TimeLimit(ReachEnv(with_pixels), time_limit)

    # Before gymnasium 1.1 there is no choice.
    modes = getattr(gym.vector, "AutoresetMode", None)
    options = {} if modes is None else {"autoreset_mode": modes[mode]}
    return make_vector([make_one] * n_envs, **options)


@PreTrainedConfig.register_subclass("evaluation_stand_in")
@dataclass
class ReachConfig(PreTrainedConfig):
    n_action_steps: int = 4
    noise: float = 0.05  # standard deviation of the action

    observation_delta_indices = None
    reward_delta_indices = None

    @property
    def action_delta_indices(self):
        return list(range(self.n_action_steps))

    def get_optimizer_preset(self):
        raise NotImplementedError

    get_scheduler_preset = get_optimizer_preset

    def validate_features(self):
        return None


class ReachPolicy(PreTrainedPolicy):
    """Walks towards the target in chunks, with noise."""

    config_class, name = ReachConfig, "evaluation_stand_in"

    def __init__(self, config):
        super().__init__(config)
        self.gain = torch.nn.Parameter(torch.ones(2))
        self.seen = 0  # observations looked at
        self.reset()

    def reset(self):
        self._queue = ActionQueue(self.config.n_action_steps)

    def get_optim_params(self):
        return self.parameters()

    def forward(self, batch):
        raise NotImplementedError

    def predict_action_chunk(self, batch, **kwargs):
        self.seen += 1
        step = (self.gain * batch["observation.state"] / self.config.n_action_steps).clamp(-STEP, STEP)
        noise = self.config.noise * torch.randn(len(step), self.config.n_action_steps, 2)
        return step[:, None] + noise

    def needs_observation(self):
        return self._queue.is_empty

    def select_action(self, batch, **kwargs):
        if self._queue.is_empty:
            self._queue.extend(self.predict_action_chunk(batch))
        return self._queue.pop()


class ForgetfulPolicy(ReachPolicy):
    """Plans anew in every step and cannot tell whether it needs its observation."""

    name = "evaluation_forgetful"
    needs_observation = None

    def select_action(self, batch, **kwargs):
        return self.predict_action_chunk(batch)[:, 0]


def reach_features() -> dict[str, dict[str, PolicyFeature]]:
    """The features of a policy for ReachEnv."""
    picture = PolicyFeature(FeatureType.VISUAL, (3, HEIGHT, WIDTH))
    return {
        "input_features": {
            "observation.images.front": picture,
            "observation.images.top": picture,
            "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
        },
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (2,))},
    }


def make_policy(policy_class: type = ReachPolicy, **fields) -> ReachPolicy:
    """A policy with the features of ReachEnv."""
    return policy_class(ReachConfig(device="cpu", **reach_features(), **fields)).eval()


def same(value):
    """A processor that does nothing."""
    return value


def load_for_worker(poison: bool = False, dies: bool = False, hangs: bool = False, **fields) -> tuple:
    """What an evaluation process runs: (environment, policy, preprocessor, postprocessor)."""
    if dies:
        os._exit(3)
    if hangs:
        threading.Event().wait(600)
    policy = make_policy(**fields)
    if poison:
        policy.gain.data.fill_(float("nan"))
    return make_reach(), policy, same, same
