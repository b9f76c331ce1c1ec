"""Batches that workers lend: the same numbers, never written again while somebody holds them, memory bounded."""

import gc
import os
import signal
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from lerobot.common.datasets.collate import FrameBatch, _Packed, collate
from lerobot.common.utils import lending
from lerobot.common.utils.memory import SMALLEST, empty_batch

SHAPE = (3, 300, 401)
assert 3 * 300 * 401 > SMALLEST

needs_slots = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="lends on Linux only")


def picture(index: int) -> torch.Tensor:
    numbers = torch.arange(3 * 300 * 401).view(SHAPE) * (index + 3)
    return (numbers % 251).to(torch.uint8)


class Pictures(Dataset):
    """`size` frames, read a batch at a time as LeRobotDataset does."""

    def __init__(self, size: int, at: dict[int, str] | None = None):
        self.size, self.at = size, at or {}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> FrameBatch:
        for index in indices:
            if (what := self.at.get(index)) == "raise":
                raise ValueError(f"Frame {index} is damaged.")
            if what == "die":
                os.kill(os.getpid(), signal.SIGKILL)
        pictures = empty_batch((len(indices), *SHAPE), torch.uint8)
        for target, index in zip(pictures, indices, strict=True):
            target.copy_(picture(index))
        half = torch.stack([picture(index)[:1] for index in indices]).to(torch.float16)  # not from `empty_batch`
        numbers = torch.tensor(indices)
        return FrameBatch(
            {"picture": pictures, "half": half, "index": numbers, "task": ["x"] * len(indices)}, len(indices)
        )


def loader(dataset: Dataset, batch: int = 2, workers: int = 2, timeout: float = 60, **options) -> DataLoader:
    return DataLoader(
        dataset,
        batch,
        num_workers=workers,
        collate_fn=collate,
        multiprocessing_context="fork",
        timeout=timeout,
        **options,
    )


def right(batch: dict) -> bool:
    wanted = torch.stack([picture(int(index)) for index in batch["index"]])
    return torch.equal(batch["picture"], wanted) and torch.equal(batch["half"], wanted[:, :1].to(torch.float16))


def slots() -> int:
    return sum(map(len, lending._mapped.values()))


def test_batches_that_are_kept_stay_as_they_were():
    before = slots()
    kept = list(loader(Pictures(41)))
    assert [int(i) for batch in kept for i in batch["index"]] == list(range(41))
    assert all(map(right, kept)) and kept[-1]["picture"].shape == (1, *SHAPE)
    assert kept[3]["half"].dtype == torch.float16 and kept[3]["task"] == ["x", "x"]
    kept[0]["picture"].zero_()  # a batch is its owner's
    assert all(map(right, kept[1:]))
    gc.collect()
    assert slots() == before  # the loader is gone, its memory belongs to the tensors alone


@needs_slots
def test_memory_comes_back_and_is_used_again():
    batches = iter(loader(Pictures(120)))
    most = 0
    for batch in batches:
        assert right(batch)
        most = max(most, slots())
    assert 0 < most <= 2 * 2 * 5  # workers x large tensors x (two ahead, one being packed, one at its owner, one next)


def test_a_part_of_a_batch_keeps_its_memory():
    parts = [batch["picture"][1, 0, :4].numpy() for batch in loader(Pictures(60))]
    for number, part in enumerate(parts):
        assert (part == picture(2 * number + 1)[0, :4].numpy()).all()


def test_workers_that_stay_for_several_epochs():
    batches = loader(Pictures(10), persistent_workers=True)
    kept = [batch for _ in range(3) for batch in batches]
    assert len(kept) == 15 and all(map(right, kept))
    abandoned = iter(batches)
    next(abandoned)
    assert all(map(right, batches))


def test_without_room_batches_travel_as_before(monkeypatch):
    monkeypatch.setattr(lending, "MOST", 3 * SMALLEST)  # the workers are forks and see it
    kept = list(loader(Pictures(20)))
    assert all(map(right, kept))


def test_single_items_are_gathered_too():
    singles = [{"picture": picture(i), "half": picture(i)[:1].half(), "index": torch.tensor(i)} for i in range(9)]
    batches = list(loader(singles))
    assert all(map(right, batches)) and batches[0]["picture"].dtype == torch.uint8


