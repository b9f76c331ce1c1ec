"""Episodes of a policy in a gymnasium vector environment, and what they add up to."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lerobot.common.constants import ACTION, DONE, OBS_STR, REWARD, SUCCESS, TASK
from lerobot.common.envs.utils import add_envs_task, episode_successes, preprocess_observation
from lerobot.common.evaluation.env_processors import takes_env_processors
from lerobot.common.evaluation.intervals import wilson_interval
from lerobot.common.evaluation.video import EpisodeVideos
from lerobot.common.utils.device import mixed_precision


class FrameHook(Protocol):
    """Sees the state of a rollout after its reset (step 0) and after every step."""

    def wants(self, step: int) -> bool:
        """Whether the pictures of this step will be looked at (simulators need not draw the others)."""

    def __call__(self, step: int, observation: dict, info: dict, success: np.ndarray, done: np.ndarray) -> None:
        """Called with the environment's own observation and info; `success` and `done` are bool (B,)."""


@takes_env_processors
def rollout(
    env,
    policy,
    preprocessor: Callable[[dict], dict],
    postprocessor: Callable[[Tensor], Tensor],
    seeds: Sequence[int] | None = None,
    return_observations: bool = False,
    render_callback: Callable[[Any], None] | None = None,
    *,
    max_steps: int | None = None,
    on_frame: FrameHook | None = None,
) -> dict[str, Any]:
    """Run one episode in each of the B copies of a vector environment, up to each one's first end.

    What a copy does after its end (it starts anew or idles) is recorded as reward 0 without success.
    `seeds` (one per copy) seed the environments, and the first one torch's generator, which is put back
    afterwards; so an episode run with B = 1 depends on its seed only. `max_steps` ends every episode there;
    without it the environment's own time limit does.

    Returns action (B, T, A) as sent, reward float32 (B, T), success and (cumulative) done bool (B, T),
    `task` (one sentence per copy), with B = 1 the report of a policy that plays its chunks (`player`) and, if asked
    for, `observation`: dict of (B, T + 1, ...). Raises
    ValueError for an action that is not finite or not (B, A).
    """
    drawing = PictureSwitch(env)
    record: dict[str, list] = {ACTION: [], "reward": [], "success": [], "done": []}
    history, batch = [], None
    success = done = np.zeros(env.num_envs, dtype=bool)
    with _seeded(seeds, policy), torch.inference_mode(), mixed_precision(policy.config.device, policy.config.use_amp):
        _reset(policy, preprocessor, postprocessor)
        drawing.set(True)
        observation, info = env.reset(seed=None if seeds is None else list(seeds))
        tasks = add_envs_task(env, {})[TASK]
        for step in itertools.count():
            if return_observations:
                history.append(preprocess_observation(observation))
            if on_frame is not None:
                on_frame(step, observation, info, success, done)
            if render_callback is not None:
                render_callback(env)
            if done.all():
                break
            if batch is None or needs_observation(policy):
                batch = preprocessor(add_envs_task(env, preprocess_observation(observation)))
            action = postprocessor(policy.select_action(batch)).float().numpy()
            _check_action(action, ~done, policy, seeds, step)
            looked_at = return_observations or (on_frame is not None and on_frame.wants(step + 1))
            drawing.set(looked_at or needs_observation(policy))
            observation, reward, terminated, truncated, info = env.step(action)
            reward = np.where(done, 0.0, reward).astype(np.float32)
            success = episode_successes(info, env.num_envs) & ~done
            done = done | terminated | truncated | (step + 1 == max_steps)
            for key, value in zip(record, (action, reward, success, done), strict=True):
                record[key].append(value)
    result = {key: torch.from_numpy(np.stack(values, axis=1)) for key, values in record.items()}
    result[TASK] = list(tasks)
    if env.num_envs == 1 and hasattr(policy, "report"):
        result["player"] = policy.report()
    if return_observations:
        result[OBS_STR] = {k: torch.stack([one[k] for one in history], dim=1) for k in history[0]}
    return result


