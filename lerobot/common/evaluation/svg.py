"""Small line charts as SVG text, for pages that stand in one file."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEFT, RIGHT, TOP, BOTTOM = 46, 10, 8, 30
POINTS = 400  # a line gets no more of them than can be told apart


@dataclass
class Line:
    """A line through (x, y); NaN interrupts it. `css` is a class that the page's style sheet colours."""

    x: np.ndarray
    y: np.ndarray
    css: str
    label: str = ""


def line_chart(
    lines: Sequence[Line],
    x_label: str,
    title: str = "",
    size: tuple[int, int] = (440, 190),
    marks: Sequence[float] = (),
    from_zero: bool = False,
) -> str:
    """An <svg> with axes; `marks` are vertical lines at these x."""
    width, height = size
    xs, ys = (np.concatenate([np.asarray(getattr(line, axis), float) for line in lines]) for axis in ("x", "y"))
    low, high = float(np.nanmin(ys)), float(np.nanmax(ys))
    low = min(low, 0.0) if from_zero else low
    x_ticks, y_ticks = [x for x in ticks(xs.min(), xs.max()) if xs.min() <= x <= xs.max()], ticks(low, high)
    low, high = min(low, y_ticks[0]), max(high, y_ticks[-1])
    x_span, y_span = max(float(np.ptp(xs)), 1e-9), max(high - low, 1e-9)

    def px(x: float) -> float:
        return LEFT + (x - xs.min()) / x_span * (width - LEFT - RIGHT)

    def py(y: float) -> float:
        return TOP + (high - y) / y_span * (height - TOP - BOTTOM)

    parts = []
    for y in y_ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{py(y):.1f}" y2="{py(y):.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{py(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in x_ticks:
        parts.append(f'<text x="{px(x):.1f}" y="{height - BOTTOM + 14}" text-anchor="middle">{x:g}</text>')
    parts.append(
        f'<text x="{(LEFT + width - RIGHT) / 2}" y="{height - 3}" text-anchor="middle">{html.escape(x_label)}</text>'
    )
    for x in marks:
        parts.append(f'<line class="mark" x1="{px(x):.1f}" x2="{px(x):.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>')
    parts += [_path(line, px, py) for line in lines]
    name = html.escape(title or x_label)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{name}">{"".join(parts)}</svg>'


def _path(line: Line, px, py) -> str:
    stride = max(1, len(line.x) // POINTS)
    kept = np.isnan(line.y) | (np.arange(len(line.x)) % stride == 0)  # every gap
    pen, steps = "M", []
    for x, y in zip(line.x[kept], line.y[kept], strict=True):
        if math.isnan(y):
            pen = "M"
            continue
        steps.append(f"{pen}{px(float(x)):.1f} {py(float(y)):.1f}")
        pen = "L"
    label = f"<title>{html.escape(line.label)}</title>" if line.label else ""
    return f'<path class="{line.css}" d="{"".join(steps)}">{label}</path>'


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`."""
    span = high - low or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / count))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(span / s - count))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.6g}") for i in range(first, max(last, first + 1) + 1)]
