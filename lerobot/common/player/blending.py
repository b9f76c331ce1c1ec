"""How a new chunk takes over from the one that is being played, where nothing else makes the two meet."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FADE = 5  # actions over which a chunk fades in

Blend = Callable[[int], Tensor]  # actions that the old chunk has left -> weights of the old plan, float32 (K,)

# LeRobot's --aggregate_fn_name: the weight of the old plan, wherever both plans have an action for a tick.
AGGREGATES = {"weighted_average": 0.3, "latest_only": 0.0, "average": 0.5, "conservative": 0.7}


def fade(actions: int = FADE) -> Blend:
    """Over `actions` actions the old plan's weight falls in even steps, for 5 from 5/6 to 1/6; 0: no fading."""
    weights = torch.linspace(1, 0, actions + 2)[1:-1]
    return lambda _left: weights


def aggregate(name: str) -> Blend:
    """One weight for all actions that both plans have, by its name in LeRobot; ValueError for another name."""
    if name not in AGGREGATES:
        raise ValueError(f"--aggregate_fn_name={name}: expected one of {', '.join(AGGREGATES)}.")
    return lambda left: torch.full((left,), AGGREGATES[name])


def blended(new: Tensor, old: Tensor, held: Tensor, weights: Tensor) -> Tensor:
    """The new chunk (T, ..., A) with its first actions drawn to the old plan.

    old (K, ..., A): what is left of the chunk that is played. After its end the plan was to hold, at its last action or
    (none left) at `held` (..., A).
    """
    count = min(len(weights), len(new))
    if count == 0:
        return new
    hold = (old[-1] if len(old) else held)[None]
    plan = torch.cat([old[:count], hold.expand(max(0, count - len(old)), *hold.shape[1:])])
    weight = weights[:count].to(new).reshape(-1, *[1] * (new.ndim - 1))
    return torch.cat([weight * plan.to(new) + (1 - weight) * new[:count], new[count:]])
