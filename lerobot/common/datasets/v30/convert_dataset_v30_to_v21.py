#!/usr/bin/env python
"""Convert a v3.0 dataset to v2.1, into a new folder.

    python lerobot/common/datasets/v30/convert_dataset_v30_to_v21.py --root=my_grasps_v30 --output=my_grasps

Videos are cut without encoding where an episode begins with a keyframe, else encoded without loss. Killed, it
continues when started again.
"""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import av
import pyarrow.parquet as pq

from lerobot.common.datasets.conversion import Conversion, argument_parser, progress, report, verify_same
from lerobot.common.datasets.frame_table import EpisodeFile, read_episode
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.recompute import camera_stats, has_credible_std
from lerobot.common.datasets.utils import (
    CODEBASE_VERSION,
    DEFAULT_CHUNK_SIZE,
    DEFAULT_PARQUET_PATH,
    DEFAULT_VIDEO_PATH,
    EPISODES_PATH,
    EPISODES_STATS_PATH,
    TASKS_PATH,
    create_empty_dataset_info,
    serialize_stats,
    write_jsonlines,
)
from lerobot.common.datasets.v30.files import V30
from lerobot.common.datasets.video_files import PacketWriter
from lerobot.common.datasets.video_utils import VideoDecodeError
from lerobot.common.utils.utils import init_logging, run_command

V21_STATISTICS = ("min", "max", "mean", "std", "count")


def convert(source: LeRobotDataset, output: Path, verify: bool = True, dry_run: bool = False) -> Path:
    """Write `source` (v3.0) as v2.1 to `output`, which must be new; returns it.

    ValueError for another version, DatasetError if the result differs from the original.
    """
    meta = source.meta
    if not meta.is_v30:
        raise ValueError(f"'{meta.root}' is {meta.info['codebase_version']}; expected {V30}.")
    if dry_run:
        count = meta.total_episodes
        print(f"'{meta.root}' (v3.0, {meta.total_frames} frames) would become '{output}' (v2.1):")
        print(f"  {count} parquet files, {count * len(meta.video_keys)} videos")
        return output
    conversion = Conversion(output, {"from": meta.root.resolve(), "to": CODEBASE_VERSION})
    for place in progress(meta.locate_rows(list(meta.episodes)), "Episodes"):
        names = {"episode_chunk": place.index // DEFAULT_CHUNK_SIZE, "episode_index": place.index}
        conversion.file(DEFAULT_PARQUET_PATH.format(**names), lambda p, e=place: write_rows(e, p))
        for key in meta.video_keys:
            path = DEFAULT_VIDEO_PATH.format(video_key=key, **names)
            conversion.file(path, lambda p, e=place.index, k=key: cut_video(meta, e, k, p))
    _write_meta(conversion, source)
    if verify:
        verify_same(source, LeRobotDataset(root=output))
    return output


def write_rows(place: EpisodeFile, path: Path) -> None:
    """The rows of one episode as a parquet file of their own."""
    pq.write_table(read_episode(place), path)


def cut_video(meta, episode: int, key: str, path: Path) -> None:
    """The frames of one episode as a video of their own."""
    row = meta.episodes[episode]
    span = [row[f"videos/{key}/{bound}_timestamp"] for bound in ("from", "to")]
    try:
        with PacketWriter(path) as writer:
            writer.append(meta.video_file(episode, key), *span)
    except VideoDecodeError:
        logging.warning("Episode %d, '%s', begins between keyframes: encoding it without loss.", episode, key)
        _encode_lossless(meta.video_file(episode, key), *span, meta.fps, path)


def _encode_lossless(source: Path, start: float, end: float, fps: float, path: Path) -> None:
    margin, rate = 0.25 / fps, Fraction(fps).limit_denominator(65535)
    with av.open(str(source)) as container, av.open(str(path), "w", format="mp4") as output:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        target = output.add_stream("h264", rate=rate, options={"crf": "0", "g": "2"})
        target.width, target.height, target.pix_fmt = stream.width, stream.height, stream.pix_fmt
        container.seek(max(0, int((start - margin) / stream.time_base)), stream=stream, backward=True)
        count = 0
        for frame in container.decode(stream):
            if frame.time >= end - margin:
                break
            if frame.time >= start - margin:
                frame.pts, frame.time_base, count = count, 1 / rate, count + 1
                output.mux(target.encode(frame))
        output.mux(target.encode())


def _write_meta(conversion: Conversion, source: LeRobotDataset) -> None:
    meta = source.meta
    stats = {episode: _v21_stats(source, episode) for episode in meta.episodes}
    tables = {
        TASKS_PATH: [{"task_index": index, "task": task} for index, task in meta.tasks.items()],
        EPISODES_PATH: [{k: row[k] for k in ("episode_index", "tasks", "length")} for row in meta.episodes.values()],
        EPISODES_STATS_PATH: [{"episode_index": e, "stats": serialize_stats(s)} for e, s in stats.items()],
    }
    for path, rows in tables.items():
        conversion.file(path, lambda partial, rows=rows: write_jsonlines(rows, partial))
    features = {key: {k: v for k, v in f.items() if k != "fps"} for key, f in meta.features.items()}
    info = create_empty_dataset_info(CODEBASE_VERSION, meta.fps, meta.robot_type, features, bool(meta.video_keys))
    total = meta.total_episodes
    info.update(
        total_episodes=total,
        total_frames=meta.total_frames,
        total_tasks=len(meta.tasks),
        total_videos=total * len(meta.video_keys),
        total_chunks=-(-total // DEFAULT_CHUNK_SIZE),
        splits={"train": f"0:{total}"},
        video_path=DEFAULT_VIDEO_PATH if meta.video_path else None,
    )
    conversion.finish(info)


def _v21_stats(source: LeRobotDataset, episode: int) -> dict:
    """Without quantiles; a camera's std that cannot be right is computed again."""
    stats = {}
    for key, values in source.meta.episodes_stats[episode].items():
        stats[key] = {name: values[name] for name in V21_STATISTICS if name in values}
        if key in source.meta.camera_keys and not has_credible_std(stats[key]):
            logging.info("Episode %d: the std of '%s' is wrong and computed again.", episode, key)
            stats[key]["std"] = camera_stats(source, episode, key)["std"]
    return {key: stats[key] for key in source.features if key in stats}


def main() -> None:
    """Entry point of the command line."""
    init_logging()
    args = argument_parser(__doc__).parse_args()
    source = LeRobotDataset(args.repo_id, root=args.root, revision=V30)
    convert(source, args.output, verify=not args.no_verify, dry_run=args.dry_run)
    if not args.dry_run:
        report(args.output, len(source), not args.no_verify)


if __name__ == "__main__":
    run_command(main)
