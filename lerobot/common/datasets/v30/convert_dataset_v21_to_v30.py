#!/usr/bin/env python
"""Convert a v2.1 dataset to v3.0, into a new folder.

    python lerobot/common/datasets/v30/convert_dataset_v21_to_v30.py --root=my_grasps --output=my_grasps_v30

Rows and videos are joined without encoding. Killed, it continues when started again.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pyarrow.parquet as pq

from lerobot.common.datasets.conversion import Conversion, argument_parser, progress, report, verify_same
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.utils import CODEBASE_VERSION, STATS_PATH, serialize_stats
from lerobot.common.datasets.v30 import files as v30
from lerobot.common.datasets.v30.writer import MB, episodes_table
from lerobot.common.datasets.video_files import PacketWriter, get_video_duration_in_s
from lerobot.common.utils.io_utils import write_json
from lerobot.common.utils.utils import init_logging, run_command


def convert(
    source: LeRobotDataset,
    output: Path,
    data_file_size_in_mb: float = v30.DEFAULT_DATA_FILE_SIZE_IN_MB,
    video_file_size_in_mb: float = v30.DEFAULT_VIDEO_FILE_SIZE_IN_MB,
    verify: bool = True,
    dry_run: bool = False,
) -> Path:
    """Write `source` (v2.1) as v3.0 to `output`, which must be new; returns it.

    ValueError for another version, DatasetError if the result differs from the original.
    """
    meta = source.meta
    if meta.info["codebase_version"] != CODEBASE_VERSION:
        raise ValueError(f"'{meta.root}' is {meta.info['codebase_version']}; expected {CODEBASE_VERSION}.")
    rows = [_first_columns(meta, index) for index in meta.episodes]
    sizes = [meta.data_file(index).stat().st_size for index in meta.episodes]
    assign_files(rows, "data", sizes, data_file_size_in_mb * MB)
    for key in meta.video_keys:
        sizes = [meta.video_file(index, key).stat().st_size for index in meta.episodes]
        assign_files(rows, f"videos/{key}", sizes, video_file_size_in_mb * MB)
    if dry_run:
        _announce(meta, rows, output)
        return output
    settings = {"from": meta.root.resolve(), "to": v30.V30, "sizes": [data_file_size_in_mb, video_file_size_in_mb]}
    conversion = Conversion(output, settings)
    for path, group in _files(rows, "data", v30.DEFAULT_DATA_PATH, "Data files"):
        conversion.file(path, lambda partial, group=group: _join_tables(meta, group, partial))
    for key in meta.video_keys:
        template = v30.DEFAULT_VIDEO_PATH.replace("{video_key}", key)
        for path, group in _files(rows, f"videos/{key}", template, key):
            spans = conversion.file(path, lambda partial, group=group, key=key: _join_videos(meta, key, group, partial))
            for row, (start, end) in zip(group, spans, strict=True):
                row[f"videos/{key}/from_timestamp"], row[f"videos/{key}/to_timestamp"] = start, end
    _write_meta(conversion, meta, rows, data_file_size_in_mb, video_file_size_in_mb)
    if verify:
        verify_same(source, LeRobotDataset(root=output))
    return output


def _first_columns(meta, index: int) -> dict:
    first = sum(meta.episodes[i]["length"] for i in range(index))
    row = meta.episodes[index]
    bounds = {"dataset_from_index": first, "dataset_to_index": first + row["length"]}
    return {"episode_index": index, "tasks": row["tasks"], "length": row["length"], **bounds}


def assign_files(rows: list[dict], columns: str, sizes: list[int], limit: float, chunks_size: int = 1000) -> None:
    """Write into each row which file it goes to: the next one where the sum of sizes would reach `limit` bytes."""
    number, filled = 0, 0
    for row, size in zip(rows, sizes, strict=True):
        if filled and filled + size >= limit:
            number, filled = number + 1, 0
        filled += size
        row[f"{columns}/chunk_index"], row[f"{columns}/file_index"] = divmod(number, chunks_size)


def _files(rows: list[dict], columns: str, template: str, what: str):
    """(path, its rows) of every file, with a progress bar."""

    def place(row: dict) -> tuple[int, int]:
        return row[f"{columns}/chunk_index"], row[f"{columns}/file_index"]

    groups = [(place_of, list(group)) for place_of, group in groupby(rows, key=place)]
    for (chunk, file), group in progress(groups, what, "file"):
        yield template.format(chunk_index=chunk, file_index=file), group


def _join_tables(meta, rows: list[dict], path: Path) -> None:
    writer = None
    for row in rows:
        table = pq.read_table(meta.data_file(row["episode_index"]))
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table.select(writer.schema.names).cast(writer.schema))
    writer.close()


def _join_videos(meta, key: str, rows: list[dict], path: Path) -> list[tuple[float, float]]:
    """Returns (from, to) seconds of each episode."""
    spans = []
    with PacketWriter(path) as writer:
        for row in rows:
            video = meta.video_file(row["episode_index"], key)
            start = float(writer.append(video))
            spans.append((start, start + get_video_duration_in_s(video)))
    return spans


def _write_meta(conversion: Conversion, meta, rows: list[dict], data_mb: float, video_mb: float) -> None:
    for row in rows:
        row.update({"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
    stats = [meta.episodes_stats[row["episode_index"]] for row in rows]
    path = v30.DEFAULT_EPISODES_PATH.format(chunk_index=0, file_index=0)
    conversion.file(path, lambda partial: pq.write_table(episodes_table(rows, stats), partial))
    conversion.file(v30.DEFAULT_TASKS_PATH, lambda partial: pq.write_table(v30.tasks_table(meta.tasks), partial))
    conversion.file(STATS_PATH, lambda partial: write_json(serialize_stats(meta.stats), partial))
    info = v30.as_v30_info(dict(meta.info), data_mb, video_mb)
    info["total_tasks"] = len(meta.tasks)
    features = {k: f if f["dtype"] == "video" else {**f, "fps": info["fps"]} for k, f in info["features"].items()}
    conversion.finish({**info, "features": features})


def _announce(meta, rows: list[dict], output: Path) -> None:
    print(f"'{meta.root}' (v2.1, {len(rows)} episodes, {meta.total_frames} frames) would become '{output}' (v3.0):")
    for columns in ["data", *[f"videos/{key}" for key in meta.video_keys]]:
        count = len({(row[f"{columns}/chunk_index"], row[f"{columns}/file_index"]) for row in rows})
        print(f"  {columns}: {count} file{'s' if count > 1 else ''}")


def main() -> None:
    """Entry point of the command line."""
    init_logging()
    parser = argument_parser(__doc__)
    parser.add_argument("--data-file-size-in-mb", type=float, default=v30.DEFAULT_DATA_FILE_SIZE_IN_MB)
    parser.add_argument("--video-file-size-in-mb", type=float, default=v30.DEFAULT_VIDEO_FILE_SIZE_IN_MB)
    args = parser.parse_args()
    source = LeRobotDataset(args.repo_id, root=args.root, revision=CODEBASE_VERSION)
    sizes = (args.data_file_size_in_mb, args.video_file_size_in_mb)
    convert(source, args.output, *sizes, verify=not args.no_verify, dry_run=args.dry_run)
    if not args.dry_run:
        report(args.output, len(source), not args.no_verify)


if __name__ == "__main__":
    run_command(main)
