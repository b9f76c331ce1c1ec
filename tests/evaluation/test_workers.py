"""Episodes in processes of their own."""

import pytest

from lerobot.common.evaluation.rollout import episode_rows, rollout
from lerobot.common.evaluation.workers import EpisodeWorkers
from tests.evaluation.stand_ins import make_policy, make_reach, same

LOADER = "tests.evaluation.stand_ins:load_for_worker"
SEEDS = list(range(30, 36))
LONGEST_S = 300  # a process that has not answered by then hangs


def jobs(videos_dir=None):
    return [
        {"episode_ix": i, "seed": seed, "videos_dir": str(videos_dir) if videos_dir and i == 0 else None}
        for i, seed in enumerate(SEEDS)
    ]


def test_two_processes_give_what_one_after_the_other_gives(tmp_path):
    env, policy = make_reach(), make_policy(noise=0.1)
    expected = [episode_rows(rollout(env, policy, same, same, [seed]), [seed], i)[0] for i, seed in enumerate(SEEDS)]
    assert len({row["n_steps"] for row in expected}) > 1
    ended = []
    with EpisodeWorkers(2, LOADER, LONGEST_S) as workers:
        workers.load(noise=0.1)
        rows = workers.run(jobs(tmp_path), on_result=ended.append)
    assert len(ended) == len(SEEDS)
    assert rows[0]["video"] == str(next(tmp_path.glob("eval_episode_0_seed30_*.mp4")))
    assert rows == [{**expected[0], "video": rows[0]["video"]}, *expected[1:]]


def test_a_processes_error_is_raised_here_and_another_policy_can_be_loaded():
    with EpisodeWorkers(1, LOADER, LONGEST_S) as workers:
        workers.load(poison=True)
        with pytest.raises(ValueError, match="evaluation_stand_in.*nan.*seed 30"):
            workers.run(jobs())
        with pytest.raises(RuntimeError, match="TypeError.*no_such_field"):
            workers.load(no_such_field=1)
        workers.load(noise=0.0)
        assert len(workers.run(jobs()[:2])) == 2


def test_a_process_that_dies_is_reported_with_what_to_change():
    with (
        EpisodeWorkers(1, LOADER, LONGEST_S) as workers,
        pytest.raises(RuntimeError, match=r"code 3.*--eval\.batch_size"),
    ):
        workers.load(dies=True)


def test_a_process_that_hangs_is_ended_and_reported():
    with EpisodeWorkers(1, LOADER, patience_s=0.1) as workers, pytest.raises(TimeoutError, match="gave no answer"):
        workers.load(hangs=True)


def test_an_interrupt_ends_the_processes_at_once():
    with EpisodeWorkers(2, LOADER, LONGEST_S) as workers:
        first = workers._processes[0]

        def ask(process):
            if process is first:
                raise KeyboardInterrupt
            return workers._ask(process, {"load": {"hangs": True}})

        with pytest.raises(KeyboardInterrupt):
            workers._each(ask)
        assert all(process.wait(30) for process in workers._processes)
