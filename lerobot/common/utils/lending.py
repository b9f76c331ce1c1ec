"""Batches that a loader's worker lends to its parent: memory of both processes, written again when it came back.

The worker writes a large tensor into a slot, an anonymous file in memory that parent and worker map (nothing of it
stands in /dev/shm, whose limit it does not count for, and nothing is left when a process is killed). The message to the
parent names the slot. When the parent's last tensor over the slot is gone, the slot is free for another batch; a tensor
that is kept keeps its slot, and the worker makes further ones up to `MOST` bytes. Beyond that, and where the system has
no such files, batches travel as PyTorch sends them.

Who may write the bytes at the front of a slot: STATE the worker from FREE to LENT, else the parent; the others the
parent.
"""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import os
import secrets
import threading
import weakref
from dataclasses import dataclass
from multiprocessing import reduction
from typing import Any

import numpy as np
import torch

MOST = 2**29  # bytes that a worker lends and keeps for lending
HEADER = 64
STATE, MAPPED, READ = range(3)  # bytes of the header: one of the next three; parent has it; parent has a tensor over it
FREE, LENT, RETIRED = range(3)

# --- the worker's side --------------------------------------------------------------------------------------


class _Slot:
    """Shared memory of a worker; `held` while a tensor of the worker itself lies in it."""

    def __init__(self, number: int, capacity: int):
        self.number, self.used, self.held = number, 0, True
        self.fd = os.memfd_create("lerobot_batch")
        weakref.finalize(self, os.close, self.fd).atexit = False
        os.ftruncate(self.fd, HEADER + capacity)
        memory = np.frombuffer(mmap.mmap(self.fd, HEADER + capacity), np.uint8)
        self.header, self.data = memory[:HEADER], memory[HEADER:]

    @property
    def is_free(self) -> bool:
        return not self.held and self.header[STATE] == FREE

    def let_go(self) -> None:
        self.held = False


class _Lender:
    """The slots of a worker."""

    def __init__(self):
        self.name = secrets.token_hex(8)
        self._slots: list[_Slot] = []
        self._dropped: list[int] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # a queue's thread packs batches while the next one is read

    def take(self, size: int) -> np.ndarray | None:
        """uint8 (size,), filled with anything; None if too much is lent already."""
        with self._lock:
            self._slots = [slot for slot in self._slots if slot.header[STATE] != RETIRED]
            capacity = 1 << (size - 1).bit_length()  # pages that are never written to take no memory
            fits = (slot for slot in self._slots if slot.is_free and slot.data.nbytes == capacity)
            slot = next(fits, None) or self._new(size, capacity)
            if slot is None:
                return None
            slot.held, slot.used = True, max(slot.used, size)
        view = slot.data[:size]
        weakref.finalize(view, slot.let_go).atexit = False
        return view

    def _new(self, size: int, capacity: int) -> _Slot | None:
        if sum(slot.used for slot in self._slots) + size > MOST:
            self._dropped += [slot.number for slot in self._slots if slot.is_free]
            self._slots = [slot for slot in self._slots if not slot.is_free]
        if sum(slot.used for slot in self._slots) + size > MOST:
            return None
        try:
            slot = _Slot(next(self._numbers), capacity)
        except OSError:  # no more open files or address space
            return None
        self._slots.append(slot)
        return slot

    def lend(self, tensor: torch.Tensor) -> Lent | None:
        """What to send instead of a tensor on the CPU; None if too much is lent already."""
        slot = self._slot_of(tensor) if tensor.is_contiguous() else None
        if slot is None:
            memory = self.take(tensor.nbytes)
            if memory is None:
                return None
            copy = _tensor(memory, tensor.dtype, tensor.shape).copy_(tensor)
            slot = self._slot_of(copy)
        slot.header[STATE] = LENT
        handle = None if slot.header[MAPPED] else reduction.DupFd(slot.fd)
        with self._lock:
            dropped, self._dropped = self._dropped, []
        return Lent(
            os.getpid(), self.name, slot.number, handle, dropped, tensor.nbytes, tensor.dtype, tuple(tensor.shape)
        )

    def _slot_of(self, tensor: torch.Tensor) -> _Slot | None:
        """The slot that begins with a tensor of this worker; None for a tensor that was sent before."""
        held = (slot for slot in self._slots if slot.held and slot.header[STATE] == FREE)
        return next((slot for slot in held if slot.data.ctypes.data == tensor.data_ptr()), None)

    def forget_held(self) -> None:
        """Never again use slots that a process about to be forked will see tensors in."""
        self._slots = [slot for slot in self._slots if not slot.held]