def test_an_error_in_a_worker_reaches_the_parent():
    batches = iter(loader(Pictures(40, {12: "raise"})))
    with pytest.raises(ValueError, match="Frame 12 is damaged"):
        for _ in range(20):
            assert right(next(batches))
    assert right(next(batches))  # and the next batch comes


def lose_a_worker() -> None:
    """Read from a loader whose worker kills itself; says what was noticed, and what was left."""
    held = []
    batches = iter(loader(Pictures(400, {40: "die"}), timeout=0))
    pids = [worker.pid for worker in batches._workers]
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler raises wherever the program is just then
    try:
        for _ in range(200):
            held.append(next(batches))
    except RuntimeError as e:
        print(f"noticed: {e}", flush=True)
    assert held and all(map(right, held))
    left = [path.name for path in Path("/dev/shm").glob("torch_*")] if Path("/dev/shm").is_dir() else []
    print(f"left: {[name for name in left if int(name.split('_')[1]) in pids]}", flush=True)


def test_a_killed_worker_is_noticed_and_leaves_nothing():
    code = "from tests.utils.test_lending import lose_a_worker as run; run()"
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=400, cwd=root)
    assert "noticed: DataLoader worker (pid" in run.stdout and "left: []" in run.stdout, run.stdout + run.stderr


# --- slots, without processes -------------------------------------------------------------------------------


@pytest.fixture()
def lender(monkeypatch):
    """This process as worker and parent at once."""
    monkeypatch.setattr(lending, "_lender", lending._Lender())
    yield lending._lender
    lending._mapped.pop(lending._lender.name, None)


def send(tensor: torch.Tensor) -> torch.Tensor:
    return ForkingPickler.loads(ForkingPickler.dumps(_Packed(x=tensor)))["x"]


def one(value: int) -> torch.Tensor:
    return empty_batch((2**19,), torch.uint8).fill_(value)


@needs_slots
def test_a_tensor_is_lent_without_a_copy_and_its_slot_used_again(lender):
    first = one(1)
    got = send(first)
    first[0] = 9
    assert got[0] == 9  # the same memory
    del first
    assert len(lender._slots) == 1
    second = one(2)
    assert len(lender._slots) == 2 and got[1] == 1
    del got, second
    third, fourth = one(3), one(4)
    assert len(lender._slots) == 2 and not third.equal(fourth)


@needs_slots
def test_a_tensor_that_the_worker_keeps_or_sends_twice(lender):
    kept = one(1)
    first, again = send(kept), send(kept)
    first.fill_(5)
    assert (again == 1).all()
    del first, again
    assert not any(
        slot.data.ctypes.data == one(2).data_ptr() for slot in lender._slots if slot.held and slot.number == 0
    )
    assert (kept == 5).all()  # nobody else has written to it


@needs_slots
def test_what_a_fork_sees_is_never_written_again(lender):
    got = send(one(1))
    idle = send(one(2))
    del idle
    address = got.data_ptr()
    memory = torch.from_numpy(got.numpy())  # stands for the fork's mapping
    lending._before_fork()
    del got
    for value in range(3, 9):
        send(one(value))
    assert memory.data_ptr() == address and (memory == 1).all()
    assert len(lender._slots) == 1  # the idle one went on being used


@needs_slots
def test_a_fork_gives_nothing_back(lender, monkeypatch):
    got = send(one(1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1)  # the copy of the tensor in a fork dies
        del got
    assert lender._slots[0].header[lending.STATE] == lending.LENT


@needs_slots
def test_the_limit_holds_and_idle_slots_make_room(lender, monkeypatch):
    monkeypatch.setattr(lending, "MOST", 2**20)
    kept = [send(one(i)) for i in range(4)]
    assert [int(tensor[7]) for tensor in kept] == [0, 1, 2, 3] and len(lender._slots) == 2
    del kept
    big = empty_batch((2**20,), torch.uint8).fill_(7)
    assert len(lender._slots) == 1
    assert (send(big) == 7).all()
    assert list(lending._mapped[lender.name]) == [2]  # the parent has let go of the others


def test_only_workers_lend():
    assert get_worker_info() is None and lending.take(2**20) is None and lending.lend(torch.zeros(2**20)) is None
