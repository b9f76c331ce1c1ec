"""Which episodes are on film: the first ones, and as many successes as failures where there are both."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from lerobot.common.evaluation.rollout import run_filmed


def missing_films(rows: list[dict[str, Any]], n_videos: int) -> list[dict[str, Any]]:
    """The episodes to run again for a film, so that `n_videos // 2` of each outcome have one, as far as they exist.

    Only episodes with a seed can be run again.
    """
    chosen = []
    for outcome in (True, False):
        same = [row for row in rows if row["success"] == outcome]
        lacking = n_videos // 2 - sum(row["video"] is not None for row in same)
        repeatable = [row for row in same if row["video"] is None and row["seed"] is not None]
        chosen += repeatable[: max(0, lacking)]
    return chosen


def film_again(env, policy, preprocessor, postprocessor, rows: list[dict[str, Any]], n_videos: int, folder) -> None:
    """Repeat episodes with their seeds beside the same others, and set their `video`."""
    batches = defaultdict(list)
    for row in missing_films(rows, n_videos):
        batches[row["episode_ix"] // env.num_envs * env.num_envs].append(row)
    for first, wanted in batches.items():
        seeds = [wanted[0]["seed"] - wanted[0]["episode_ix"] + first + i for i in range(env.num_envs)]
        count = max(row["episode_ix"] for row in wanted) - first + 1
        _, films = run_filmed(env, policy, preprocessor, postprocessor, seeds, first, count, folder)
        for row in wanted:
            row["video"] = films[row["episode_ix"] - first]
        kept = {row["video"] for row in rows}
        for film in films:
            if film not in kept:
                Path(film).unlink()


def list_films(result: dict[str, Any]) -> dict[str, Any]:
    """The result of an evaluation with the films of its episodes in `video_paths`."""
    paths = [row["video"] for row in result["per_episode"] if row["video"]]
    return {**result, "video_paths": paths} if paths else result
