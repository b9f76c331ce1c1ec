"""Episodes in a vector environment and what they add up to."""

import gymnasium as gym
import pytest
import torch

from lerobot.common.evaluation.rollout import eval_policy, rollout, valid_steps
from lerobot.common.evaluation.tasks import close_envs, eval_policy_all
from tests.evaluation.stand_ins import ForgetfulPolicy, make_policy, make_reach, same

SEEDS = [3, 4, 5, 6]


def run(env, policy, seeds=None, **options):
    return rollout(env, policy, same, same, seeds, **options)


def simulators(env):
    return [one.unwrapped for one in env.envs]


@pytest.mark.parametrize("mode", ["SAME_STEP", "NEXT_STEP"])
def test_every_copy_counts_up_to_its_own_first_end(mode):
    together = run(make_reach(4, mode=mode), make_policy(noise=0.0), SEEDS)
    alone = [run(make_reach(1, mode=mode), make_policy(noise=0.0), [seed]) for seed in SEEDS]
    lengths = [one["done"].shape[1] for one in alone]
    assert len(set(lengths)) > 1
    assert together["reward"].sum(dim=1).tolist() == lengths  # the environment pays 1 per step
    assert valid_steps(together["done"]).sum(dim=1).tolist() == lengths
    assert together["success"].sum(dim=1).tolist() == [1] * 4
    for i, one in enumerate(alone):
        torch.testing.assert_close(together["action"][i, : lengths[i]], one["action"][0])


def test_environments_in_processes_give_what_those_in_this_one_give():
    env = make_reach(2, make_vector=gym.vector.AsyncVectorEnv)
    apart, here = (run(e, make_policy(noise=0.1), SEEDS[:2]) for e in (env, make_reach(2)))
    env.close()
    assert apart["task"] == here["task"]
    assert all(torch.equal(apart[key], here[key]) for key in ("action", "reward", "success", "done"))


def test_valid_steps_end_with_the_first_done():
    done = torch.tensor([[False, True, True, True], [False, False, False, True]])
    assert valid_steps(done).tolist() == [[True, True, False, False], [True] * 4]


def test_an_episode_that_runs_out_of_time_is_no_success():
    result = run(make_reach(2, time_limit=3), make_policy(), SEEDS[:2])
    assert result["done"].tolist() == [[False, False, True]] * 2
    assert not result["success"].any()


def test_max_steps_ends_every_episode():
    assert run(make_reach(2), make_policy(), SEEDS[:2], max_steps=2)["done"].tolist() == [[False, True]] * 2


def test_an_episode_depends_on_its_seed_only():
    env, policy = make_reach(), make_policy(noise=0.1)
    first = run(env, policy, [7])
    run(env, policy, [8])
    torch.manual_seed(99)
    again = run(env, policy, [7])
    assert torch.equal(first["action"], again["action"])
    assert not torch.equal(first["action"][:, 0], run(env, policy, [8])["action"][:, 0])


def test_a_seeded_rollout_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    run(make_reach(), make_policy(), [7])
    assert torch.equal(torch.rand(3), expected)


def test_the_task_is_the_one_of_the_episode_not_of_the_next():
    result = run(make_reach(), make_policy(), [7])
    fresh = make_reach()
    fresh.reset(seed=[7])
    assert result["task"] == [simulators(fresh)[0].task]


