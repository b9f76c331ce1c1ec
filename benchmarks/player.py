"""What a chunk player gains: episode time, success and smoothness of sync, async and rtc in the twin.

python benchmarks/player.py --policy CHECKPOINT [--seeds 200] [--first_seed 10000] [--latency_ms 200] [--out FILE]
python benchmarks/player.py --show FILE [FILE ...]

Every mode runs the same seeds, with the same simulated latency. Episode time is compared on seeds where both modes
succeed: the cut of the mean with its 95 % bounds (bootstrap over seeds), and the median of the pairs' cuts. The
success difference is paired, with its 95 % bounds. Results go to --out after every seed, and a second run with the
same --out continues there; --show puts files of several runs together (two workers with seeds or modes of their own;
a later file replaces a mode of an earlier one), of seeds that have sync, async and rtc. Mode `abrupt`: async without
fading.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from lerobot.common.envs.factory import make_env, make_env_config
from lerobot.common.evaluation.evaluate import with_player
from lerobot.common.evaluation.rollout import episode_rows, rollout
from lerobot.common.player.blending import FADE
from lerobot.common.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.common.utils.io_utils import write_json
from lerobot.configs.policies import PreTrainedConfig

MODES = {"sync": "sync", "async": "async", "rtc": "rtc", "abrupt": "async"}
FPS = 30


def make_parts(path: str, mode: str, args: argparse.Namespace, env) -> tuple:
    """A policy of its own for each mode: rtc changes its configuration."""
    config = PreTrainedConfig.from_pretrained(path)
    config.device, config.use_amp, config.n_action_steps = "cpu", False, args.n_action_steps
    policy = get_policy_class(config.type).from_pretrained(path, config=config)
    processors = make_pre_post_processors(config, pretrained_path=path)
    fade = 0 if mode == "abrupt" else FADE
    return with_player(policy, *processors, MODES[mode], args.latency_ms, env, fade)


def run(args: argparse.Namespace) -> list[dict]:
    """One row per seed: mode -> the episode's numbers."""
    torch.set_num_threads(1)
    env = make_env(make_env_config("koch", task=args.task), 1)
    out = Path(args.out)
    rows = json.loads(out.read_text()) if out.exists() else []
    parts = {mode: make_parts(args.policy, mode, args, env) for mode in args.modes.split(",")}
    for seed in range(args.first_seed + len(rows), args.first_seed + args.seeds):
        row = {"seed": seed}
        for mode in parts:
            episode = episode_rows(rollout(env, *parts[mode], seeds=[seed]), [seed], 0)[0]
            row[mode] = {"success": episode["success"], "steps": episode["n_steps"], **episode["player"]}
        rows.append(row)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(rows, out)
    env.close()
    return rows


def paired_difference(ours: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
    """Mean of `ours - reference` (success, in points) and its 95 % bounds, each seed being its own control."""
    difference = 100.0 * (ours.astype(float) - reference.astype(float))
    margin = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
    return difference.mean(), difference.mean() - margin, difference.mean() + margin


def mean_cut(ours: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
    """By how much the mean time is shorter (percent), and its 95 % bounds when the seeds are drawn again."""
    drawn = np.random.default_rng(0).integers(0, len(ours), (4000, len(ours)))
    cuts = 100 * (1 - ours[drawn].mean(1) / reference[drawn].mean(1))
    return 100 * (1 - ours.mean() / reference.mean()), *np.percentile(cuts, (2.5, 97.5))


def report(rows: list[dict]) -> str:
    """A table, one line per mode."""

    def column(mode: str, key: str) -> np.ndarray:
        return np.array([np.nan if row[mode][key] is None else row[mode][key] for row in rows], dtype=float)

    lines = [
        "mode   success  difference to sync     time, both succeed  cut (95 %, median)         seam jump  jerk/s3  held"
    ]
    modes = [mode for mode in MODES if mode in rows[0]]
    success = {mode: column(mode, "success").astype(bool) for mode in modes}
    for mode in modes:
        both = success[mode] & success["sync"]
        ours, theirs = column(mode, "steps")[both] / FPS, column("sync", "steps")[both] / FPS
        cut, least, most = mean_cut(ours, theirs)
        median = 100 * np.median(1 - ours / theirs)
        mean, low, high = paired_difference(success[mode], success["sync"])
        lines.append(
            f"{mode:<6} {100 * success[mode].mean():5.1f} %  {mean:+5.1f} ({low:+.1f} to {high:+.1f})  "
            f"{ours.mean():6.2f} s of {theirs.mean():5.2f} s  "
            f"{cut:4.1f} % ({least:4.1f} to {most:4.1f}, {median:4.1f})  "
            f"{np.nanmean(column(mode, 'seam_jump')):7.2f}  {np.nanmean(column(mode, 'jerk')):8.0f}  "
            f"{column(mode, 'held').mean():5.1f}"
        )
    jumps = {mode: np.nanmean(column(mode, "seam_jump")) for mode in modes}
    return "\n".join([*lines, f"seam jump of rtc / async: {jumps['rtc'] / jumps['async']:.2f}   ({len(rows)} seeds)"])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy")
    parser.add_argument("--show", nargs="+", metavar="FILE", help="files of earlier runs")
    parser.add_argument("--modes", default="sync,async,rtc", help="some of them, or abrupt as well")
    parser.add_argument("--task", default="KochPickPlace-v0")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first_seed", type=int, default=10_000)
    parser.add_argument("--latency_ms", type=float, default=200.0)
    parser.add_argument("--n_action_steps", type=int, default=15)
    parser.add_argument("--out", default="outputs/benchmarks/player.json")
    args = parser.parse_args()
    if bool(args.policy) == bool(args.show):
        parser.error("expected --policy CHECKPOINT to run, or --show FILE to put results together")
    if not set(args.modes.split(",")) <= set(MODES):
        parser.error(f"--modes={args.modes}: expected {', '.join(MODES)}")
    rows = put_together(args.show) if args.show else run(args)
    compared = [row for row in rows if {"sync", "async", "rtc"} <= row.keys()]
    print(report(compared) if compared else f"{len(rows)} seeds; a comparison needs sync, async and rtc of the same.")


def put_together(files: list[str]) -> list[dict]:
    """The rows of several files, seed by seed."""
    rows: dict[int, dict] = {}
    for path in files:
        for row in json.loads(Path(path).read_text()):
            rows.setdefault(row["seed"], {}).update(row)
    return [rows[seed] for seed in sorted(rows)]


if __name__ == "__main__":
    main()
