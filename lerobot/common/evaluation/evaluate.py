"""One call that evaluates a policy in an environment: features compared, processes chosen, result shown."""

from __future__ import annotations

import importlib
import logging
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import draccus
import numpy as np
import torch
from tqdm import tqdm

from lerobot.common.constants import ACTION, OBS_IMAGES
from lerobot.common.envs.factory import make_env
from lerobot.common.envs.utils import preprocess_observation
from lerobot.common.evaluation.filming import film_again, list_films, missing_films
from lerobot.common.evaluation.rollout import eval_policy, evaluation_result
from lerobot.common.evaluation.video import discard_partial
from lerobot.common.evaluation.workers import EpisodeWorkers
from lerobot.common.player import blending
from lerobot.common.policies.cameras import is_empty_camera
from lerobot.common.policies.pretrained import count_parameters
from lerobot.common.training.record import read_record

SMALL_POLICY = 50_000_000  # parameters below which one thread computes a policy on a CPU
MOST_LOCKSTEP = 64  # environments that share one batch of a policy on a GPU


def evaluate(
    env_cfg,
    eval_cfg,
    policy,
    preprocessor,
    postprocessor,
    *,
    videos_dir: str | Path | None = None,
    n_videos: int = 10,
    start_seed: int | None = None,
) -> dict[str, Any]:
    """Run `eval_cfg.n_episodes` episodes and return the result of `eval_policy`.

    On a CPU with `use_async_envs`, whole episodes run in processes of their own, which gives the same
    numbers as one after the other. Otherwise `batch_size` environments step together and share the policy's
    batch. Videos of the first `n_videos` episodes go to `videos_dir` (None: no videos), and of more where
    these lack successes or failures. Raises ValueError if environment and policy do not fit together.
    """
    check_units(env_cfg, policy.config)
    n_videos = 0 if videos_dir is None else min(n_videos, eval_cfg.n_episodes)
    on_cpu = str(policy.config.device) == "cpu"
    side_by_side = parallel_episodes(eval_cfg, on_cpu)
    if on_cpu and eval_cfg.use_async_envs:
        parts = (policy, preprocessor, postprocessor)
        return _evaluate_in_workers(env_cfg, eval_cfg, side_by_side, parts, videos_dir, n_videos, start_seed)
    env = make_env(env_cfg, side_by_side, eval_cfg.use_async_envs)
    try:
        check_features(env, policy.config, preprocessor)
        parts = policy, preprocessor, postprocessor
        if eval_cfg.plays:
            parts = with_player(*parts, eval_cfg.player, eval_cfg.latency_ms, env, eval_cfg.fade)
        with _few_threads(policy, on_cpu):
            result = eval_policy(
                env,
                *parts,
                eval_cfg.n_episodes,
                max_episodes_rendered=n_videos,
                videos_dir=videos_dir,
                start_seed=start_seed,
            )
            film_again(env, *parts, result["per_episode"], n_videos, videos_dir)
            return list_films(result)
    finally:
        env.close()


def parallel_episodes(eval_cfg, on_cpu: bool) -> int:
    """How many episodes run at a time: `batch_size`, or chosen from the number of cores when that is 0."""
    if eval_cfg.batch_size > 0:
        return min(eval_cfg.batch_size, eval_cfg.n_episodes)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if on_cpu:
        return min(cores, eval_cfg.n_episodes) if eval_cfg.use_async_envs else 1
    return min(max(1, int(0.7 * cores)), eval_cfg.n_episodes, MOST_LOCKSTEP)


@contextmanager
def _few_threads(policy, on_cpu: bool):
    # Beside the simulator, a second thread slows small policies down several times on a busy machine.
    before = torch.get_num_threads()
    if on_cpu and count_parameters(policy) < SMALL_POLICY:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- processes ---------------------------------------------------------------------------------------------


