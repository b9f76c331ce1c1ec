#!/usr/bin/env python
"""Convert a v2.0 dataset to v2.1 (statistics per episode), into a new folder.

    python lerobot/common/datasets/v21/convert_dataset_v20_to_v21.py --root=old_grasps --output=my_grasps

The statistics are computed from the frames and compared with the stored ones. Killed, it continues when started
again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lerobot.common.datasets.compute_stats import aggregate_stats
from lerobot.common.datasets.conversion import Conversion, argument_parser, progress, report, verify_same
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.recompute import recompute_episode_stats
from lerobot.common.datasets.utils import (
    CODEBASE_VERSION,
    EPISODES_PATH,
    EPISODES_STATS_PATH,
    TASKS_PATH,
    DatasetError,
    load_json,
    serialize_stats,
    write_jsonlines,
)
from lerobot.common.utils.io_utils import write_json
from lerobot.common.utils.utils import init_logging, run_command

V20 = "v2.0"
PICTURE_TOLERANCE = {"rtol": 1e-2, "atol": 1e-2}  # other frames may have been sampled
NUMBER_TOLERANCE = {"rtol": 5e-6, "atol": 6e-5}


def convert(source: LeRobotDataset, output: Path, verify: bool = True, dry_run: bool = False) -> Path:
    """Write `source` (v2.0) as v2.1 to `output`, which must be new; returns it.

    ValueError for another version, DatasetError if the statistics contradict the stored ones.
    """
    meta = source.meta
    if meta.info["codebase_version"] != V20:
        raise ValueError(f"'{meta.root}' is {meta.info['codebase_version']}; expected {V20}.")
    if dry_run:
        print(f"'{meta.root}' (v2.0) would become '{output}' (v2.1): {EPISODES_STATS_PATH} is new, the rest is copied.")
        return output
    conversion = Conversion(output, {"from": meta.root.resolve(), "to": CODEBASE_VERSION})
    stats = {}
    for episode in progress(source.episode_indices, "Statistics"):
        stats[episode] = _episode_stats(conversion, source, episode)
    check_against_stored(aggregate_stats(list(stats.values())), meta.stats, meta.camera_keys)
    for path in progress(source.get_episodes_file_paths(), "Copying", "file"):
        conversion.copy(meta.root / path, path)
    for path in (TASKS_PATH, EPISODES_PATH):
        conversion.copy(meta.root / path, path)
    lines = [{"episode_index": episode, "stats": serialize_stats(values)} for episode, values in stats.items()]
    conversion.file(EPISODES_STATS_PATH, lambda partial: write_jsonlines(lines, partial))
    conversion.finish({**meta.info, "codebase_version": CODEBASE_VERSION})
    if verify:
        verify_same(source, LeRobotDataset(root=output), decode=False)  # the video files are copies
    return output


def _episode_stats(conversion: Conversion, source: LeRobotDataset, episode: int) -> dict:
    """Computed once; a resumed conversion reads them back."""
    place = conversion.notes / f"stats_{episode}.json"
    if not place.exists():
        write_json(serialize_stats(recompute_episode_stats(source, episode)), place)
    stored = load_json(place)
    return {key: {name: np.atleast_1d(np.array(v)) for name, v in values.items()} for key, values in stored.items()}


def check_against_stored(computed: dict, stored: dict, camera_keys: list[str]) -> None:
    """DatasetError naming a feature whose whole statistics are not those that v2.0 stored."""
    for key, values in stored.items():
        tolerance = PICTURE_TOLERANCE if key in camera_keys else NUMBER_TOLERANCE
        for name in ("mean", "std", "min", "max"):
            if key not in computed or name not in values or (key in camera_keys and name in ("min", "max")):
                continue
            found, expected = (np.asarray(v[name], dtype=np.float64) for v in (computed[key], values))
            if not np.allclose(found, expected, **tolerance):
                raise DatasetError(
                    f"The {name} of '{key}' computed from the frames is {found.ravel()[:3]}, but meta/stats.json has "
                    f"{expected.ravel()[:3]}. The files do not belong together, or stats.json is out of date: "
                    "delete this feature's entry there to go on."
                )


def main() -> None:
    """Entry point of the command line."""
    init_logging()
    args = argument_parser(__doc__).parse_args()
    source = LeRobotDataset(args.repo_id, root=args.root, revision=V20)
    convert(source, args.output, verify=not args.no_verify, dry_run=args.dry_run)
    if not args.dry_run:
        report(args.output, len(source), not args.no_verify)


if __name__ == "__main__":
    run_command(main)
