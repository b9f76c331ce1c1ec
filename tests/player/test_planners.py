"""Where chunks are computed, how long that takes, and how smooth what comes of it is."""

import threading

import pytest
import torch

from lerobot.common.player.chunk_player import Chunk, ChunkPlayer, Request
from lerobot.common.player.latency import LatencyBudget
from lerobot.common.player.motion import MotionReport, motion_line
from lerobot.common.player.planners import DelayedPlanner, PolicyPlan, ThreadPlanner
from tests.evaluation.stand_ins import make_policy, same


def chunk(value=0.0):
    return Chunk(torch.full((4, 2), value))


def test_a_delayed_chunk_comes_when_its_time_is_over():
    now = [0.0]
    planner = DelayedPlanner(lambda request: chunk(), lambda: now[0], 0.2)
    planner.start(Request(None))
    now[0] = 5 / 30
    assert planner.result() is None
    now[0] = 6 / 30
    assert planner.result() is not None and planner.result() is None


def test_without_a_latency_a_delayed_chunk_takes_what_it_took():
    now = [0.0]
    planner = DelayedPlanner(lambda request: chunk(), lambda: now[0], None)
    planner.start(Request(None))
    assert planner.result() is None
    now[0] = 3600.0
    assert planner.result() is not None


def test_a_thread_computes_beside_the_loop_and_a_reset_forgets_it():
    may_end = threading.Event()

    def plan(request):
        may_end.wait(10)
        return chunk(request.observation)

    planner = ThreadPlanner(plan)
    planner.start(Request(1.0))
    assert planner.result() is None
    may_end.set()
    planner.reset()
    assert planner.result() is None
    planner.patience_s = 10
    planner.start(Request(2.0))
    assert planner.result().actions[0, 0] == 2.0
    planner.close()


def test_what_goes_wrong_in_the_thread_reaches_the_loop():
    def plan(request):
        raise ValueError("no such camera")

    planner = ThreadPlanner(plan, patience_s=10)
    with pytest.raises(ValueError, match="no such camera"):
        ChunkPlayer(planner, "async", 30, 4).step(None, 0.0)
    planner.close()


def test_a_policy_that_hangs_ends_the_run_but_a_long_warm_up_does_not():
    now, latency = [0.0], [9.0]
    planner = DelayedPlanner(lambda request: chunk(), lambda: now[0], None)
    planner.start = lambda request: setattr(planner, "_chunk", chunk()) or setattr(planner, "_due", now[0] + latency[0])
    player = ChunkPlayer(planner, "sync", 10, 4, give_up_s=5.0)

    def run(seconds):
        for _ in range(round(seconds * 10)):
            player.step(None, now[0])
            now[0] += 0.1

    run(9.2)
    latency[0] = 0.3
    run(3)
    latency[0] = 60.0
    with pytest.raises(TimeoutError, match="took 0.3 s"):
        run(10)


def test_a_policys_plan_is_timed_by_stage_and_in_the_robots_units():
    plan = PolicyPlan(make_policy(noise=0.0), same, lambda action: action * 100, lambda o: o, names=("x", "y"))
    made = plan(Request({"observation.state": torch.tensor([[0.04, -0.04]])}))
    assert made.actions.shape == (4, 1, 2) and made.planned.shape == (1, 4, 2)
    torch.testing.assert_close(made.actions[0, 0], torch.tensor([1.0, -1.0]))
    assert set(plan.budget.summary()) == {"preprocess", "model", "postprocess"}


def test_the_budget_line_shows_the_median_and_the_slowest_percent():
    budget = LatencyBudget()
    assert budget.line() == "" and budget.summary() == {}
    for ms in range(1, 102):
        budget.add("model", ms / 1000)
    budget.add("send", 0.002)
    assert budget.line() == "model 51/100 send 2/2 ms (p50/p99)"
    assert budget.summary()["model"] == {"p50_ms": 51.0, "p99_ms": 100.0, "n": 101}


def test_jerk_of_a_cubic_is_its_third_derivative():
    report = MotionReport(30)
    for tick in range(20):
        assert report.summary()["jerk"] is None or tick > 3
        report.sent(2 * (torch.tensor([tick / 30], dtype=torch.float64)) ** 3)
    assert report.summary()["jerk"] == pytest.approx(12.0, rel=1e-6)


def test_a_long_run_needs_no_more_memory_than_a_short_one(monkeypatch):
    monkeypatch.setattr("lerobot.common.player.latency.KEPT", 100)
    budget, report = LatencyBudget(), MotionReport(30)
    for ms in range(1000):
        budget.add("model", ms / 1000)
        report.seam(torch.tensor([ms / 1000]))
        report.sent(torch.zeros(2))
    assert budget.summary()["model"] == {"p50_ms": 949.5, "p99_ms": 998.01, "n": 1000}
    assert report.summary() == {"seams": 1000, "seam_jump": 0.4995, "seam_jump_max": 0.999, "jerk": 0.0}
    assert max(len(kept) for kept in vars(report).values() if hasattr(kept, "__len__")) <= 4


def test_the_motion_line_can_be_printed_before_there_is_motion():
    report = ChunkPlayer(DelayedPlanner(lambda r: chunk(), lambda: 0.0), "async", 30, 4).report()
    assert "0 seams" in motion_line(report) and "jump none" in motion_line(report)


def test_a_policy_that_never_answers_keeps_nothing_from_its_end(monkeypatch):
    monkeypatch.setattr("lerobot.common.player.planners.RESET_S", 0.01)
    may_end = threading.Event()
    planner = ThreadPlanner(lambda request: may_end.wait(60))
    planner.start(Request(None))
    with pytest.raises(TimeoutError, match="hangs"):
        planner.reset()
    planner.close()
    assert planner._thread._thread.daemon and not planner._thread.close(0.01)
    may_end.set()
    assert planner._thread.close(60)