_lender: _Lender | None = None


def _this_worker() -> _Lender | None:
    """The lender of this process, if it is a loader's worker."""
    global _lender
    if _lender is None and hasattr(os, "memfd_create") and torch.utils.data.get_worker_info() is not None:
        _lender = _Lender()
    return _lender


def take(size: int) -> np.ndarray | None:
    """uint8 (size,) that a loader's worker can lend without a copy; None in other processes, or if it is full."""
    lender = _this_worker()
    return None if lender is None else lender.take(size)


def lend(tensor: torch.Tensor) -> Lent | None:
    """What a loader's worker sends instead of a tensor on the CPU, to be sent once; None: send the tensor itself."""
    lender = _this_worker()
    return None if lender is None else lender.lend(tensor)


# --- the parent's side --------------------------------------------------------------------------------------

_mapped: dict[str, dict[int, np.ndarray]] = {}  # by lender and number of the slot


@dataclass
class Lent:
    """A tensor in the slot of a worker; `handle` where the parent does not have the slot yet."""

    pid: int
    lender: str
    number: int
    handle: Any | None
    dropped: list[int]
    nbytes: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    def borrow(self) -> torch.Tensor:
        """The tensor; its slot goes back to the worker when nothing refers to this memory any more."""
        slots = _mapped.get(self.lender)
        if slots is None:
            slots = _mapped[self.lender] = {}
            _forget_with_process(self.pid, self.lender)
        for number in self.dropped:
            slots.pop(number, None)
        if self.handle is not None:
            slots[self.number] = self._map()
        memory = slots[self.number]
        memory[MAPPED] = memory[READ] = 1
        view = memory[HEADER : HEADER + self.nbytes]
        weakref.finalize(view, _give_back, memory[:HEADER], os.getpid()).atexit = False
        return _tensor(view, self.dtype, self.shape)

    def _map(self) -> np.ndarray:
        try:
            fd = self.handle.detach()
        except (EOFError, OSError) as e:  # PyTorch notices a little later
            raise RuntimeError(
                f"DataLoader worker (pid {self.pid}) ended while its batch was on the way: {e!r}."
            ) from e
        try:
            return np.frombuffer(mmap.mmap(fd, 0), np.uint8)
        finally:
            os.close(fd)


def _tensor(memory: np.ndarray, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(memory).view(dtype).view(shape)


def _forget_with_process(pid: int, lender: str) -> None:
    """Unmap the slots of a worker when the loader has let go of it."""
    process = next((child for child in multiprocessing.active_children() if child.pid == pid), None)
    if process is not None:
        weakref.finalize(process, _mapped.pop, lender, None).atexit = False


def _give_back(header: np.ndarray, pid: int) -> None:  # runs wherever a tensor dies: no lock, each step is atomic
    if os.getpid() == pid:  # not in a fork, which has copies of the parent's tensors
        header[READ] = 0
        if header[STATE] == LENT:
            header[STATE] = FREE


# A fork sees the tensors that this process holds, in memory that it shares with the worker: their slots are never
# written again.
def _before_fork() -> None:
    for slots in list(_mapped.values()):
        for number in [number for number, memory in list(slots.items()) if memory[READ]]:
            slots.pop(number)[STATE] = RETIRED
    if _lender is not None:
        _lender.forget_held()


def _after_fork_in_child() -> None:
    global _lender
    _lender = None
    _mapped.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
