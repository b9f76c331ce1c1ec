"""Every timing fault of a chunk player, on a clock that the test owns."""

import pytest
import torch

from lerobot.common.player.blending import aggregate, blended, fade
from lerobot.common.player.chunk_player import Chunk, ChunkPlayer, DelayEstimate

FPS = 30


class Planner:
    """Chunks of `length` whose action k is (tick of the observation + k, its chunk's number / 1000)."""

    def __init__(self, length=40, names=None):
        self.length, self.names, self.requests, self.answers = length, names, [], []

    def start(self, request):
        self.requests.append(request)

    def result(self):
        return self.answers.pop() if self.answers else None

    def reset(self):
        self.answers.clear()

    def answer(self):
        start = self.requests[-1].observation
        steps = start + torch.arange(self.length, dtype=torch.float32)
        actions = torch.stack([steps, torch.full_like(steps, len(self.requests) / 1000)], 1)
        self.answers.append(Chunk(actions, actions[None], self.names))


class Run:
    """A player at 30 Hz whose planner answers after a given number of ticks."""

    def __init__(self, mode, delays, length=40, n_action_steps=15, **kwargs):
        self.planner = Planner(length)
        self.player = ChunkPlayer(self.planner, mode, FPS, n_action_steps, **{"blend": fade(0), **kwargs})
        self.delays, self.tick, self.ready, self.now = list(delays), 0, None, 0.0

    def step(self, period=1 / FPS):
        if self.ready is not None and self.tick >= self.ready:
            self.planner.answer()
            self.ready = None
        asked = len(self.planner.requests)
        action = self.player.step(self.tick, self.now)
        if len(self.planner.requests) > asked:
            delay = self.delays.pop(0) if len(self.delays) > 1 else self.delays[0]
            self.ready = self.tick + delay
        self.tick += 1
        self.now += period
        return None if action is None else action[0].item()

    def steps(self, count, **kwargs):
        return [self.step(**kwargs) for _ in range(count)]


def test_sync_holds_while_it_thinks_and_drops_nothing():
    run = Run("sync", [6])
    assert run.steps(6) == [None] * 6
    # The chunk of tick 0 arrives at tick 6: nothing of it was played, so it begins at its first action.
    assert run.steps(15) == list(range(15))
    assert run.steps(6) == [14] * 6
    assert run.step() == 21  # observed at tick 21, where the arm began to wait
    assert run.player.held == 12


def test_async_plays_on_and_starts_each_chunk_at_the_present_tick():
    run = Run("async", [6])
    run.steps(6)
    # With no wait after the first chunk, the n-th action is that of tick n - 6 for the first chunk ...
    first = run.steps(6)
    assert first == list(range(6))
    # ... and from the second chunk on that of the tick itself: six were consumed, six are dropped.
    assert run.steps(60) == list(range(12, 72))
    assert run.player.held == 6


def test_async_executes_n_action_steps_of_each_chunk_at_a_steady_delay():
    run = Run("async", [6])
    run.steps(300)
    asked = [request.observation for request in run.planner.requests][3:]
    assert {b - a for a, b in zip(asked, asked[1:], strict=False)} == {15}


def test_async_saves_the_thinking_time():
    # 15 actions and 6 ticks of thinking per chunk: 15 / 21 of the time, at best 29 % less
    actions = {mode: sum(a is not None for a in _distinct(Run(mode, [6]).steps(2100))) for mode in ("sync", "async")}
    assert actions["sync"] == 1500 and actions["async"] > 2080


def _distinct(actions):
    return [a if a != b else None for a, b in zip(actions, [None, *actions], strict=False)]


def test_a_late_chunk_is_waited_for_at_the_last_action_and_then_continued_there():
    run = Run("async", [1, 1, 8, 1], length=12, n_action_steps=6)
    run.steps(4)
    actions = run.steps(30)
    held = next(i for i in range(1, 30) if actions[i] == actions[i - 1])
    resumed = next(i for i in range(held, 30) if actions[i] != actions[i - 1])
    # Ticks in which the arm was held are not dropped from the late chunk: it goes on with the very next action.
    assert resumed - held == 2 == run.player.held - 1 and actions[resumed] == actions[held] + 1


def test_ticks_that_took_too_long_drop_only_what_was_played():
    run = Run("async", [6])
    run.steps(30)
    actions = run.steps(60, period=3 / FPS)  # the loop runs at 10 Hz: thrice the time per action
    assert all(b - a == 1 for a, b in zip(actions, actions[1:], strict=False))


def test_in_a_slow_loop_the_estimate_counts_the_actions_that_it_plays():
    run = Run("rtc", [6])
    run.steps(100, period=3 / FPS)
    assert run.player.delay.ticks() == 6


