"""A wrapper that gives every environment the sentence a language-conditioned policy is told."""

from __future__ import annotations

import gymnasium as gym


class TaskSentence(gym.Wrapper):
    """Adds `task_description`: the environment's own, else its `task`, else the empty string."""

    @property
    def task_description(self) -> str:
        return task_sentence(self.env)


def task_sentence(env: gym.Env) -> str:
    """The sentence of one environment, wrapped or not."""
    for name in ("task_description", "task"):
        sentence = getattr(env.unwrapped, name, None)
        if sentence:
            return str(sentence)
    return ""
