"""Adding episodes to a v3.0 dataset: rows and videos go to the end of the latest files while these are small.

A file is never written in place: its longer version replaces it, together with all others of the episode.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.common.datasets.compute_stats import aggregate_stats
from lerobot.common.datasets.journal import replace_together
from lerobot.common.datasets.utils import INFO_PATH, STATS_PATH, serialize_stats
from lerobot.common.datasets.v30 import files as v30
from lerobot.common.datasets.video_files import IncompatibleVideosError, PacketWriter, get_video_duration_in_s
from lerobot.common.datasets.video_utils import get_video_info
from lerobot.common.utils.io_utils import write_json

MB = 1024**2


def save_episode(
    meta, work: Path, parquet: Path, videos: dict[str, Path], length: int, tasks: list[str], stats: dict
) -> None:
    """Make `parquet` and `videos` {camera: mp4}, all in the folder `work`, the next episode of a dataset."""
    index, first = meta.total_episodes, meta.total_frames
    previous = meta.episodes[index - 1] if index else None
    row = {"episode_index": index, "tasks": tasks, "length": length}
    moves = _append_rows(meta, work, parquet, previous, row)
    row.update(dataset_from_index=first, dataset_to_index=first + length)
    for key, path in videos.items():
        moves |= _append_video(meta, work, key, path, previous, row)
        if not (meta.features[key].get("info") or meta.features[key].get("video_info")):
            meta.features[key]["info"] = get_video_info(path)
    moves |= _append_episode_row(meta, work, row, stats, previous)
    info, written = _write_metadata(meta, work, tasks, length, stats)
    replace_together(meta.root, work, moves | written)
    meta.info.update(info)
    meta.count_episode(row, stats)


def _next_place(place: dict[str, int], chunks_size: int) -> dict[str, int]:
    """The file after `place`."""
    if place["file_index"] == chunks_size - 1:
        return {"chunk_index": place["chunk_index"] + 1, "file_index": 0}
    return {**place, "file_index": place["file_index"] + 1}


def _latest_place(previous: dict | None, columns: str) -> dict[str, int] | None:
    if previous is None:
        return None
    return {name: previous[f"{columns}/{name}"] for name in ("chunk_index", "file_index")}


def _append_rows(meta, work: Path, parquet: Path, previous: dict | None, row: dict) -> dict[Path, Path]:
    place = _latest_place(previous, "data")
    latest = meta.root / meta.data_path.format(**place) if place else None
    new = parquet
    if latest is None or not latest.is_file():
        place = place or {"chunk_index": 0, "file_index": 0}
    elif latest.stat().st_size + parquet.stat().st_size >= meta.info["data_files_size_in_mb"] * MB:
        place = _next_place(place, meta.chunks_size)
    else:
        new = work / "data.parquet"
        _concatenate_parquet([latest, parquet], new)
    row.update({f"data/{name}": value for name, value in place.items()})
    return {new: meta.root / meta.data_path.format(**place)}


def _concatenate_parquet(paths: list[Path], output: Path) -> None:
    """Row group by row group: one per episode stays one per episode."""
    with pq.ParquetFile(paths[-1]) as last:
        schema = last.schema_arrow
    with pq.ParquetWriter(output, schema) as writer:
        for path in paths:
            with pq.ParquetFile(path) as source:
                for group in range(source.metadata.num_row_groups):
                    table = source.read_row_group(group, use_threads=False).select(schema.names)
                    writer.write_table(table.cast(schema))


def _append_video(meta, work: Path, key: str, path: Path, previous: dict | None, row: dict) -> dict[Path, Path]:
    columns = f"videos/{key}"
    place, start, new = _latest_place(previous, columns), 0.0, path
    latest = meta.root / meta.video_path.format(video_key=key, **place) if place else None
    if latest is None or not latest.is_file():
        place = place or {"chunk_index": 0, "file_index": 0}
    elif latest.stat().st_size + path.stat().st_size < meta.info["video_files_size_in_mb"] * MB:
        joined = work / f"{key}.joined.mp4"
        try:
            with PacketWriter(joined) as writer:
                writer.append(latest)
                start = float(writer.append(path))
            new = joined
        except IncompatibleVideosError:
            place = _next_place(place, meta.chunks_size)
    else:
        place = _next_place(place, meta.chunks_size)
    row.update({f"{columns}/{name}": value for name, value in place.items()})
    row[f"{columns}/from_timestamp"] = start
    row[f"{columns}/to_timestamp"] = start + get_video_duration_in_s(path)
    return {new: meta.root / meta.video_path.format(video_key=key, **place)}


def _append_episode_row(meta, work: Path, row: dict, stats: dict, previous: dict | None) -> dict[Path, Path]:
    place = _latest_place(previous, "meta/episodes") or {"chunk_index": 0, "file_index": 0}
    latest = meta.root / v30.DEFAULT_EPISODES_PATH.format(**place)
    tables = []
    if latest.is_file() and latest.stat().st_size < meta.info["data_files_size_in_mb"] * MB:
        tables.append(v30.read_parquet(latest))
    elif latest.is_file():
        place = _next_place(place, meta.chunks_size)
    row.update({f"meta/episodes/{name}": value for name, value in place.items()})
    tables.append(episodes_table([row], [stats]))
    new = work / "episodes.parquet"
    pq.write_table(pa.concat_tables(tables, promote_options="permissive"), new)
    return {new: meta.root / v30.DEFAULT_EPISODES_PATH.format(**place)}


def episodes_table(rows: list[dict], stats: list[dict]) -> pa.Table:
    """Rows of `meta/episodes` with their statistics as columns `stats/<feature>/<statistic>`."""
    columns: dict[str, pa.Array] = {}
    first = [name for name in rows[0] if not name.startswith("meta/")]
    for name in first:
        columns[name] = pa.array([row[name] for row in rows], pa.list_(pa.string()) if name == "tasks" else None)
    for feature in dict.fromkeys(feature for episode in stats for feature in episode):
        names = dict.fromkeys(name for episode in stats for name in episode.get(feature, {}))
        for name in names:
            values = [np.asarray(episode[feature][name]).tolist() if feature in episode else None for episode in stats]
            columns[f"stats/{feature}/{name}"] = pa.array(values)
    for name in ("meta/episodes/chunk_index", "meta/episodes/file_index"):
        columns[name] = pa.array([row[name] for row in rows], pa.int64())
    return pa.table(columns)


def _write_metadata(meta, work: Path, tasks: list[str], length: int, stats: dict) -> tuple[dict, dict[Path, Path]]:
    """The new info.json, and the metadata files to put in place; info.json comes last."""
    known, moves = meta.info["total_tasks"], {}
    for task in tasks:
        meta.add_task(task)
    if len(meta.tasks) > known:
        pq.write_table(v30.tasks_table(meta.tasks), work / "tasks.parquet")
        moves[work / "tasks.parquet"] = meta.root / v30.DEFAULT_TASKS_PATH
    whole = aggregate_stats([meta.stats, stats] if meta.stats else [stats])
    write_json(serialize_stats(whole), work / "stats.json")
    moves[work / "stats.json"] = meta.root / STATS_PATH
    total = meta.total_episodes + 1
    info = {
        **meta.info,
        "total_episodes": total,
        "total_frames": meta.total_frames + length,
        "total_tasks": len(meta.tasks),
        "splits": {"train": f"0:{total}"},
    }
    write_json(info, work / "info.json")
    moves[work / "info.json"] = meta.root / INFO_PATH
    return info, moves