def test_a_clock_set_back_repeats_nothing_and_is_not_learnt():
    run = Run("async", [6])
    run.steps(40)
    before = run.player.delay.ticks()
    while run.player._pending is None:
        run.step()
    run.now -= 3600
    actions = run.steps(60)
    assert all(b - a == 1 for a, b in zip(actions, actions[1:], strict=False))
    assert run.player.clock_jumps == 1 and run.player.delay.ticks() == before


def test_a_clock_set_forward_skips_nothing_and_is_not_learnt():
    run = Run("async", [6])
    run.steps(40)
    while run.player._pending is None:
        run.step()
    run.now += 3600
    actions = run.steps(60)
    assert all(b - a == 1 for a, b in zip(actions, actions[1:], strict=False))
    assert run.player.delay.ticks() == 6


def test_the_warm_up_is_not_part_of_the_estimate():
    run = Run("async", [90, 3])
    run.steps(200)
    assert run.player.delay.ticks() == 3
    assert DelayEstimate().ticks() is None


def test_an_old_worst_case_is_forgotten():
    estimate = DelayEstimate(warmup=0, window=3)
    for ticks in (30, 2, 3, 2):
        estimate.add(ticks)
    assert estimate.ticks() == 3


def test_a_chunk_that_is_wholly_in_the_past_is_not_played():
    planner = Planner(length=7)
    player = ChunkPlayer(planner, "async", FPS, 5)
    for tick in range(2):
        player.step(tick, tick / FPS)
        planner.answer()
    actions = [player.step(tick, tick / FPS)[0].item() for tick in range(2, 9)]
    planner.length = 2  # a short one, of tick 6: both its actions' time has passed
    planner.answer()
    assert player.step(9, 9 / FPS)[0].item() == actions[-1] and player.stale == 1
    assert planner.requests[-1].observation == 9


def test_rtc_hands_over_exactly_the_unplayed_actions_and_no_padding():
    run = Run("rtc", [6], length=20)
    run.steps(80)
    request = run.planner.requests[4]
    left = request.prev_chunk_left_over
    assert left.shape[1] < 20 and left[0, 0, 0] == request.observation  # the action of the tick that was observed
    assert (left[0, :, 0].diff() == 1).all()
    assert request.inference_delay == 6 and request.execution_horizon == 12


def test_the_first_rtc_chunk_continues_nothing():
    run = Run("rtc", [6])
    run.step()
    assert run.planner.requests[0].options() == {}


@pytest.mark.parametrize("mode", ["sync", "async", "rtc"])
def test_joints_are_in_the_players_order_in_every_mode(mode):
    planner = Planner(names=("lift", "pan"))
    player = ChunkPlayer(planner, mode, FPS, 15, names=("pan", "lift"))
    player.step(0, 0.0)
    planner.answer()
    assert player.step(1, 1 / FPS).tolist() == pytest.approx([0.001, 0.0])


@pytest.mark.parametrize("names", [("pan", "elbow"), ("pan", "lift", "elbow")])
def test_other_joints_are_refused(names):
    planner = Planner(names=names)
    player = ChunkPlayer(planner, "sync", FPS, 15, names=("pan", "lift"))
    player.step(0, 0.0)
    planner.answer()
    with pytest.raises(ValueError, match="trained on this robot"):
        player.step(1, 1 / FPS)


def test_nothing_of_an_episode_survives_its_end():
    run = Run("async", [2])
    run.steps(20)
    run.planner.answer()
    run.player.reset()
    assert run.player.step(1000, 0.0) is None and run.player.remaining == 0
    assert run.player.delay.ticks() == 2


def test_seams_are_measured_against_what_would_have_been_sent():
    run = Run("async", [6], blend=fade(5))
    run.steps(100)
    report = run.player.report()
    # All chunks agree about the ticks from the second one on; the first seam is the six ticks of the initial wait, of
    # which the first faded action takes one sixth.
    assert report["seams"] > 3 and report["seam_jump_max"] == pytest.approx(1.0) and report["seam_jump"] < 0.4


def test_observations_are_asked_for_whenever_one_is_read():
    for mode, delay in (("sync", 6), ("async", 6), ("async", 0), ("rtc", 3)):
        run = Run(mode, [delay])
        for _ in range(200):
            expected, asked = run.player.needs_observation(), len(run.planner.requests)
            run.step()
            assert expected or len(run.planner.requests) == asked
        if mode == "sync":
            assert not expected


