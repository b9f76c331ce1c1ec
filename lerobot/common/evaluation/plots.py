"""Training curves: as text for the terminal and as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lerobot.common.utils.io_utils import atomic_path

# Bits of the eight dots of a braille character (U+2800), [row from the top][column].
BRAILLE_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
LABEL_WIDTH = 9
LOG_SCALE_FROM = 20  # ratio of largest to smallest loss above which a linear axis shows only the start


def loss_curve_text(steps: Sequence[float], losses: Sequence[float], width: int = 70, height: int = 12) -> str:
    """The loss over the steps as `height` lines of at most `width` characters, plus a line for the steps.

    Values that are not finite are left out. The axis is logarithmic when the loss falls far.
    """
    points = [(s, v) for s, v in zip(steps, losses, strict=True) if math.isfinite(v)]
    if not points:
        return "No loss was logged."
    x, y = np.array(points, dtype=float).T
    log = _is_logarithmic(y)
    values = np.log(y) if log else y
    columns = width - LABEL_WIDTH - 1
    dots = _draw_line(x, values, 2 * columns, 4 * height)
    levels = np.linspace(values.max(), values.min(), height)
    lines = []
    for row in range(height):
        level = math.exp(levels[row]) if log else levels[row]
        label = f"{level:.3g}" if row in (0, height // 2, height - 1) else ""
        lines.append(f"{label:>{LABEL_WIDTH}}│" + _braille_row(dots[4 * row : 4 * row + 4]))
    first, last = f"{x[0]:g}", f"step {x[-1]:g}" + (" (log scale)" if log else "")
    return "\n".join([*lines, " " * LABEL_WIDTH + "└" + first + last.rjust(columns - len(first))])


def _is_logarithmic(values: np.ndarray) -> bool:
    return bool(values.min() > 0 and values.max() / values.min() > LOG_SCALE_FROM)


def _draw_line(x: np.ndarray, y: np.ndarray, width: int, height: int) -> np.ndarray:
    """A polyline on a grid of dots, bool (height, width), row 0 at the top."""
    grid = np.zeros((height, width), dtype=bool)
    across = np.round((x - x[0]) / max(x[-1] - x[0], 1e-12) * (width - 1)).astype(int)
    down = np.round((y.max() - y) / max(y.max() - y.min(), 1e-12) * (height - 1)).astype(int)
    grid[down[0], across[0]] = True
    for i in range(1, len(x)):
        count = max(abs(across[i] - across[i - 1]), abs(down[i] - down[i - 1])) + 1
        rows = np.linspace(down[i - 1], down[i], count).round().astype(int)
        grid[rows, np.linspace(across[i - 1], across[i], count).round().astype(int)] = True
    return grid


def _braille_row(dots: np.ndarray) -> str:
    codes = sum(dots[row, column::2] * BRAILLE_DOTS[row][column] for row in range(4) for column in range(2))
    return "".join(chr(0x2800 + int(code)) if code else " " for code in codes).rstrip()


def save_loss_curve(
    path: str | Path,
    steps: Sequence[float],
    losses: Sequence[float],
    learning_rates: Sequence[float] | None = None,
    success: Sequence[tuple[float, float]] | None = None,
    title: str = "",
    held_out: Sequence[tuple[float, float]] | None = None,
    label: str = "loss",
) -> None:
    """Draw the loss (with its running mean, and (step, loss) pairs of held-out episodes), the learning rate, and
    (step, success in percent) pairs into a PNG. label: what the loss is called.
    """
    from matplotlib.figure import Figure  # no pyplot: needs no display and keeps no global state

    count = 1 + (learning_rates is not None) + bool(success)
    figure = Figure(figsize=(8, 2.2 + 1.6 * count), layout="constrained")
    axes = figure.subplots(count, 1, sharex=True, squeeze=False, height_ratios=[2, 1, 1][:count])[:, 0]
    values = np.asarray(losses, dtype=float)
    axes[0].plot(steps, values, color="#9ab7d3", linewidth=1, label="training")
    span = max(1, len(values) // 20)
    if span > 1:
        mean = np.convolve(values, np.ones(span) / span, mode="valid")
        middle = np.asarray(steps)[span // 2 : span // 2 + len(mean)]
        axes[0].plot(middle, mean, color="#1f4e79", linewidth=2, label=f"mean of {span}")
    if held_out:
        axes[0].plot(*zip(*held_out, strict=True), "o-", color="#b0642d", markersize=4, label="held-out")
    if span > 1 or held_out:
        axes[0].legend(frameon=False)
    if len(values) and _is_logarithmic(values):
        axes[0].set_yscale("log")
    axes[0].set(ylabel=label, title=title)
    if learning_rates is not None:
        axes[1].plot(steps, learning_rates, color="#b0642d")
        axes[1].set_ylabel("learning rate")
        axes[1].ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    if success:
        axes[-1].plot(*zip(*success, strict=True), "o-", color="#2e7d32")
        axes[-1].set(ylabel="success (%)", ylim=(-3, 103))
    axes[-1].set_xlabel("step")
    for axis in axes:
        axis.grid(alpha=0.25)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def save_metrics_plot(rows: Sequence[dict[str, Any]], path: str | Path, title: str = "") -> None:
    """`save_loss_curve` from the rows of a metrics.jsonl (`step` with `loss` and `lr`, or with `eval/loss` or
    `eval/pc_success`).

    Where the training's loss has a part that the held-out one lacks, the part that both have is drawn.
    """
    name, label = comparable_loss(rows)
    trained = [row for row in rows if name in row]
    success = [(row["step"], row["eval/pc_success"]) for row in rows if "eval/pc_success" in row]
    rates = [row["lr"] for row in trained] if all("lr" in row for row in trained) else None
    held_out = [(row["step"], row[f"eval/{name}"]) for row in rows if f"eval/{name}" in row]
    steps, losses = [r["step"] for r in trained], [r[name] for r in trained]
    save_loss_curve(path, steps, losses, rates, success, title, held_out, label)


def comparable_loss(rows: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """Name of the loss that training and held-out episodes both have, and how to call it.

    ACT's latent is part of the loss in training only: `l1_loss` is what both have.
    """
    held_out = {k.removeprefix("eval/") for row in rows for k in row if k.startswith("eval/") and k.endswith("_loss")}
    parts = dict.fromkeys(k for row in rows for k in row if "/" not in k and k.endswith("_loss"))
    common, more = [k for k in parts if k in held_out], [k for k in parts if k not in held_out]
    if len(common) == 1 and more:
        return common[0], f"{common[0]} (loss without {', '.join(more)})"
    return "loss", "loss"
