#!/usr/bin/env python
"""Convert a v1.6 dataset to v2.0, into a new folder; convert_dataset_v20_to_v21.py then makes it v2.1.

    python lerobot/common/datasets/v2/convert_dataset_v1_to_v2.py --root=old_data --output=grasps_v20 \\
        --single-task "Grasp a lego block and put it in the bin."

Exactly one of --single-task, --tasks-col (a text column) and --tasks-path (a JSON file {"<episode>": "task"}).
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.common.datasets.conversion import Conversion, argument_parser, progress
from lerobot.common.datasets.hub_download import download_files
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.utils import (
    DEFAULT_CHUNK_SIZE,
    DEFAULT_PARQUET_PATH,
    DEFAULT_VIDEO_PATH,
    EPISODES_PATH,
    STATS_PATH,
    TASKS_PATH,
    DatasetError,
    create_empty_dataset_info,
    resolve_inside,
    write_jsonlines,
)
from lerobot.common.datasets.v2.old_format import VIDEO, OldDataset
from lerobot.common.datasets.video_utils import get_video_info
from lerobot.common.utils.io_utils import write_json
from lerobot.common.utils.utils import init_logging, run_command

V20 = "v2.0"
TASK_COLUMN = "language_instruction"
FPS_TOLERANCE = 1e-3  # relative


def convert(
    root: Path,
    output: Path,
    single_task: str | None = None,
    tasks_col: str | None = None,
    tasks_path: Path | None = None,
    robot_type: str = "unknown",
    motor_names: dict[str, list[str]] | None = None,
    verify: bool = True,
    dry_run: bool = False,
) -> Path:
    """Write the v1.6 dataset in `root` as v2.0 to `output`, which must be new; returns it.

    ValueError unless exactly one source of tasks is given, DatasetError for contradictory files.
    """
    old = OldDataset(root, motor_names)
    texts = frame_tasks(old, single_task, tasks_col, tasks_path)
    tasks = {text: index for index, text in enumerate(dict.fromkeys(texts))}
    if dry_run:
        print(f"'{root}' (v1.6, {len(old.lengths)} episodes, {len(texts)} frames) would become '{output}' (v2.0).")
        print(f"  cameras as videos: {old.video_keys}; tasks: {list(tasks)}")
        return output
    conversion = Conversion(output, {"from": Path(root).resolve(), "to": V20, "tasks": list(tasks)})
    rows, first = [], 0
    for episode, length in enumerate(progress(old.lengths, "Episodes")):
        own = texts[first : first + length]
        names = {"episode_chunk": episode // DEFAULT_CHUNK_SIZE, "episode_index": episode}
        table = _episode_table(old, episode, [tasks[text] for text in own])
        conversion.file(DEFAULT_PARQUET_PATH.format(**names), lambda partial, t=table: pq.write_table(t, partial))
        for key in old.video_keys:
            conversion.copy(_old_video(old, key, episode), DEFAULT_VIDEO_PATH.format(video_key=key, **names))
        rows.append({"episode_index": episode, "tasks": list(dict.fromkeys(own)), "length": length})
        first += length
    lines = [{"task_index": index, "task": text} for text, index in tasks.items()]
    conversion.file(TASKS_PATH, lambda partial: write_jsonlines(lines, partial))
    conversion.file(EPISODES_PATH, lambda partial: write_jsonlines(rows, partial))
    conversion.file(STATS_PATH, lambda partial: write_json(old.stats(), partial))
    conversion.finish(_info(old, rows, len(tasks), robot_type))
    if verify:
        _verify(old, LeRobotDataset(root=output))
    return output


def frame_tasks(old: OldDataset, single_task: str | None, tasks_col: str | None, tasks_path: Path | None) -> list[str]:
    """The task of every frame."""
    if sum(given is not None for given in (single_task, tasks_col, tasks_path)) != 1:
        raise ValueError("Give exactly one of --single-task, --tasks-col and --tasks-path.")
    if single_task is not None and TASK_COLUMN in old.table.column_names:
        print(f"The dataset has a column '{TASK_COLUMN}', which is used instead of --single-task.")
        tasks_col = TASK_COLUMN
    if tasks_col is not None:
        return old.texts(tasks_col)
    by_episode = json.loads(Path(tasks_path).read_text()) if tasks_path else {}
    missing = [episode for episode in range(len(old.lengths)) if tasks_path and str(episode) not in by_episode]
    if missing:
        raise ValueError(f"--tasks-path={tasks_path} has no task for episodes {missing[:10]}.")
    chosen = [by_episode[str(e)] if tasks_path else single_task for e in range(len(old.lengths))]
    return [task for task, length in zip(chosen, old.lengths, strict=True) for _ in range(length)]


def _episode_table(old: OldDataset, episode: int, task_index: list[int]) -> pa.Table:
    dropped = [key for key in (*old.video_keys, TASK_COLUMN) if key in old.table.column_names]
    table = old.rows(episode).drop_columns(dropped).replace_schema_metadata(None)
    return table.append_column("task_index", pa.array(task_index, pa.int64())).combine_chunks()


def _old_video(old: OldDataset, key: str, episode: int) -> Path:
    """The file that the rows name."""
    named = old.rows(episode).column(key)[0].as_py()["path"]
    path = resolve_inside(old.root, named or VIDEO.format(video_key=key, episode_index=episode))
    if not path.is_file():
        raise FileNotFoundError(f"Episode {episode}: video '{path}' does not exist.")
    return path


def _info(old: OldDataset, rows: list[dict], total_tasks: int, robot_type: str) -> dict:
    features = {key: dict(feature) for key, feature in old.features.items()}
    for key in old.video_keys:
        info = get_video_info(_old_video(old, key, 0))
        if not math.isclose(info["video.fps"], old.fps, rel_tol=FPS_TOLERANCE):
            raise DatasetError(f"Video of '{key}' has {info['video.fps']} fps, meta_data/info.json {old.fps}.")
        expected = old.info.get("encoding", {}).get("pix_fmt", info["video.pix_fmt"])
        if expected != info["video.pix_fmt"]:
            raise DatasetError(f"Video of '{key}' has pixels {info['video.pix_fmt']}, meta_data/info.json {expected}.")
        features[key]["shape"] = tuple(info.pop(f"video.{name}") for name in ("height", "width", "channels"))
        features[key]["video_info"] = info
    features["task_index"] = {"dtype": "int64", "shape": (1,), "names": None}
    result = create_empty_dataset_info(V20, old.fps, robot_type, features, bool(old.video_keys))
    result.update(
        total_episodes=len(rows),
        total_frames=sum(old.lengths),
        total_tasks=total_tasks,
        total_videos=len(rows) * len(old.video_keys),
        total_chunks=-(-len(rows) // DEFAULT_CHUNK_SIZE),
        splits={"train": f"0:{len(rows)}"},
    )
    return result


def _verify(old: OldDataset, new: LeRobotDataset) -> None:
    for key in ("index", "episode_index", "frame_index"):
        if new.table[key].tolist() != old.table.column(key).to_pylist():
            raise DatasetError(f"Column '{key}' of '{new.root}' differs from '{old.root}'.")
    for episode in progress(range(len(old.lengths)), "Reading videos"):
        rows = new.rows_of_episode(episode)
        for key in new.meta.video_keys:
            new.meta.video_file(episode, key)
            new[int(rows[0])], new[int(rows[-1])]


def robot_motors(name: str) -> dict[str, list[str]]:
    """Motor names of the features of a known robot; ValueError otherwise."""
    koch = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
    aloha = ["waist", "shoulder", "shoulder_shadow", "elbow", "elbow_shadow"]
    aloha = [*aloha, "forearm_roll", "wrist_angle", "wrist_rotate", "gripper"]
    arms = {"koch": koch, "so100": koch, "so101": koch}
    if name in arms:
        motors = arms[name]
    elif name == "aloha":
        motors = [f"{side}_{motor}" for side in ("left", "right") for motor in aloha]
    else:
        raise ValueError(f"--robot={name}: expected one of {[*arms, 'aloha']}, or leave it out.")
    return dict.fromkeys(("observation.state", "observation.effort", "action"), motors)


def main() -> None:
    """Entry point of the command line."""
    init_logging()
    parser = argument_parser(__doc__)
    parser.add_argument("--single-task", help="the task of every episode")
    parser.add_argument("--tasks-col", help="column that has the task of every frame")
    parser.add_argument("--tasks-path", type=Path, help='JSON file {"<episode>": "task"}')
    parser.add_argument("--robot", help="names the motors: koch, so100, so101, aloha")
    args = parser.parse_args()
    root = args.root
    if root is None:
        root = args.output.with_name(f"{args.output.name}_v1.6")
        download_files(args.repo_id, root, "v1.6", root)
    tasks = (args.single_task, args.tasks_col, args.tasks_path)
    motors = robot_motors(args.robot) if args.robot else None
    robot = args.robot or "unknown"
    convert(root, args.output, *tasks, robot, motors, verify=not args.no_verify, dry_run=args.dry_run)
    if not args.dry_run:
        print(
            f"Wrote '{args.output}'. Next: python lerobot/common/datasets/v21/convert_dataset_v20_to_v21.py "
            f"--root={args.output} --output=FOLDER"
        )


if __name__ == "__main__":
    run_command(main)