def _evaluate_in_workers(env_cfg, eval_cfg, n_workers, parts, videos_dir, n_videos, start_seed) -> dict[str, Any]:
    folder = None if videos_dir is None else str(Path(videos_dir).resolve())
    jobs = [
        {
            "episode_ix": i,
            "seed": None if start_seed is None else start_seed + i,
            "videos_dir": folder if i < n_videos else None,
        }
        for i in range(eval_cfg.n_episodes)
    ]
    try:
        with EpisodeWorkers(n_workers) as workers, tempfile.TemporaryDirectory() as checkpoint:
            for part in parts:
                part.save_pretrained(checkpoint)
            registering = [type(env_cfg).__module__, type(parts[0].config).__module__]
            encoded = {"type": env_cfg.type, **draccus.encode(env_cfg)}  # draccus 0.10 gives the type, 0.11 does not
            names = ("player", "latency_ms", "fade")
            playing = {name: getattr(eval_cfg, name) for name in names} if eval_cfg.plays else None
            workers.load(checkpoint=checkpoint, env=encoded, modules=registering, playing=playing)
            start = time.perf_counter()
            with tqdm(total=len(jobs), desc="Episodes", disable=None, leave=False) as bar:
                rows = workers.run(jobs, on_result=lambda _: bar.update())
            result = evaluation_result(rows, time.perf_counter() - start)
            again = missing_films(rows, n_videos)
            jobs = [{"episode_ix": row["episode_ix"], "seed": row["seed"], "videos_dir": folder} for row in again]
            for row, filmed in zip(again, workers.run(jobs), strict=True):
                row["video"] = filmed["video"]
            return list_films(result)
    finally:
        discard_partial(folder)


def load_for_worker(checkpoint: str, env: dict[str, Any], modules: list[str], playing: dict | None = None) -> tuple:
    """An environment, and a policy with its processors from a folder, inside a worker.

    `modules` register the classes that `env` and the checkpoint's config.json name by their type. `playing`: what
    `with_player` takes of a chunk player.
    """
    for module in modules:
        importlib.import_module(module)
    from lerobot.common.policies.common.fast_inference import use_inference_mode
    from lerobot.common.policies.factory import get_policy_class, make_pre_post_processors
    from lerobot.configs.policies import PreTrainedConfig

    config = PreTrainedConfig.from_pretrained(checkpoint)
    policy = get_policy_class(config.type).from_pretrained(checkpoint, config=config)
    use_inference_mode(policy)
    preprocessor, postprocessor = make_pre_post_processors(config, pretrained_path=checkpoint)
    vector_env = make_env(draccus.decode(_env_base(), env), 1)
    check_features(vector_env, config, preprocessor)
    parts = policy, preprocessor, postprocessor
    return vector_env, *(with_player(*parts, env=vector_env, **playing) if playing else parts)


def with_player(
    policy, preprocessor, postprocessor, player: str, latency_ms: float, env, fade: int = blending.FADE
) -> tuple:
    """(policy, preprocessor, postprocessor) for a rollout in which a chunk player sends the actions.

    player, latency_ms, fade: as in `EvalConfig`.
    Raises ValueError for a policy whose chunks cannot be played.
    """
    from lerobot.common.player.planners import prepare_player
    from lerobot.common.player.played_policy import PlayedPolicy

    prepare_player(player, policy, "--eval.player", "--eval.player=sync --eval.latency_ms=0")
    fps = env.metadata.get("render_fps")
    if not fps:
        raise ValueError("--eval.player: the environment does not say its rate (render_fps in its metadata).")
    parts = policy, preprocessor, postprocessor
    played = PlayedPolicy(*parts, player, latency_ms / 1000, fps, blending.fade(fade))
    return played, _unchanged, _unchanged


def _unchanged(value):
    return value


def _env_base() -> type:
    from lerobot.common.envs.configs import EnvConfig

    return EnvConfig


# --- features ----------------------------------------------------------------------------------------------


def check_features(env, config, preprocessor=None) -> None:
    """Compare what an environment gives with what a policy was trained on, before anything runs.

    Raises ValueError with both lists if a camera or a state is missing or has another shape, or if the
    action has another width. A policy that resizes its pictures takes any size.
    """
    given = environment_shapes(env, rename_map_of(preprocessor))
    check_shapes(given, config, "environment", "Use the --env.* settings that it was trained with, or")


def check_units(env_cfg, config) -> None:
    """Raise ValueError if an environment's joint values are in other units than those a checkpoint learnt from."""
    from lerobot.common.checks.robot import recorded_units

    ours, record = getattr(env_cfg, "units", None), config.pretrained_path and read_record(config.pretrained_path)
    if ours is None or not record:
        return
    dataset = record["dataset"]
    action = dataset.get("features", {}).get(ACTION, {})
    theirs = recorded_units(dataset.get("units"), action, dataset.get("stats", {}))
    if theirs not in (None, ours):
        raise ValueError(
            f"--env.units={ours}: the checkpoint ({config.pretrained_path}) learnt from joint values in '{theirs}'. "
            f"Use --env.units={theirs}."
        )


