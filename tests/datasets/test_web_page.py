"""The page of a dataset: what its server gives, and that only the dataset's videos are given."""

import json
import threading
import urllib.error
import urllib.request

import pytest

from lerobot.common.checks.dataset_checks import check_dataset
from lerobot.common.checks.finding import Finding, Where
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.common.datasets.web_page import make_server
from lerobot.scripts.visualize_dataset_html import readable_episodes

CAMERA = "observation.images.cam0"
FINDING = Finding("joint.jump", "warning", "It jumps.", Where(1, 3))


@pytest.fixture(scope="module")
def address(recorded_root):
    server = make_server(LeRobotDataset(root=recorded_root), [FINDING], "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(60)
    server.server_close()


def get(address, path, **headers):
    return urllib.request.urlopen(urllib.request.Request(address + path, headers=headers), timeout=60)


def test_page_summary_and_curves(address):
    assert b"<video" not in get(address, "/").read() and get(address, "/").status == 200
    summary = json.load(get(address, "/dataset"))
    assert [e["length"] for e in summary["episodes"]] == [5, 8, 6] and summary["cameras"] == [CAMERA]
    assert summary["findings"] == [FINDING.to_dict()]
    episode = json.load(get(address, "/episode?index=1"))
    assert episode["curves"]["action[motor_2]"][:2] == [100.5, 101.5] and episode["starts"] == {CAMERA: 0.0}


def test_videos_are_given_in_ranges(address, recorded_root):
    data = (recorded_root / f"videos/chunk-000/{CAMERA}/episode_000001.mp4").read_bytes()
    path = f"/video?episode=1&camera={CAMERA}"
    assert get(address, path).read() == data
    part = get(address, path, Range="bytes=10-19")
    assert (part.status, part.headers["Content-Range"]) == (206, f"bytes 10-19/{len(data)}")
    assert part.read() == data[10:20]


def test_a_damaged_episode_is_left_out_and_said(own_root, caplog):
    (own_root / "data/chunk-000/episode_000001.parquet").write_bytes(b"PAR1")
    meta = LeRobotDatasetMetadata(root=own_root)
    assert readable_episodes(meta, check_dataset(own_root, decode=False)) == [0, 2]
    assert "Not shown: error: data.unreadable (episode 1)" in caplog.text
    assert readable_episodes(meta, []) is None


@pytest.mark.parametrize(
    "path",
    [
        "/picture?a=1",
        "/picture?camera=x",
        "/etc/passwd",
        "/video?episode=1&camera=../../meta",
        "/episode?index=9",
        "/episode",
    ],
)
def test_nothing_else_is_given(address, path):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(address, path)
