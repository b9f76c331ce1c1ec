"""The processors between an environment and a policy's own ones."""

import inspect

import pytest
import torch

from lerobot.common.evaluation.rollout import eval_policy, rollout
from lerobot.common.evaluation.tasks import eval_one, eval_policy_all
from tests.evaluation.stand_ins import make_policy, make_reach, same


class Shift:
    """Adds to the observed state, or to the action, and counts its resets."""

    def __init__(self, key: str, by: float):
        self.key, self.by, self.resets = key, by, 0

    def __call__(self, values: dict) -> dict:
        return {**values, self.key: values[self.key] + self.by}

    def reset(self) -> None:
        self.resets += 1


def shifts() -> dict[str, Shift]:
    return {"env_preprocessor": Shift("observation.state", 0.25), "env_postprocessor": Shift("action", 0.125)}


def test_they_act_before_and_after_the_policys_own():
    plain = rollout(make_reach(time_limit=1), make_policy(noise=0.0), same, same, [3])
    parts = shifts()
    named = rollout(
        make_reach(time_limit=1), make_policy(noise=0.0), **parts, preprocessor=same, postprocessor=same, seeds=[3]
    )
    placed = rollout(make_reach(time_limit=1), make_policy(noise=0.0), *parts.values(), same, same, [3])
    assert torch.equal(named["action"], placed["action"]) and all(part.resets == 2 for part in parts.values())
    assert not torch.equal(named["action"], plain["action"])
    nothing = rollout(make_reach(time_limit=1), make_policy(noise=0.0), None, None, same, same, [3])
    assert torch.equal(nothing["action"], plain["action"])


def test_evaluations_take_them_too():
    options = {"policy": make_policy(noise=0.0), **shifts(), "preprocessor": same, "postprocessor": same}
    one = eval_one(make_reach(time_limit=3), n_episodes=2, start_seed=0, **options)
    parts = list(shifts().values())
    many = eval_policy(make_reach(time_limit=3), make_policy(noise=0.0), *parts, same, same, 2, start_seed=0)
    assert one["sum_rewards"] == [row["sum_reward"] for row in many["per_episode"]]
    every = eval_policy_all({"reach": {0: make_reach(time_limit=3)}}, n_episodes=2, start_seed=0, **options)
    assert every["per_task"][0]["metrics"] == one


@pytest.mark.parametrize("function", [rollout, eval_policy, eval_one, eval_policy_all])
def test_the_signature_shows_them(function):
    assert {"env_preprocessor", "env_postprocessor"} <= set(inspect.signature(function).parameters)
