"""Evaluation over several tasks: `{group: {task_id: vector environment}}`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from lerobot.common.evaluation.env_processors import takes_env_processors
from lerobot.common.evaluation.intervals import wilson_interval
from lerobot.common.evaluation.rollout import eval_policy


class TaskMetrics(TypedDict):
    """What the episodes of one task gave, in their order."""

    sum_rewards: list[float]
    max_rewards: list[float]
    successes: list[bool]
    video_paths: list[str]


ACC_KEYS = ("sum_rewards", "max_rewards", "successes", "video_paths")


@takes_env_processors
def eval_one(
    env,
    *,
    policy,
    preprocessor,
    postprocessor,
    n_episodes: int,
    max_episodes_rendered: int = 0,
    videos_dir: Path | None = None,
    return_episode_data: bool = False,
    start_seed: int | None = None,
) -> TaskMetrics:
    """Evaluate one task and keep its numbers per episode."""
    result = eval_policy(
        env,
        policy,
        preprocessor,
        postprocessor,
        n_episodes,
        max_episodes_rendered=max_episodes_rendered,
        videos_dir=videos_dir,
        return_episode_data=return_episode_data,
        start_seed=start_seed,
    )
    rows = result["per_episode"]
    return TaskMetrics(
        sum_rewards=[row["sum_reward"] for row in rows],
        max_rewards=[row["max_reward"] for row in rows],
        successes=[row["success"] for row in rows],
        video_paths=result.get("video_paths", []),
    )


def run_one(
    task_group: str, task_id: int, env, *, videos_dir: Path | None = None, **options
) -> tuple[str, int, TaskMetrics]:
    """`eval_one` with its videos in `videos_dir/<group>_<task>`; returns group, task and numbers."""
    folder = None if videos_dir is None else Path(videos_dir) / f"{task_group}_{task_id}"
    return task_group, task_id, eval_one(env, videos_dir=folder, **options)


@takes_env_processors
def eval_policy_all(
    envs: dict[str, dict[int, Any]],
    policy,
    preprocessor,
    postprocessor,
    n_episodes: int,
    *,
    max_episodes_rendered: int = 0,
    videos_dir: Path | None = None,
    return_episode_data: bool = False,
    start_seed: int | None = None,
    max_parallel_tasks: int = 1,
) -> dict[str, Any]:
    """Evaluate every task of every group; returns `per_task`, `per_group` and `overall`.

    Tasks run one after the other whatever `max_parallel_tasks` says: they share one policy, which holds the
    queue of one task's actions.
    """
    start = time.perf_counter()
    per_task = []
    for group, tasks in envs.items():
        for task_id, env in tasks.items():
            _, _, metrics = run_one(
                group,
                task_id,
                env,
                policy=policy,
                preprocessor=preprocessor,
                postprocessor=postprocessor,
                n_episodes=n_episodes,
                max_episodes_rendered=max_episodes_rendered,
                videos_dir=videos_dir,
                return_episode_data=return_episode_data,
                start_seed=start_seed,
            )
            per_task.append({"task_group": group, "task_id": task_id, "metrics": metrics})
    seconds = time.perf_counter() - start
    groups = {
        group: _aggregate([task["metrics"] for task in per_task if task["task_group"] == group]) for group in envs
    }
    overall = _aggregate([task["metrics"] for task in per_task])
    overall |= {"eval_s": seconds, "eval_ep_s": seconds / max(1, overall["n_episodes"])}
    return {"per_task": per_task, "per_group": groups, "overall": overall}


def _aggregate(tasks: Sequence[TaskMetrics]) -> dict[str, Any]:
    joined = {key: [value for task in tasks for value in task[key]] for key in ACC_KEYS}
    successes, count = sum(joined["successes"]), len(joined["successes"])
    return {
        "avg_sum_reward": float(np.nanmean(joined["sum_rewards"])),
        "avg_max_reward": float(np.nanmean(joined["max_rewards"])),
        "pc_success": 100.0 * successes / count,
        "success_interval": [100.0 * bound for bound in wilson_interval(successes, count)],
        "n_episodes": count,
        "video_paths": joined["video_paths"],
    }


def close_envs(obj: Any) -> None:
    """Close an environment, or every one in nested dicts and lists."""
    if isinstance(obj, dict):
        obj = list(obj.values())
    if isinstance(obj, (list, tuple)):
        for env in obj:
            close_envs(env)
    else:
        obj.close()
