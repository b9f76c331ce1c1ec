"""Small recorded datasets and the reference items."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset

ARTIFACTS = Path(__file__).parents[1] / "artifacts" / "dataset"
HEIGHT, WIDTH = 64, 96


def picture(episode: int, frame: int, camera: int = 0, size=(HEIGHT, WIDTH)) -> np.ndarray:
    """A smooth RGB picture that differs from frame to frame by more than compression does."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    shift = 8 * frame + 40 * episode + 90 * camera
    return np.stack([(x + shift) % 200, (2 * y + shift) % 200, (x + y + shift) % 200], -1).astype(np.uint8)


def features(video: int = 1, image: int = 0, **extra) -> dict:
    """State, action, `video` video cameras and `image` image cameras."""
    names = [f"motor_{i}" for i in range(6)]
    result = {
        "observation.state": {"dtype": "float32", "shape": (6,), "names": names},
        "action": {"dtype": "float32", "shape": (6,), "names": names},
    }
    kinds = ["video"] * video + ["image"] * image
    for camera, kind in enumerate(kinds):
        result[f"observation.images.cam{camera}"] = {
            "dtype": kind,
            "shape": (HEIGHT, WIDTH, 3),
            "names": ["height", "width", "channels"],
        }
    return result | extra


def frame(dataset: LeRobotDataset, episode: int, index: int, task: str | None = None) -> dict:
    """The frame that `record` writes: every number is 100 * episode + index."""
    value = np.full(6, 100 * episode + index, dtype=np.float32)
    cameras = {key: picture(episode, index, int(key[-1])) for key in dataset.meta.camera_keys}
    return {
        "observation.state": value,
        "action": value + 0.5,
        "task": task or f"task {episode % 2}",
        **cameras,
    }


def record(root: Path, lengths=(5, 8, 6), first_episode: int = 0, feature_set=None, **options) -> LeRobotDataset:
    """Create a dataset and record episodes of these lengths."""
    dataset = LeRobotDataset.create(None, 10, root=root, features=feature_set or features(), **options)
    for episode, length in enumerate(lengths, first_episode):
        record_episode(dataset, episode, length)
    return dataset


def record_episode(dataset: LeRobotDataset, episode: int, length: int) -> None:
    """Record one more episode."""
    for index in range(length):
        dataset.add_frame(frame(dataset, episode, index))
    dataset.save_episode()


@pytest.fixture(scope="session")
def recorded_root(tmp_path_factory) -> Path:
    """A video dataset with episodes of 5, 8 and 6 frames at 10 fps; not to be changed."""
    return record(tmp_path_factory.mktemp("recorded") / "set").root


@pytest.fixture
def own_root(tmp_path) -> Path:
    """The same dataset, free to be damaged."""
    return record(tmp_path / "set").root


@pytest.fixture(scope="session")
def golden():
    """(tensors, description) of the reference items."""
    return load_file(ARTIFACTS / "items.safetensors"), json.loads((ARTIFACTS / "items.json").read_text())
