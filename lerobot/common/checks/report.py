"""A page of findings with pictures, readable without a network."""

from __future__ import annotations

import base64
import html
from pathlib import Path

import cv2
import numpy as np

from lerobot.common.checks.finding import SEVERITIES, Finding, by_severity
from lerobot.common.datasets.video_utils import VideoDecodeError, VideoReader

PICTURES = 40  # per page
WIDTH = 200  # pixels

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top; padding: .5rem; }
tr { border-top: 1px solid #ddd; } code { background: #f3f3f3; padding: .1rem .3rem; word-break: break-all; }
.error { color: #b00020; } .warning { color: #9a5b00; } .info { color: #555; } img { margin: .2rem .2rem 0 0; }
"""


def html_page(findings: list[Finding], meta=None, title: str = "Dataset check") -> str:
    """The page as text; with `meta` of the dataset it shows the frames that findings name."""
    counts = ", ".join(f"{sum(f.severity == s for f in findings)} {s}s" for s in reversed(SEVERITIES))
    rows, left = [], PICTURES
    for finding in by_severity(findings):
        pictures = _pictures(finding, meta) if meta is not None and left > 0 else []
        left -= len(pictures)
        rows.append(_row(finding, pictures))
    body = "".join(rows) or "<tr><td>Nothing was found.</td></tr>"
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1><p>{counts}</p><table>{body}</table></html>"
    )


def _row(finding: Finding, pictures: list[str]) -> str:
    images = "".join(f"<img src='data:image/jpeg;base64,{picture}' alt='frame'>" for picture in pictures)
    fix = f"<br>Repair: <code>{html.escape(finding.fix)}</code>" if finding.fix else ""
    return (
        f"<tr><td class='{finding.severity}'>{finding.severity}</td><td><code>{html.escape(finding.code)}</code></td>"
        f"<td>{html.escape(str(finding.where))}</td><td>{html.escape(finding.message)}{fix}<br>{images}</td></tr>"
    )


def _pictures(finding: Finding, meta) -> list[str]:
    """First, middle and last frame that a finding means, of its camera or of the first one."""
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
        return [_jpeg(picture) for picture in reader.frames(numbers)]
    except (VideoDecodeError, ValueError):
        return []


def _jpeg(picture: np.ndarray) -> str:
    height = round(picture.shape[0] * WIDTH / picture.shape[1])
    small = cv2.cvtColor(cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
    return base64.b64encode(cv2.imencode(".jpg", small)[1]).decode()


def write_html(path: Path, findings: list[Finding], meta=None, title: str = "Dataset check") -> None:
    """Write the page to a file."""
    Path(path).write_text(html_page(findings, meta, title), encoding="utf-8")