def needs_observation(policy) -> bool:
    """Whether the next `select_action` looks at its batch: not while a policy that can tell has actions
    queued.
    """
    ask = getattr(policy, "needs_observation", None)
    return True if ask is None else ask()


class PictureSwitch:
    """Tells environments that have `pixels_needed` which pictures are looked at, so that they draw no others.

    Set to False, such an environment repeats its last pictures. Others are left alone.
    """

    def __init__(self, env):
        self._env = env
        self._on: bool | None = None
        if hasattr(env, "envs"):
            self._simulators = [e.unwrapped for e in env.envs if hasattr(e.unwrapped, "pixels_needed")]

    def set(self, needed: bool) -> None:
        """Say whether the pictures of the next step or reset are looked at."""
        if needed == self._on:
            return
        self._on = needed
        if hasattr(self._env, "envs"):
            for simulator in self._simulators:
                simulator.pixels_needed = needed
        elif hasattr(self._env, "set_attr") and _reaches_inner_environments():
            self._env.set_attr("pixels_needed", needed)


def _reaches_inner_environments() -> bool:
    # Before gymnasium 1.0, set_attr of environments in other processes stops at the outermost wrapper.
    import gymnasium

    return hasattr(gymnasium.Env, "set_wrapper_attr")


def _reset(*parts) -> None:
    for part in parts:
        if hasattr(part, "reset"):
            part.reset()


@contextmanager
def _seeded(seeds: Sequence[int] | None, policy):
    if seeds is None:
        yield
        return
    device = torch.device(policy.config.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seeds[0])
        yield


def _check_action(action: np.ndarray, alive: np.ndarray, policy, seeds, step: int) -> None:
    if action.ndim != 2 or len(action) != len(alive):
        raise ValueError(f"{_name(policy)} gave actions of shape {action.shape}, expected ({len(alive)}, A).")
    bad = alive & ~np.isfinite(action).all(axis=1)
    if bad.any():
        i = int(bad.argmax())
        seed = "" if seeds is None else f" of the episode with seed {seeds[i]}"
        raise ValueError(
            f"{_name(policy)} gave the action {action[i].tolist()} at step {step}{seed}: expected finite "
            "numbers. Its weights or its normalization statistics are damaged, or training diverged; use an "
            "earlier checkpoint."
        )


def _name(policy) -> str:
    return f"Policy '{policy.name}' ({policy.config.pretrained_path or 'not from a checkpoint'})"


# --- many episodes -----------------------------------------------------------------------------------------


@takes_env_processors
def eval_policy(
    env,
    policy,
    preprocessor,
    postprocessor,
    n_episodes: int,
    max_episodes_rendered: int = 0,
    videos_dir: Path | None = None,
    return_episode_data: bool = False,
    start_seed: int | None = None,
) -> dict[str, Any]:
    """Run `n_episodes` with seeds start_seed, start_seed + 1, ... in a vector environment.

    Returns `per_episode`, `aggregated` (see `summarize`), with rendering `video_paths`, and if asked for
    `episodes`: every frame of every episode as one dict of tensors with the keys of a dataset. Raises
    ValueError for rendering without a folder.
    """
    if max_episodes_rendered > 0 and videos_dir is None:
        raise ValueError(f"max_episodes_rendered={max_episodes_rendered} needs videos_dir, a folder for the videos.")
    start = time.perf_counter()
    policy.eval()
    rows, frames = [], []
    with tqdm(total=n_episodes, desc="Episodes", disable=None, leave=False) as bar:
        for first in range(0, n_episodes, env.num_envs):
            count = min(env.num_envs, n_episodes - first)
            seeds = None if start_seed is None else [start_seed + first + i for i in range(env.num_envs)]
            filmed = min(count, max_episodes_rendered - first)
            result, videos = run_filmed(
                env,
                policy,
                preprocessor,
                postprocessor,
                seeds,
                first,
                filmed,
                videos_dir,
                return_episode_data,
            )
            rows += episode_rows(result, seeds, first, videos)[:count]
            if return_episode_data:
                frames += [episode_frames(result, i, first + i, env) for i in range(count)]
            bar.update(count)
    return evaluation_result(rows, time.perf_counter() - start, frames)