def check_shapes(given: dict[str, tuple[int, ...]], config, source: str, hint: str = "Use") -> None:
    """Raise ValueError if features (channel-first shapes, by the checkpoint's names) of `source` do not fit."""
    wanted = {k: tuple(f.shape) for k, f in {**config.input_features, **config.output_features}.items()}
    resizes = any(getattr(config, name, None) for name in ("image_size", "resize_imgs_with_padding", "resize_shape"))
    may_lack = getattr(config, "empty_cameras", None)
    problems = []
    for key, shape in wanted.items():
        if is_empty_camera(key):
            continue
        if key not in given:
            if key in config.image_features and may_lack:
                may_lack -= 1
                logging.warning("%s is absent: the policy runs with an empty camera in its place.", key)
                continue
            problems.append(f"'{key}' is missing")
        elif given[key] != shape and not (resizes and key in config.image_features):
            problems.append(f"'{key}' has another shape")
    if problems:
        width = max(len("checkpoint"), len(source)) + 1
        raise ValueError(
            f"The {source} does not fit the checkpoint ({config.pretrained_path or config.type}): "
            f"{', '.join(problems)}.\n  {'checkpoint:':<{width}} {_listing(wanted)}\n"
            f"  {source + ':':<{width}} {_listing(given)}\n"
            f'{hint} --rename_map={{"<{source}>": "<checkpoint>"}}'
            + (", or --policy.empty_cameras=1 to run without one of the cameras." if may_lack is not None else ".")
        )


def environment_shapes(env, rename_map: dict[str, str]) -> dict[str, tuple[int, ...]]:
    """Shapes, without batch axis, of what a policy is given (pictures channel-first) and of its action."""
    from gymnasium.vector.utils import create_empty_array

    batch = preprocess_observation(create_empty_array(env.single_observation_space, n=1, fn=np.zeros))
    shapes = {rename_map.get(key, key): tuple(value.shape[1:]) for key, value in batch.items()}
    return {**shapes, ACTION: tuple(env.single_action_space.shape)}


def rename_map_of(preprocessor) -> dict[str, str]:
    """Which observations a preprocessor renames, and to what."""
    maps = [getattr(step, "rename_map", {}) for step in getattr(preprocessor, "steps", ())]
    return {key: name for one in maps for key, name in one.items()}


def _listing(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{key.removeprefix(OBS_IMAGES + '.')} {'x'.join(map(str, s))}" for key, s in shapes.items())


# --- report ------------------------------------------------------------------------------------------------


def format_result(result: dict[str, Any], title: str = "") -> str:
    """A few lines for the terminal: success with its interval, rewards, lengths, speed, and the seeds that
    failed.
    """
    total, rows = result["aggregated"], result["per_episode"]
    low, high = total["success_interval"]
    failed = [row["seed"] for row in rows if not row["success"] and row["seed"] is not None]
    seeds = [row["seed"] for row in rows]
    lines = {
        "seeds": f"{seeds[0]}-{seeds[-1]}" if seeds[0] is not None else "none (random)",
        "success": f"{total['pc_success']:.1f} %   ({total['n_success']} of {total['n_episodes']}; "
        f"95 % interval {low:.1f}-{high:.1f} %)",
        "reward": f"{total['avg_sum_reward']:.3f} summed, {total['avg_max_reward']:.3f} at best (means)",
        "length": f"{total['avg_n_steps']:.0f} steps (mean)",
        "speed": f"{total['steps_per_s']:.0f} steps/s, {total['eval_s']:.1f} s in all",
    }
    if played := [row["player"] for row in rows if "player" in row]:
        lines["player"] = _players_line(played)
    if failed:
        lines["failed"] = "seeds " + ", ".join(map(str, failed[:20])) + (", ..." if len(failed) > 20 else "")
    return "\n".join([*([title] if title else []), *(f"  {name:<9}{text}" for name, text in lines.items())])


def _players_line(reports: list[dict[str, Any]]) -> str:
    """Means over episodes of what the players report."""

    def mean(key: str) -> float:
        return float(np.mean([r[key] for r in reports if r[key] is not None] or [np.nan]))

    return (
        f"{reports[0]['mode']}: {mean('seams'):.1f} seams an episode, jump {mean('seam_jump'):.2f}, "
        f"jerk {mean('jerk'):.0f}/s3, {mean('held'):.1f} frames held (means)"
    )
