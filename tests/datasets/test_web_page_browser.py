"""The page of a dataset in a real browser: what is on the screen at a given frame."""

import shutil
import subprocess
import threading

import cv2
import numpy as np
import pytest

from lerobot.common.checks.finding import Finding, Where
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.web_page import make_server
from tests.datasets.conftest import features, picture, record

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
FINDING = Finding("joint.jump", "warning", "It jumps.", Where(1, 3, feature="action[motor_2]"))
LENGTH, SHOWN = 8, 6


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page of a dataset with a video camera (cam0) and a picture camera (cam1)."""
    dataset = record(tmp_path_factory.mktemp("browser") / "set", (5, LENGTH), feature_set=features(video=1, image=1))
    server = make_server(LeRobotDataset(root=dataset.root), [FINDING], "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join(60)
    server.server_close()


def browse(profile, address, *options, budget_ms: int = 5000) -> str:
    """What headless Chromium prints once the page is quiet; `profile` is a folder for its files."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--virtual-time-budget={budget_ms}"]
    flags.append("--window-size=1200,900")
    command = [CHROMIUM, *flags, f"--user-data-dir={profile / 'profile'}", *options, address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_an_episode_with_its_curves_and_findings(address, tmp_path):
    page = browse(tmp_path, f"{address}#1/{SHOWN}", "--dump-dom").split("<script>")[0]
    assert page.count(" frames</button>") == 2 and "Episode 1" in page
    assert page.count("<polyline") == 12 and page.count(f'x1="{SHOWN}"') == 2
    assert "warning: joint.jump (frame 3, action[motor_2]): It jumps." in page
    assert "It jumps." not in browse(tmp_path, f"{address}#0", "--dump-dom")


def frames_on_screen(screenshot) -> list[tuple[int, float]]:
    """(frame, error) that each camera's place on a screenshot looks most like."""
    screen, found = cv2.imread(str(screenshot)), []
    for camera in (0, 1):
        errors = []
        for frame in range(LENGTH):
            wanted = cv2.cvtColor(picture(1, frame, camera), cv2.COLOR_RGB2BGR)
            wanted = cv2.resize(wanted, (384, 256), interpolation=cv2.INTER_LINEAR)
            errors.append(cv2.matchTemplate(screen, wanted, cv2.TM_SQDIFF).min() / wanted.size)
        found.append((int(np.argmin(errors)), min(errors)))
    return found


@pytest.mark.slow  # Chromium's clock runs on while a video is decoded: on a loaded machine it takes more of that time
def test_all_cameras_show_the_chosen_frame(address, tmp_path):
    for budget_ms in (5_000, 50_000, 500_000):
        browse(tmp_path, f"{address}#1/{SHOWN}", f"--screenshot={tmp_path / 'page.png'}", budget_ms=budget_ms)
        found = frames_on_screen(tmp_path / "page.png")
        if all(frame == SHOWN and error < 200 for frame, error in found):
            return
    pytest.fail(f"Frame {SHOWN} was never shown; (frame, error) of each camera: {found}")
