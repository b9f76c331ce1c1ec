"""Records reach a batch the same way from the disk and from the device, in order, and from no changed file."""

import os

import pytest
import torch

from lerobot.common.datasets.frame_store import FrameStore, FrameStoreError
from lerobot.common.training.feature_reader import FeatureReader

FRAMES = 20


@pytest.fixture
def store(tmp_path):
    """Two arrays of numbered records, shared as by a run."""
    arrays = {"frozen.a": (torch.bfloat16, (3, 2)), "frozen.b": (torch.bool, (4,))}
    store = FrameStore(tmp_path / "store", arrays, FRAMES, 1, {})
    number = torch.arange(FRAMES)
    store.write("frozen.a", 0, number.bfloat16()[:, None, None].expand(-1, 3, 2))
    store.write("frozen.b", 0, (number % 2 == 0)[:, None].expand(-1, 4))
    store.mark_done(0, range(FRAMES))
    store.share()
    yield store
    store.release()


def batches():
    draw = torch.Generator().manual_seed(0)
    return [{"index": torch.randint(FRAMES, (5,), generator=draw), "more": i} for i in range(6)]


def check(reader, device):
    found = list(reader.ahead(iter(batches())))
    assert [batch["more"] for batch in found] == list(range(6))
    for batch in found:
        numbers = batch["index"].to(device)
        assert batch["frozen.a"].device.type == device and batch["frozen.a"].dtype is torch.bfloat16
        assert torch.equal(batch["frozen.a"][:, 0, 0].long(), numbers)
        assert torch.equal(batch["frozen.b"][:, 3], numbers % 2 == 0)


@pytest.mark.parametrize("limit", [None, 0.0, 1.0], ids=["default", "disk", "memory"])
def test_records_and_their_order(store, limit):
    reader = FeatureReader(store, torch.device("cpu"), limit)
    assert (reader.resident is not None) is (limit == 1.0)
    check(reader, "cpu")


def test_what_is_in_memory_does_not_need_the_files_any_more(store):
    readers = [FeatureReader(store, torch.device("cpu"), limit) for limit in (1.0, 0.0)]
    os.unlink(store.root / "000.bin")
    check(readers[0], "cpu")
    with pytest.raises(FrameStoreError, match="changed or deleted"):
        list(readers[1].ahead(iter(batches())))
    with pytest.raises(FrameStoreError, match="changed or deleted"):
        FeatureReader(store, torch.device("cpu"), 1.0)


@pytest.mark.gpu
@pytest.mark.parametrize("limit", [None, 0.0], ids=["on the GPU", "from the disk"])
def test_records_on_a_gpu(store, limit):
    reader = FeatureReader(store, torch.device("cuda"), limit)
    assert (reader.resident is not None) is (limit is None)
    for _ in range(20):
        check(reader, "cuda")