def test_pictures_are_drawn_only_when_a_chunk_is_planned():
    env, policy = make_reach(), make_policy(noise=0.0)
    lazy = run(env, policy, [7])
    steps = lazy["done"].shape[1]
    assert policy.seen == -(-steps // 4) > 1
    # The end is known only afterwards: its picture, and the one of the start that follows, are drawn too.
    assert simulators(env)[0].drawn <= policy.seen + 2

    env, forgetful = make_reach(), make_policy(ForgetfulPolicy, noise=0.0)
    steps = run(env, forgetful, [7])["done"].shape[1]
    assert forgetful.seen == steps
    assert simulators(env)[0].drawn == steps + 2  # reset, every step, and the reset that follows the end


def test_observations_are_returned_with_the_one_before_the_first_step():
    result = run(make_reach(2), make_policy(), SEEDS[:2], return_observations=True)
    length = result["done"].shape[1]
    assert result["observation"]["observation.state"].shape == (2, length + 1, 2)
    pictures = result["observation"]["observation.images.front"]
    assert pictures.shape[:3] == (2, length + 1, 3)
    assert (pictures[0, 1] != pictures[0, 2]).any()  # no picture is stale


def test_render_callback_sees_the_reset_and_every_step():
    calls = []
    result = rollout(make_reach(), make_policy(), same, same, [7], render_callback=calls.append)
    assert len(calls) == result["done"].shape[1] + 1


def test_a_nan_action_names_the_checkpoint_and_the_seed():
    policy = make_policy()
    policy.gain.data.fill_(float("nan"))
    policy.config.pretrained_path = "outputs/run/checkpoints/000100/pretrained_model"
    with pytest.raises(ValueError, match=r"000100/pretrained_model.*nan.*step 0.*seed 7.*damaged"):
        run(make_reach(), policy, [7])


def test_actions_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 1, 2\), expected \(1, A\)"):
        rollout(make_reach(), make_policy(), same, lambda action: action[None], [7])


# --- many episodes -----------------------------------------------------------------------------------------


def test_evaluation_counts_exactly_the_asked_episodes():
    result = eval_policy(make_reach(2, time_limit=6), make_policy(noise=0.0), same, same, 5, start_seed=20)
    rows = result["per_episode"]
    assert [row["episode_ix"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["seed"] for row in rows] == [20, 21, 22, 23, 24]
    assert all(row["sum_reward"] == row["n_steps"] and row["max_reward"] == 1 for row in rows)
    successes = sum(row["success"] for row in rows)
    total = result["aggregated"]
    assert 0 < successes < 5
    assert total["pc_success"] == 20 * successes
    assert total["success_interval"][0] < total["pc_success"] < total["success_interval"][1]
    assert total["avg_sum_reward"] == pytest.approx(sum(row["sum_reward"] for row in rows) / 5)
    assert {"avg_max_reward", "eval_s", "eval_ep_s", "steps_per_s", "n_episodes"} <= total.keys()
    assert "video_paths" not in result and "episodes" not in result


def test_unseeded_evaluation_has_no_seeds():
    result = eval_policy(make_reach(2), make_policy(), same, same, 3)
    assert [row["seed"] for row in result["per_episode"]] == [None] * 3


def test_rendering_without_a_folder_is_refused():
    with pytest.raises(ValueError, match="videos_dir"):
        eval_policy(make_reach(), make_policy(), same, same, 1, max_episodes_rendered=1)


def test_episode_data_holds_the_frames_of_a_dataset():
    result = eval_policy(make_reach(2), make_policy(), same, same, 3, return_episode_data=True, start_seed=0)
    frames, lengths = result["episodes"], [row["n_steps"] for row in result["per_episode"]]
    assert all(len(value) == sum(lengths) for value in frames.values())
    assert frames["index"].tolist() == list(range(sum(lengths)))
    assert torch.bincount(frames["episode_index"]).tolist() == lengths
    assert int(frames["next.done"].sum()) == 3
    assert frames["timestamp"][1] == pytest.approx(1 / 30)
    assert {
        "observation.state",
        "observation.images.top",
        "action",
        "next.reward",
        "next.success",
    } <= frames.keys()


def test_several_tasks_are_summed_by_group_and_overall(tmp_path):
    envs = {"near": {0: make_reach(2), 1: make_reach(2)}, "short": {0: make_reach(1, time_limit=2)}}
    options = {"max_episodes_rendered": 1, "videos_dir": tmp_path, "start_seed": 0}
    result = eval_policy_all(envs, make_policy(noise=0.0), same, same, 3, **options)
    assert [(t["task_group"], t["task_id"]) for t in result["per_task"]] == [
        ("near", 0),
        ("near", 1),
        ("short", 0),
    ]
    assert result["per_group"]["near"]["pc_success"] == 100
    assert result["per_group"]["short"]["pc_success"] == 0
    assert result["overall"]["n_episodes"] == 9
    assert result["overall"]["pc_success"] == pytest.approx(200 / 3)
    assert {path.name for path in tmp_path.iterdir()} == {"near_0", "near_1", "short_0"}
    close_envs(envs)
