"""Chunks of one episode start from the noise of their ticks, so that chance makes no difference between two of them."""

import pytest
import torch

from lerobot.common.player.noise import TickNoise, noise_options
from lerobot.common.player.planners import DelayedPlanner, PolicyPlan, make_player
from tests.evaluation.stand_ins import same
from tests.policies.act import conftest as act
from tests.policies.pi0 import conftest as pi0
from tests.policies.smolvla import conftest as smolvla


def test_two_chunks_have_the_same_noise_where_they_plan_the_same_action():
    early, late = TickNoise(7, 3).draw(2, 10, 4), TickNoise(7, 8).draw(2, 10, 4)
    assert early.shape == (2, 10, 4) and early.dtype == torch.float32
    assert early[:, 5:].equal(late[:, :5]) and not early[:, :5].equal(late[:, 5:])
    assert not early.equal(TickNoise(8, 3).draw(2, 10, 4)) and not early[0].equal(early[1])


def test_the_noise_is_standard_normal_and_no_two_ticks_have_the_same():
    drawn = TickNoise(0, 0).draw(1, 500, 32)
    assert drawn.mean().abs() < 0.02 and abs(drawn.std() - 1) < 0.02
    assert torch.corrcoef(drawn[0]).fill_diagonal_(0).abs().max() < 0.8


@pytest.mark.parametrize("module", [smolvla, pi0], ids=["smolvla", "pi0"])
def test_a_policy_that_draws_its_chunks_takes_the_noise(module):
    policy = module.tiny_policy()
    batch = module.tiny_batch(policy.config)
    options = noise_options(policy, TickNoise(1, 0), 2)
    torch.manual_seed(0)
    chunk = policy.predict_action_chunk(batch, **options)
    assert policy.predict_action_chunk(batch, **options).equal(chunk)
    assert not policy.predict_action_chunk(batch, **noise_options(policy, TickNoise(1, 9), 2)).equal(chunk)
    assert noise_options(policy, None, 2) == {}


def test_a_policy_that_draws_nothing_gets_no_noise():
    assert noise_options(act.policy_of(act.config_of()), TickNoise(1, 0), 2) == {}


class Recorded(DelayedPlanner):
    """A planner that remembers its requests."""

    def start(self, request):
        self.requests = [*getattr(self, "requests", []), request]
        super().start(request)


def played(mode, ticks=40, episodes=1):
    """A player at 10 Hz whose chunks take two ticks; its planner."""
    policy, now = smolvla.tiny_policy(), [0.0]
    policy.config.n_action_steps = 4
    observation = {key: value[:1] for key, value in smolvla.tiny_batch(policy.config).items()}
    planner = Recorded(PolicyPlan(policy, same, same, lambda batch: batch), lambda: now[0], 0.2)
    player = make_player(planner, mode, 10, policy.config)
    for _ in range(episodes):
        player.reset()
        for _ in range(ticks):
            player.step(observation, now[0])
            now[0] += 0.1
    return planner.requests


def test_an_async_player_counts_the_actions_that_were_played_and_not_those_held():
    requests = played("async")
    firsts = [request.noise.first for request in requests]
    # The first chunk comes after two ticks; of each later one, of five actions, three are played until the next is due.
    assert firsts[:5] == [0, 0, 3, 6, 9] and len({request.noise.seed for request in requests}) == 1


def test_every_episode_has_noise_of_its_own_that_the_seed_decides():
    def seeds():
        torch.manual_seed(0)
        return list(dict.fromkeys(request.noise.seed for request in played("async", 12, episodes=3)))

    assert len(seeds()) == 3 and seeds() == seeds()


@pytest.mark.parametrize("mode", ["sync", "rtc"])
def test_chunks_of_other_modes_are_drawn_as_the_policy_draws_them(mode):
    assert all(request.noise is None for request in played(mode, 20))
