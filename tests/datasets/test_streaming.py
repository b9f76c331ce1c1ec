"""A stream gives every frame once, as the dataset has it, and leaves no downloaded file behind."""

import shutil
import tempfile

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lerobot.common.datasets import lerobot_dataset
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.streaming_dataset import StreamingLeRobotDataset
from tests.datasets.conftest import ARTIFACTS, record

DELTAS = {"action": [-0.1, 0.0, 0.1]}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return record(tmp_path_factory.mktemp("stream") / "set", (5, 8, 6, 7)).root


def indices(items) -> list[int]:
    return [int(item["index"]) for item in items]


@pytest.mark.parametrize("buffer_size", [1, 10, 1000])
def test_every_frame_comes_once_and_as_the_dataset_has_it(root, buffer_size):
    options = {"root": root, "delta_timestamps": DELTAS, "return_uint8": True}
    stream, dataset = StreamingLeRobotDataset(buffer_size=buffer_size, **options), LeRobotDataset(**options)
    items = list(stream)
    assert sorted(indices(items)) == list(range(26)) and (stream.num_frames, stream.num_episodes) == (26, 4)
    for item in items:
        expected = dataset[int(item["index"])]
        assert item.keys() == expected.keys()
        assert all(torch.equal(v, expected[k]) for k, v in item.items() if isinstance(v, torch.Tensor))
    if buffer_size == 1:
        assert (np.diff([int(item["episode_index"]) for item in items]) != 0).sum() == 3
    else:
        assert (np.diff([int(item["episode_index"]) for item in items]) != 0).sum() > 3


def test_the_order_is_a_function_of_seed_and_pass(root):
    stream = StreamingLeRobotDataset(root=root, seed=1)
    first, second = indices(stream), indices(stream)
    assert first != second
    again = StreamingLeRobotDataset(root=root, seed=1)
    again.set_epoch(1)
    assert indices(again) == second
    assert indices(StreamingLeRobotDataset(root=root, shuffle=False, episodes=[2, 1])) == [
        *range(13, 19),
        *range(5, 13),
    ]


def test_workers_share_the_episodes(root):
    loader = DataLoader(StreamingLeRobotDataset(root=root), batch_size=None, num_workers=2)
    assert sorted(indices(loader)) == list(range(26))


@pytest.mark.parametrize("version", ["v21", "v30"])
def test_files_of_the_hub_are_fetched_by_episode_and_deleted(tmp_path, monkeypatch, version):
    source, fetched = ARTIFACTS / version, []

    def download(repo_id, root, revision, missing, allow_patterns=None, ignore_patterns=None):
        for path in allow_patterns:
            fetched.append(path)
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / path, root / path)

    shutil.copytree(source / "meta", tmp_path / "cache/meta")
    monkeypatch.setattr(lerobot_dataset, "download_files", download)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    stream = StreamingLeRobotDataset("owner/name", root=tmp_path / "cache", buffer_size=1)
    count = 0
    for item in stream:
        count += 1
        files = [path for path in (tmp_path / "temporary").rglob("*") if path.is_file()]
        assert len(files) == 3  # those of one episode (v2.1), or of the one file (v3.0)
        assert item["observation.images.phone"].shape == (3, 96, 128)
    assert count == 70 and len(fetched) == 9 and not list((tmp_path / "temporary").iterdir())