def run_filmed(
    env, policy, preprocessor, postprocessor, seeds, first, filmed: int, folder, observations: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """One rollout whose first `filmed` copies are written as videos into `folder`; returns it and their
    paths.
    """
    if filmed <= 0:
        return rollout(env, policy, preprocessor, postprocessor, seeds, observations), []
    films = EpisodeVideos(env, folder, first, (seeds or [None] * filmed)[:filmed])
    try:
        result = rollout(env, policy, preprocessor, postprocessor, seeds, observations, on_frame=films)
    finally:
        films.discard()
    return result, films.paths


def valid_steps(done: Tensor) -> Tensor:
    """Steps up to and including the first end of each episode: bool (B, T) from cumulative done (B, T)."""
    before = torch.cat([torch.zeros_like(done[:, :1]), done[:, :-1]], dim=1)
    return ~before


def episode_rows(
    result: dict[str, Any], seeds: Sequence[int] | None, first: int, videos: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """One dict per copy of a rollout, numbered from `first`: rewards, success, seed, length, task and
    video.
    """
    valid = valid_steps(result["done"])
    rows = []
    for i in range(len(valid)):
        reward = result["reward"][i][valid[i]]
        played = {"player": result["player"]} if "player" in result else {}
        rows.append(
            {
                **played,
                "episode_ix": first + i,
                "sum_reward": reward.sum().item(),
                "max_reward": reward.max().item(),
                "success": bool(result["success"][i].any()),
                "seed": None if seeds is None else seeds[i],
                "n_steps": int(valid[i].sum()),
                TASK: result[TASK][i],
                "video": videos[i] if i < len(videos) else None,
            }
        )
    return rows


def evaluation_result(rows: list[dict], seconds: float, frames: Sequence[dict[str, Tensor]] = ()) -> dict[str, Any]:
    """The dict that an evaluation returns: episodes in their order, their summary, videos, and (if any)
    frames.
    """
    rows = sorted(rows, key=lambda row: row["episode_ix"])
    result: dict[str, Any] = {"per_episode": rows, "aggregated": summarize(rows, seconds)}
    if paths := [row["video"] for row in rows if row["video"]]:
        result["video_paths"] = paths
    if frames:
        joined = {key: torch.cat([one[key] for one in frames]) for key in frames[0]}
        result["episodes"] = {**joined, "index": torch.arange(len(joined["frame_index"]))}
    return result


def summarize(rows: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Means over episodes; `pc_success` and its 95 % Wilson bounds `success_interval` are in percent."""
    successes = sum(row["success"] for row in rows)
    low, high = wilson_interval(successes, len(rows))
    return {
        "avg_sum_reward": float(np.nanmean([row["sum_reward"] for row in rows])),
        "avg_max_reward": float(np.nanmean([row["max_reward"] for row in rows])),
        "pc_success": 100.0 * successes / len(rows),
        "success_interval": [100.0 * low, 100.0 * high],
        "n_episodes": len(rows),
        "n_success": successes,
        "avg_n_steps": float(np.mean([row["n_steps"] for row in rows])),
        "steps_per_s": sum(row["n_steps"] for row in rows) / seconds,
        "eval_s": seconds,
        "eval_ep_s": seconds / len(rows),
    }


def episode_frames(result: dict[str, Any], index: int, episode: int, env) -> dict[str, Tensor]:
    """The frames of one copy of a rollout as a dataset has them: tensors of equal length, without the last
    state.
    """
    length = int(valid_steps(result["done"])[index].sum())
    number = torch.arange(length)
    return {
        **{key: value[index, :length] for key, value in result[OBS_STR].items()},
        ACTION: result[ACTION][index, :length],
        "episode_index": torch.full((length,), episode),
        "frame_index": number,
        "timestamp": number / env.metadata.get("render_fps", 1),
        REWARD: result["reward"][index, :length],
        DONE: result["done"][index, :length],
        SUCCESS: result["success"][index, :length],
    }