class Levels:
    """A planner whose k-th chunk is `length` times 10 k; it comes `delay` ticks after it was asked for."""

    def __init__(self, length=20, delay=0):
        self.length, self.delay, self.count, self.left = length, delay, 0, None

    def start(self, request):
        self.count, self.left = self.count + 1, self.delay

    def result(self):
        if self.left:
            self.left -= 1
        elif self.left == 0:
            self.left = None
            actions = torch.full((self.length, 1), 10.0 * self.count)
            return Chunk(actions, actions[None])

    def reset(self):
        self.left = None


def play(mode, ticks, planner=None, n_action_steps=12, **kwargs):
    player = ChunkPlayer(planner or Levels(), mode, FPS, n_action_steps, **kwargs)
    actions = [player.step(tick, tick / FPS) for tick in range(ticks)]
    return [None if action is None else action[0].item() for action in actions]


def test_an_async_chunk_fades_in_over_five_actions():
    # Two chunks of the first tick: the delay is not known yet.
    faded = [level + 10 * k / 6 for level in (10, 20) for k in range(1, 6)]
    expected = [10.0, *faded[:5], *[20.0] * 7, *faded[5:], *[30.0] * 6]
    assert play("async", 24) == pytest.approx(expected)


def test_other_modes_play_a_chunk_as_it_is():
    assert play("sync", 24) == [10.0] * 12 + [20.0] * 12
    assert play("rtc", 14) == [10.0] + [20.0] * 12 + [30.0]


def test_a_late_chunk_fades_in_from_where_the_arm_was_held():
    sent = play("async", 60, Levels(length=8, delay=12), n_action_steps=8)
    assert sent[:12] == [None] * 12 and sent[12:32] == [10.0] * 20  # eight actions, then it was held
    first = next(i for i, action in enumerate(sent) if action not in (None, 10.0))
    rest = sent[first + 5] - 10.0
    assert sent[first : first + 5] == pytest.approx([10 + rest * k / 6 for k in range(1, 6)])


def test_a_chunk_shorter_than_its_fading_is_blended_as_far_as_it_goes():
    new = torch.full((2, 1), 6.0)
    assert blended(new, torch.zeros(9, 1), torch.ones(1), fade(5)(9))[:, 0].tolist() == pytest.approx([1.0, 2.0])
    assert blended(new, torch.zeros(0, 1), torch.ones(1), fade(0)(0)) is new


def test_the_plan_after_an_old_chunks_end_is_its_last_action():
    old, new = torch.tensor([[[0.0, 0.0]], [[3.0, 3.0]]]), torch.full((5, 1, 2), 6.0)  # (T, B, A)
    played = blended(new, old, torch.full((1, 2), 99.0), fade(3)(2))
    assert played[..., 0].flatten().tolist() == pytest.approx([1.5, 4.5, 5.25, 6.0, 6.0])


@pytest.mark.parametrize(
    "name, old", [("weighted_average", 0.3), ("latest_only", 0.0), ("average", 0.5), ("conservative", 0.7)]
)
def test_lerobots_aggregates_hold_wherever_both_chunks_have_an_action(name, old):
    sent = play("async", 4, Levels(length=4), blend=aggregate(name))
    # The second chunk comes one tick after the first one, which has three actions left by then.
    assert sent[0] == 10.0 and sent[1:] == pytest.approx([old * 10 + (1 - old) * 20] * 3)
    with pytest.raises(ValueError, match="weighted_average, latest_only"):
        aggregate("median")


def test_a_chunk_can_be_asked_for_earlier_than_its_delay_needs():
    # The next chunk is there 2 ticks after 13 of 15 actions were played, or after 8.
    for ask_at, expected in ((0.0, 15), (0.5, 10)):
        run = Run("async", [2], ask_at=ask_at)
        run.steps(200)
        asked = [request.observation for request in run.planner.requests][4:]
        assert {b - a for a, b in zip(asked, asked[1:], strict=False)} == {expected}


def test_where_every_tick_looks_like_a_jump_the_delay_is_counted_in_ticks():
    run = Run("async", [3])
    run.steps(60, period=2.5)
    assert run.player.delay.ticks() == 3
    assert len(run.planner.requests) <= 6  # with an estimate, no more than one request for each 15 actions


def test_once_it_thinks_ahead_async_holds_at_no_tick_and_plays_every_action_of_its_share():
    run = Run("async", [6])
    actions = run.steps(6 + 15 * 8)
    assert actions[:6] == [None] * 6 and run.player.held == 6  # the first chunk only
    thinking_ahead = actions[12:]  # from the second chunk on, which was asked for when the first one came
    assert all(b - a == 1 for a, b in zip(thinking_ahead, thinking_ahead[1:], strict=False))
