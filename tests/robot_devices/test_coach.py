"""What is said about an episode, and about cameras that are not where they were."""

from __future__ import annotations

import numpy as np
import pytest

from lerobot.common.checks.camera_ghost import (
    check_cameras,
    load_references,
    references_of_dataset,
    save_overlays,
    save_references,
)
from lerobot.common.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.common.robot_devices.coach import review_episode
from lerobot.common.robot_devices.pace import Pace

FPS = 30
NAMES = ["a", "b"]
LOW, HIGH = [-100.0, -100.0], [100.0, 100.0]


def wave(frames: int = 120) -> np.ndarray:
    time = np.arange(frames) / FPS
    return np.stack([30 * np.sin(3 * time), 20 * np.cos(3 * time)], axis=1).astype(np.float32)


def review(action, state=None, hz: float = FPS, starts=(), drops=0, held=0):
    pace = Pace(FPS)
    pace.held = held
    for tick in range(len(action)):
        pace.tick(tick / hz, 1 / hz - 1e-6)
    state = action - 1.0 if state is None else state
    buffer = {"action": list(action), "observation.state": list(state)}
    return review_episode(buffer, FPS, pace, NAMES, LOW, HIGH, list(starts), {"laptop": drops})


def codes(report) -> set[str]:
    return {finding.code for finding in report.findings}


def test_a_good_episode_is_kept():
    report = review(wave(), starts=[wave()[0]])
    assert not report.findings and report.advice == "keep"
    assert report.numbers["frames"] == 120 and report.numbers["fps"] == pytest.approx(30)


def test_standing_still_at_the_ends_is_told():
    still = np.repeat(wave()[:1], 60, axis=0)
    report = review(np.concatenate([still, wave(), np.repeat(wave()[-1:], 45, axis=0)]))
    assert codes(report) == {"episode.idle_start", "episode.idle_end"} and report.advice == "keep"


@pytest.mark.parametrize(
    "make, code",
    [
        (lambda a: review(a, hz=20), "episode.slow"),
        (lambda a: review(a, state=np.zeros_like(a)), "episode.frozen_joint"),
        (lambda a: review(a, state=a + 30), "episode.offset"),
    ],
)
def test_what_spoils_an_episode(make, code):
    report = make(wave())
    assert code in codes(report) and report.advice == "redo"


def test_an_arm_that_waited_for_pictures_is_told():
    report = review(wave(), held=3)
    assert codes(report) == {"episode.held"} and "3 times" in str(report)


def test_what_is_worth_a_warning():
    assert codes(review(np.clip(wave() * 10, -100, 100), state=np.clip(wave() * 10, -100, 100))) == {
        "episode.saturated_joint"
    }
    assert codes(review(wave(), starts=[wave()[0] + 40])) == {"episode.start_pose"}
    assert codes(review(wave(), drops=30)) == {"episode.camera_drops"}


@pytest.fixture(scope="module")
def references():
    return references_of_dataset(LeRobotDatasetMetadata(None, root="grasp_dataset"))


def test_references_are_kept_with_a_checkpoint(references, tmp_path):
    save_references(references, tmp_path)
    loaded = load_references(tmp_path)
    assert set(loaded) == {"laptop", "phone"}
    assert all((loaded[name] == references[name]).all() for name in loaded)
    assert len(save_overlays(loaded, references, tmp_path / "out")) == 2


def test_cameras_as_they_were_are_fine(references):
    rng = np.random.default_rng(0)
    noisy = {n: np.clip(p + rng.normal(0, 4, p.shape), 0, 255).astype(np.uint8) for n, p in references.items()}
    assert not check_cameras(noisy, references)


@pytest.mark.parametrize(
    "change, code",
    [
        (lambda r: {"laptop": r["phone"], "phone": r["laptop"]}, "camera.swapped"),
        (lambda r: {"laptop": r["laptop"][:, ::-1]}, "camera.mirrored"),
        (lambda r: {"laptop": r["laptop"][::-1, ::-1]}, "camera.upside_down"),
        (lambda r: {"laptop": (r["laptop"] * 0.5).astype(np.uint8)}, "camera.darker"),
        (lambda r: {"laptop": np.roll(r["laptop"], 40, axis=1)}, "camera.moved"),
    ],
)
def test_what_happened_to_a_camera(references, change, code):
    assert code in {finding.code for finding in check_cameras(change(references), references)}
