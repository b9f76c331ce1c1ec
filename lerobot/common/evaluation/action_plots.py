"""Predicted against recorded actions of an episode, one picture per joint and one with all of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from lerobot.common.evaluation.open_loop import OpenLoopReport
from lerobot.common.utils.io_utils import atomic_path

OVERVIEW_NAME = "actions.png"
RECORDED, PREDICTED, FURTHER = "#20262e", "#d1495b", "#edc4ca"


def save_action_plots(
    report: OpenLoopReport, folder: str | Path, episode: int, fps: float, title: str = ""
) -> list[Path]:
    """Draw `actions.png` (all joints) and `joint_<name>.png` into a folder and return their paths.

    Black is what was recorded; red what would have been executed, each chunk from its dot to the start of the
    next one; pale red the rest of each chunk. Raises ValueError if the report lacks the episode.
    """
    from matplotlib.figure import Figure  # no pyplot: needs no display and keeps no global state

    chunks = np.flatnonzero(report.episode_index == episode)
    if not len(chunks):
        found = sorted(set(report.episode_index.tolist()))
        raise ValueError(f"The report has no episode {episode}; it has {found}.")
    folder, files = Path(folder), []
    columns = 2 if len(report.joints) > 3 else 1
    rows = -(-len(report.joints) // columns)
    overview = Figure(figsize=(6.5 * columns, 0.8 + 2.1 * rows), layout="constrained")
    grid = overview.subplots(rows, columns, sharex=True, squeeze=False)
    for joint, axis in enumerate(grid.flat):
        if joint >= len(report.joints):
            axis.set_axis_off()
            continue
        _draw(axis, report, chunks, joint, fps)
        single = Figure(figsize=(9, 3.6), layout="constrained")
        axis = single.subplots()
        _draw(axis, report, chunks, joint, fps)
        axis.set_xlabel("seconds")
        axis.legend(loc="best", frameon=False, fontsize=8)
        single.suptitle(title, fontsize=10)
        files.append(_save(single, folder / f"joint_{_file_name(report.joints[joint])}.png"))
    for axis in grid[-1]:
        axis.set_xlabel("seconds")
    grid[0, 0].legend(loc="best", frameon=False, fontsize=8)
    overview.suptitle(f"{title}   mean error {report.overall:.3g}".strip())
    return [_save(overview, folder / OVERVIEW_NAME), *files]


def _draw(axis, report: OpenLoopReport, chunks: np.ndarray, joint: int, fps: float) -> None:
    starts = report.frame_index[chunks]
    recorded: dict[int, float] = {}
    for i, chunk in enumerate(chunks):
        values = report.predicted[chunk, report.valid[chunk], joint]
        frames = starts[i] + np.flatnonzero(report.valid[chunk])
        recorded.update(zip(frames.tolist(), report.recorded[chunk, report.valid[chunk], joint], strict=True))
        end = starts[i + 1] if i + 1 < len(starts) else frames[-1] + 1
        done = frames < end
        first = i == 0
        axis.plot(frames / fps, values, color=FURTHER, linewidth=1, zorder=1)
        label = "predicted" if first else None
        axis.plot(frames[done] / fps, values[done], color=PREDICTED, linewidth=1.3, zorder=3, label=label)
        axis.plot(frames[:1] / fps, values[:1], ".", color=PREDICTED, markersize=5, zorder=3)
    frames = np.array(sorted(recorded))
    values = np.array([recorded[frame] for frame in frames])
    gaps = np.flatnonzero(np.diff(frames) > 1) + 1  # frames that no chunk reaches
    axis.plot(
        np.insert(frames / fps, gaps, np.nan),
        np.insert(values, gaps, np.nan),
        color=RECORDED,
        linewidth=1.6,
        zorder=2,
        label="recorded",
    )
    axis.set_title(f"{report.joints[joint]}   mean error {report.per_joint[joint]:.3g}", fontsize=9, loc="left")
    axis.grid(alpha=0.25)


def _file_name(joint: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", joint)


def _save(figure, path: Path) -> Path:
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
    return path
