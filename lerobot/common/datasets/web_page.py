"""A local web page of a dataset: episodes, synchronized videos, joint plots, tasks and what the check found."""

from __future__ import annotations

import json
import re
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import cv2
import torch

from lerobot.common.checks.finding import Finding, by_severity
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.utils import DatasetError

PLOTTED = ("observation.state", "action")
PAGE = Path(__file__).with_name("web_page.html")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


def dataset_summary(dataset: LeRobotDataset, findings: list[Finding]) -> dict:
    """What the page shows of the whole dataset."""
    meta = dataset.meta
    return {
        "name": str(meta.repo_id or meta.root),
        "fps": meta.fps,
        "cameras": meta.camera_keys,
        "episodes": [
            {"index": index, "length": meta.episodes[index]["length"], "tasks": meta.episodes[index]["tasks"]}
            for index in dataset.episode_indices
        ],
        "findings": [finding.to_dict() for finding in by_severity(findings)],
    }


def episode_data(dataset: LeRobotDataset, episode: int) -> dict:
    """Curves {"key[joint]": values} of an episode, and where its videos begin; KeyError for an unknown one."""
    if episode not in dataset.episode_indices:
        raise KeyError(f"Episode {episode} is not loaded.")
    rows, curves = dataset.rows_of_episode(episode), {}
    for key in PLOTTED:
        if key in dataset.features and len(dataset.meta.shapes[key]) == 1:
            names = dataset.meta.names[key] or list(range(dataset.meta.shapes[key][0]))
            names = next(iter(names.values())) if isinstance(names, dict) else names
            values = dataset.table[key][rows].reshape(len(rows), -1).T.tolist()
            curves |= {f"{key}[{name}]": column for name, column in zip(names, values, strict=True)}
    starts = {key: dataset.meta.video_start(episode, key) for key in dataset.meta.video_keys}
    return {"curves": curves, "starts": starts, "length": len(rows)}


def picture_png(dataset: LeRobotDataset, episode: str, frame: str, camera: str) -> bytes:
    """A picture of an image dataset as PNG; KeyError when the episode has no such frame."""
    if int(episode) not in dataset.episode_indices:
        raise KeyError(f"Episode {episode} is not loaded.")
    row = dict(enumerate(dataset.rows_of_episode(int(episode))))[int(frame)]
    picture = dataset[int(row)][camera].permute(1, 2, 0)
    picture = picture if dataset.return_uint8 else (picture * 255).round().to(torch.uint8)
    return cv2.imencode(".png", cv2.cvtColor(picture.numpy(), cv2.COLOR_RGB2BGR))[1].tobytes()


class _Handler(BaseHTTPRequestHandler):
    """GET /, /dataset, /episode?index=N, /video?episode=N&camera=KEY (with byte ranges, for seeking) and
    /picture?episode=N&frame=N&camera=KEY for cameras that are stored as pictures.
    """

    def __init__(self, dataset: LeRobotDataset, findings: list[Finding], *args):
        self.dataset, self.findings = dataset, findings
        super().__init__(*args)

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        try:
            if address.path == "/":
                self._send(PAGE.read_bytes(), "text/html; charset=utf-8")
            elif address.path == "/dataset":
                self._send_json(dataset_summary(self.dataset, self.findings))
            elif address.path == "/episode":
                self._send_json(episode_data(self.dataset, int(query["index"])))
            elif address.path == "/video" and query["camera"] in self.dataset.meta.video_keys:
                self._send_video(self.dataset.meta.video_file(int(query["episode"]), query["camera"]))
            elif address.path == "/picture" and query["camera"] in self.dataset.meta.image_keys:
                self._send(picture_png(self.dataset, **query), "image/png")
            else:
                self.send_error(404)
        except (KeyError, ValueError, TypeError, FileNotFoundError, DatasetError) as e:
            self.send_error(404, str(e)[:100].replace("\n", " "))
        except (BrokenPipeError, ConnectionResetError):  # the browser has seen enough of a video
            pass

    def _send_json(self, data: dict) -> None:
        self._send(json.dumps(data).encode(), "application/json")

    def _send(self, body: bytes, kind: str, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _send_video(self, path: Path) -> None:
        size = path.stat().st_size
        match = _RANGE.match(self.headers.get("Range", ""))
        first = int(match[1]) if match else 0
        last = min(int(match[2]) if match and match[2] else size - 1, first + 2**22, size - 1)
        with open(path, "rb") as file:
            file.seek(first)
            body = file.read(last - first + 1)
        span = f"bytes {first}-{first + len(body) - 1}/{size}"
        self._send(body, "video/mp4", 206, Accept_Ranges="bytes", Content_Range=span)

    def log_message(self, *args) -> None:
        """Nothing is printed per request."""


def make_server(dataset: LeRobotDataset, findings: list[Finding], host: str, port: int) -> ThreadingHTTPServer:
    """A server of the page, not yet running; port 0 takes a free one."""
    return ThreadingHTTPServer((host, port), partial(_Handler, dataset, findings))
