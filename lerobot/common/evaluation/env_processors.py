"""The processors that LeRobot 0.4 puts between an environment and a policy's own ones."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from lerobot.common.constants import ACTION

ENV_PROCESSORS = ("env_preprocessor", "env_postprocessor")


class InTurn:
    """Processors called one after the other, reset together; None stands for no processor."""

    def __init__(self, *parts: Callable | None):
        self.parts = [part for part in parts if part is not None]

    @property
    def steps(self) -> list:
        """The steps of all, in order."""
        return [step for part in self.parts for step in getattr(part, "steps", ())]

    def __call__(self, value: Any) -> Any:
        for part in self.parts:
            value = part(value)
        return value

    def reset(self) -> None:
        """Forget what belongs to the last episode."""
        for part in self.parts:
            if hasattr(part, "reset"):
                part.reset()


class ActionOf(InTurn):
    """An environment's postprocessor, which takes and gives {"action": ...}, for the action alone."""

    def __call__(self, action: Tensor) -> Tensor:
        return super().__call__({ACTION: action})[ACTION]


def joined(env_preprocessor, env_postprocessor, preprocessor, postprocessor) -> tuple[Callable, Callable]:
    """(before the policy, after it) of the four processors, of which the environment's may be None."""
    if env_preprocessor is None and env_postprocessor is None:
        return preprocessor, postprocessor
    after = None if env_postprocessor is None else ActionOf(env_postprocessor)
    return InTurn(env_preprocessor, preprocessor), InTurn(postprocessor, after)


def takes_env_processors(function: Callable) -> Callable:
    """Let `function(env, policy, preprocessor, postprocessor, ...)` take the environment's processors as well.

    As in LeRobot 0.4 they stand after the policy, by position or by name.
    """

    @functools.wraps(function)
    def wrapper(*args, env_preprocessor=None, env_postprocessor=None, **named):
        head, rest = args[:2], args[2:]
        if len(rest) >= 4 and callable(rest[2]):
            env_preprocessor, env_postprocessor, *rest = rest
        if env_preprocessor is None and env_postprocessor is None:
            return function(*head, *rest, **named)
        before, after, *rest = rest or (named.pop("preprocessor"), named.pop("postprocessor"))
        named["preprocessor"], named["postprocessor"] = joined(env_preprocessor, env_postprocessor, before, after)
        if not rest:
            return function(*head, **named)
        return function(*head, named.pop("preprocessor"), named.pop("postprocessor"), *rest, **named)

    new = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in ENV_PROCESSORS]
    old = inspect.signature(function)
    wrapper.__signature__ = old.replace(parameters=[*old.parameters.values(), *new])
    return wrapper
