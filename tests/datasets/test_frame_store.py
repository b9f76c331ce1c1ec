"""The frame store: the pictures of a dataset, resized, on disk."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lerobot.common.datasets import frame_store
from lerobot.common.datasets.frame_store import FrameStore, FrameStoreError
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.utils.images import resize_images
from tests.datasets.conftest import features, record, record_episode

SIZE, CAMERA = (24, 36), "observation.images.cam0"


def fill(dataset, root, size=SIZE) -> FrameStore:
    return FrameStore.open_or_fill(dataset, size, root=root, progress=False)


@pytest.mark.parametrize("image_dataset", [False, True])
def test_stored_pictures_are_the_decoded_ones_resized(tmp_path, image_dataset):
    kinds = {"video": 0, "image": 2} if image_dataset else {"video": 2}
    dataset = LeRobotDataset(
        root=record(tmp_path / "set", (4, 3), feature_set=features(**kinds)).root, return_uint8=True
    )
    store = fill(dataset, tmp_path / "store")
    assert sorted(store.keys) == [CAMERA, "observation.images.cam1"]
    for row in range(7):
        item = dataset[row]
        for key in store.keys:
            record_ = store[key][row]
            assert record_.shape == (3, *SIZE) and record_.dtype == torch.uint8
            assert torch.equal(record_, resize_images(item[key], SIZE))


def test_items_from_the_store_equal_live_pictures_through_the_same_resizing(recorded_root, tmp_path):
    deltas = {CAMERA: [-0.1, 0.0]}
    for as_uint8 in (True, False):
        options = {"delta_timestamps": deltas, "return_uint8": as_uint8, "episodes": [2, 1]}
        live, stored = (LeRobotDataset(root=recorded_root, **options) for _ in range(2))
        stored.use_frame_store(fill(stored, tmp_path / "store"))
        for row in (0, 5, 6, 13):
            expected, item = live[row], stored[row]
            assert torch.equal(item[CAMERA], resize_images(expected[CAMERA], SIZE))
            assert torch.equal(item["action"], expected["action"])


def test_only_the_episodes_of_a_subset_are_decoded_and_the_rest_later(own_root, tmp_path):
    part = LeRobotDataset(root=own_root, episodes=[1], return_uint8=True)
    store = fill(part, tmp_path / "store")
    assert [store.is_done(i) for i in range(3)] == [False, True, False]
    whole = LeRobotDataset(root=own_root, return_uint8=True)
    with pytest.raises(ValueError, match=r"lacks .*episodes \[0, 2\]"):
        whole.use_frame_store(store)
    whole.use_frame_store(fill(whole, tmp_path / "store"))
    assert torch.equal(whole[7][CAMERA], store[CAMERA][7])


def test_an_interrupted_filling_continues(own_root, tmp_path, monkeypatch):
    dataset = LeRobotDataset(root=own_root, return_uint8=True)
    decoded, original = [], frame_store.VideoReader

    def interrupted(path):
        if len(decoded) == 1:
            raise KeyboardInterrupt
        decoded.append(path)
        return original(path)

    monkeypatch.setattr(frame_store, "VideoReader", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fill(dataset, tmp_path / "store")
    again = []
    monkeypatch.setattr(frame_store, "VideoReader", lambda path: again.append(path) or original(path))
    store = fill(dataset, tmp_path / "store")
    assert [path.name for path in again] == ["episode_000001.mp4", "episode_000002.mp4"]
    assert torch.equal(store[CAMERA][0], resize_images(dataset[0][CAMERA], SIZE))
    fill(dataset, tmp_path / "store")
    assert len(again) == 2  # a full store decodes nothing


@pytest.mark.parametrize(
    "change, reason", [("size", "size"), ("video", "picture files"), ("episodes", "episode lengths")]
)
def test_a_store_of_something_else_is_refused_with_the_reason(own_root, tmp_path, change, reason):
    dataset = LeRobotDataset(root=own_root)
    fill(dataset, tmp_path / "store")
    if change == "video":
        shutil.copy(dataset.meta.video_file(0, CAMERA), dataset.meta.video_file(1, CAMERA))
    if change == "episodes":
        record_episode(dataset, 3, 2)
    with pytest.raises(FrameStoreError, match=f"made from something else: {reason}"):
        fill(dataset, tmp_path / "store", (12, 12) if change == "size" else SIZE)


def test_the_default_place_is_named_by_what_the_store_depends_on(own_root, tmp_path, monkeypatch):
    monkeypatch.setattr(frame_store, "HF_LEROBOT_HOME", tmp_path / "home")
    dataset = LeRobotDataset(root=own_root)
    first, other = (FrameStore.open_or_fill(dataset, size, progress=False) for size in (SIZE, (8, 8)))
    assert first.root.parent == tmp_path / "home" / "frame_store" and first.root != other.root
    shutil.copytree(own_root, tmp_path / "copy")
    copied = FrameStore.open_or_fill(LeRobotDataset(root=tmp_path / "copy"), SIZE, progress=False)
    assert copied.root == first.root


def test_one_changed_byte_is_found_when_the_store_is_opened_again(own_root, tmp_path):
    dataset = LeRobotDataset(root=own_root)
    store = fill(dataset, tmp_path / "store")
    fill(dataset, tmp_path / "store")
    path = store.root / "000.bin"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FrameStoreError, match="damaged"):
        fill(dataset, tmp_path / "store")


def test_a_full_disk_is_noticed_before(own_root, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(frame_store.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(FrameStoreError, match="MB are free: set HF_LEROBOT_HOME"):
        fill(LeRobotDataset(root=own_root), tmp_path / "store")


def test_a_damaged_video_is_named_and_its_episode_not_marked(own_root, tmp_path):
    dataset = LeRobotDataset(root=own_root)
    video = dataset.meta.video_file(1, CAMERA)
    video.write_bytes(video.read_bytes()[:-300])
    with pytest.raises(RuntimeError, match="episode_000001.mp4"):
        fill(dataset, tmp_path / "store")
    damaged = fill(LeRobotDataset(root=own_root, episodes=[0]), tmp_path / "store")
    assert [damaged.is_done(i) for i in range(3)] == [True, False, False]


def test_records_of_any_type(tmp_path):
    arrays = {"features": (torch.bfloat16, (5, 4)), "scale": (torch.float32, ())}
    store = FrameStore(tmp_path / "store", arrays, num_frames=6, num_episodes=2, depends={"weights": "abc"})
    values = torch.randn(3, 5, 4).to(torch.bfloat16)
    store.write("features", 2, values)
    store.write("scale", 2, torch.tensor([1.0, 2.0, 3.0]))
    store.mark_done(1, range(2, 5))
    again = FrameStore(tmp_path / "store", arrays, num_frames=6, num_episodes=2, depends={"weights": "abc"})
    assert torch.equal(again["features"][2:5], values) and again["scale"][4] == 3.0
    assert (again.is_done(0), again.is_done(1)) == (False, True)
    with pytest.raises(FrameStoreError, match=r"torch.float32 \(5, 4\); the store has torch.bfloat16"):
        again.write("features", 0, torch.zeros(1, 5, 4))
    with pytest.raises(FrameStoreError, match="weights differ"):
        FrameStore(tmp_path / "store", arrays, num_frames=6, num_episodes=2, depends={"weights": "abd"})


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_read_the_store(recorded_root, tmp_path, context):
    dataset = LeRobotDataset(root=recorded_root, return_uint8=True)
    store = fill(dataset, tmp_path / "store")
    dataset.use_frame_store(store)
    expected = store[CAMERA][torch.arange(19)]
    assert len(pickle.dumps(store)) < 10_000  # not the pictures
    loader = DataLoader(dataset, 8, num_workers=1, collate_fn=dataset.collate, multiprocessing_context=context)
    assert torch.equal(torch.cat([batch[CAMERA] for batch in loader]), expected)


def test_resizing_is_the_same_for_bytes_and_floats_one_or_many_any_layout():
    images = torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    small = resize_images(images, (20, 30))
    assert small.shape == (2, 3, 20, 30) and small.dtype == torch.uint8
    as_float = resize_images(images / 255, (20, 30))
    assert as_float.dtype == torch.float32 and torch.equal(as_float, small / 255)
    assert torch.equal(resize_images(images[1], (20, 30)), small[1])
    channels_last = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(resize_images(channels_last, (20, 30)), small)
    exact = torch.nn.functional.interpolate(images.float(), (20, 30), mode="bilinear", antialias=True)
    assert (small - exact).abs().max() <= 1.01
    assert resize_images(images, (48, 64)) is images
    assert np.isclose(resize_images(images.float() / 255, (96, 128)).mean(), images.float().mean() / 255, atol=5e-3)
