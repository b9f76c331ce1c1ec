"""Rollouts whose chunks are played with a simulated latency."""

import pytest
import torch

from lerobot.common.evaluation.evaluate import format_result, with_player
from lerobot.common.evaluation.rollout import eval_policy, rollout
from lerobot.configs.default import EvalConfig
from tests.evaluation.stand_ins import make_policy, make_reach, same


def played(mode, latency_ms, noise=0.0, seed=3, policy=None, env=None):
    env, policy = env or make_reach(), policy or make_policy(noise=noise)
    return rollout(env, *with_player(policy, same, same, mode, latency_ms, env), seeds=[seed])


def test_sync_without_latency_sends_what_the_policy_does_by_itself():
    plain = rollout(make_reach(), make_policy(noise=0.05), same, same, seeds=[3])
    result = played("sync", 0, noise=0.05)
    assert torch.equal(plain["action"], result["action"]) and torch.equal(plain["done"], result["done"])


def test_before_the_first_chunk_the_arm_is_held_at_its_state():
    result = played("sync", 100, env=make_reach(time_limit=10))
    action = result["action"][0]
    state = rollout(make_reach(time_limit=1), make_policy(), same, same, [3], return_observations=True)
    assert torch.equal(action[:3], state["observation"]["observation.state"][0, :1].expand(3, -1))
    assert torch.equal(action[6], action[7]) and torch.equal(action[7], action[9])  # four actions, then three ticks
    assert result["player"]["held"] == 6


def test_async_holds_only_at_the_start():
    assert played("async", 66)["player"]["held"] == 2
    assert played("sync", 66)["player"]["held"] > 2


def test_async_fades_as_it_is_told_to():
    def jumps(fade):
        env = make_reach()
        parts = with_player(make_policy(noise=0.05), same, same, "async", 66, env, fade)
        return rollout(env, *parts, seeds=[3])["player"]["seam_jump"]

    assert 0 < 2 * jumps(5) < jumps(0)


def test_nothing_of_an_episode_is_played_in_the_next():
    env = make_reach()
    parts = with_player(make_policy(noise=0.05), same, same, "sync", 66, env)
    first = rollout(env, *parts, seeds=[3])
    rollout(env, *parts, seeds=[4])
    assert torch.equal(first["action"], rollout(env, *parts, seeds=[3])["action"])


def test_the_report_stands_in_every_row_and_in_the_summary():
    env = make_reach(time_limit=12)
    result = eval_policy(env, *with_player(make_policy(), same, same, "async", 66, env), 2, start_seed=0)
    assert [row["player"]["mode"] for row in result["per_episode"]] == ["async", "async"]
    assert "async" in format_result(result) and "jerk" in format_result(result)


def test_what_cannot_be_played_is_refused_with_the_flag():
    env = make_reach()
    with pytest.raises(ValueError, match="--eval.player=rtc.*async"):
        with_player(make_policy(), same, same, "rtc", 100, env)
    policy = make_policy()
    policy.config.n_obs_steps = 2
    with pytest.raises(ValueError, match="--eval.latency_ms=0"):
        with_player(policy, same, same, "async", 100, env)
    for flags in ({"player": "fast"}, {"latency_ms": -1.0}, {"latency_ms": float("nan")}, {"fade": -1}):
        with pytest.raises(ValueError, match=f"--eval.{next(iter(flags))}"):
            EvalConfig(**flags)
