"""A page of findings with pictures and curves, readable without a network."""

from __future__ import annotations

import base64
import html
from pathlib import Path

import cv2
import numpy as np

from lerobot.common.checks.finding import SEVERITIES, Finding, by_severity
from lerobot.common.datasets.video_utils import VideoDecodeError, VideoReader
from lerobot.common.utils.io_utils import write_text

PICTURES = 60  # per page
WIDTH = 200  # pixels
CURVES = 6  # joints in one plot
COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } .facts { color: #555; }
article { border-top: 1px solid #ddd; border-left: 4px solid; padding: .6rem .8rem; margin: .8rem 0; }
article.error { border-left-color: #b00020; } article.warning { border-left-color: #d98e00; }
article.info { border-left-color: #8aa; } p { margin: .2rem 0; overflow-wrap: anywhere; }
b.error { color: #b00020; } b.warning { color: #9a5b00; } b.info { color: #555; }
code { background: #f3f3f3; padding: .1rem .3rem; } pre { background: #f3f3f3; padding: .4rem .6rem; margin: .4rem 0;
white-space: pre-wrap; overflow-wrap: anywhere; user-select: all; }
figure { display: inline-block; margin: .4rem .4rem 0 0; }
figcaption { font-size: .8rem; color: #555; } img { display: block; } svg { display: block; background: #fafafa; }
"""


def html_page(findings: list[Finding], check=None, title: str = "Dataset check") -> str:
    """The page as text; with the `DatasetCheck` that found them, it shows the frames and joints that findings name."""
    counts = ", ".join(_count(sum(f.severity == s for f in findings), s) for s in reversed(SEVERITIES))
    meta = None if check is None else check.meta
    cards, left = [], PICTURES
    for finding in by_severity(findings):
        pictures = _pictures(finding, meta) if meta is not None and left > 0 else []
        left -= len(pictures)
        cards.append(_card(finding, pictures, "" if meta is None else _curves(finding, check)))
    body = "".join(cards) or "<p>Nothing was found.</p>"
    facts = "" if meta is None else f"<p class='facts'>{html.escape(_facts(meta))}</p>"
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'>"
        f"<meta name='viewport' content='width=device-width'><title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>{facts}<p>{counts}</p>{body}</html>"
    )


def _count(number: int, what: str) -> str:
    return f"<b class='{what}'>{number} {what}{'' if number == 1 else 's'}</b>"


def _facts(meta) -> str:
    cameras = ", ".join(meta.camera_keys) or "no cameras"
    version = meta.info["codebase_version"]
    return f"{version}, {meta.total_episodes} episodes, {meta.total_frames} frames at {meta.fps:g} fps; {cameras}"


def _card(finding: Finding, pictures: list[tuple[int, str]], curves: str) -> str:
    images = "".join(
        f"<figure><img src='data:image/jpeg;base64,{picture}' alt='frame {frame}'>"
        f"<figcaption>frame {frame}</figcaption></figure>"
        for frame, picture in pictures
    )
    where = finding.where
    place = str(where) if where.file is None or where.file not in finding.message else _without_file(where)
    fix = f"<pre>{html.escape(finding.fix)}</pre>" if finding.fix else ""
    return (
        f"<article class='{finding.severity}'><p><b class='{finding.severity}'>{finding.severity}</b> "
        f"<code>{html.escape(finding.code)}</code> {html.escape(place)}</p>"
        f"<p>{html.escape(finding.message)}</p>{fix}{images}{curves}</article>"
    )


def _without_file(where) -> str:
    return str(type(where)(where.episode, where.frame, where.last_frame, where.feature))


def _pictures(finding: Finding, meta) -> list[tuple[int, str]]:
    """First, middle and last frame that a finding means, of its camera or of the first one, with their numbers."""
    where = finding.where
    key = where.feature if where.feature in meta.video_keys else next(iter(meta.video_keys), None)
    if where.episode is None or where.frame is None or key is None:
        return []
    last = where.frame if where.last_frame is None else where.last_frame
    frames = sorted({where.frame, (where.frame + last) // 2, last})
    try:
        reader = VideoReader(meta.video_file(where.episode, key))
        start = meta.video_start(where.episode, key)
        numbers = reader.nearest([start + frame / meta.fps for frame in frames], 0.5 / meta.fps)
        return [(frame, _jpeg(picture)) for frame, picture in zip(frames, reader.frames(numbers), strict=True)]
    except (VideoDecodeError, ValueError):
        return []


def _jpeg(picture: np.ndarray) -> str:
    height = round(picture.shape[0] * WIDTH / picture.shape[1])
    small = cv2.cvtColor(cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
    return base64.b64encode(cv2.imencode(".jpg", small)[1]).decode()


def _curves(finding: Finding, check) -> str:
    """The joints that a finding names over its episode, the frames that it means shaded."""
    where = finding.where
    key, _, name = (where.feature or "").rstrip("]").partition("[")
    episode = next((e for e in check.episodes if e.index == where.episode), None)
    if episode is None or not name or where.frame is None:
        return ""
    joints = finding.evidence.get("joints", [name])[:CURVES]
    names, values = check.joint_names(key), episode.columns[key].astype(np.float64)
    shown = {joint: values[:, names.index(joint)] for joint in joints if joint in names}
    if not shown:
        return ""
    low, high = min(v.min() for v in shown.values()), max(v.max() for v in shown.values())
    scale = 94 / max(high - low, 1e-9)
    lines = [
        f"<polyline points='{' '.join(f'{x},{97 - (v - low) * scale:.1f}' for x, v in enumerate(column))}' "
        f"fill='none' stroke='{color}' vector-effect='non-scaling-stroke'/>"
        for column, color in zip(shown.values(), COLORS, strict=False)
    ]
    legend = " ".join(
        f"<span style='color:{c}'>{html.escape(joint)}</span>" for joint, c in zip(shown, COLORS, strict=False)
    )
    last = where.frame if where.last_frame is None else where.last_frame
    return (
        f"<figure><svg width='420' height='110' viewBox='0 0 {max(1, len(values) - 1)} 100' preserveAspectRatio='none'>"
        f"<rect x='{where.frame - 1}' y='0' width='{last - where.frame + 2}' height='100' fill='#ffd9d9'/>"
        f"{''.join(lines)}</svg><figcaption>{html.escape(key)} {legend}: {low:.4g} to {high:.4g}, "
        f"frames 0 to {len(values) - 1}</figcaption></figure>"
    )


def write_html(path: Path, findings: list[Finding], check=None, title: str = "Dataset check") -> None:
    """Write the page to a file."""
    write_text(html_page(findings, check, title), path)
