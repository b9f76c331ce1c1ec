"""Memory of batches is used again, and never while somebody holds it."""

import gc
import subprocess
import sys

import pytest
import torch

from lerobot.common.utils.images import pictures_as_float
from lerobot.common.utils.memory import KEPT, empty_batch


def test_memory_comes_back_only_when_the_last_view_is_gone():
    shape = (5, 3, 200, 301)  # a size that no other test has
    first = empty_batch(shape, torch.float32)
    address, view = first.data_ptr(), first[1].numpy()
    del first
    view[:] = 7
    second = empty_batch(shape, torch.float32)
    assert second.data_ptr() != address  # the numpy view still holds it
    second.zero_()
    assert (view == 7).all()
    del view
    gc.collect()
    assert empty_batch(shape, torch.float32).data_ptr() == address


def test_shapes_types_and_small_or_huge_tensors():
    for shape, dtype in (((2, 3), torch.float32), ((4, 3, 300, 400), torch.uint8), ((3, 300, 400), torch.bfloat16)):
        tensor = empty_batch(shape, dtype)
        assert (tensor.shape, tensor.dtype, tensor.is_contiguous()) == (shape, dtype, True)
    huge = empty_batch((KEPT + 1,), torch.uint8)  # more than may lie unused: freed at once
    del huge
    assert empty_batch((0, 3), torch.float32).numel() == 0


def test_floats_are_the_bytes_divided_by_255():
    bytes_ = torch.arange(256, dtype=torch.uint8).repeat(3 * 4 * 512).view(4, 3, 512, 256)
    assert torch.equal(pictures_as_float(bytes_), bytes_.float() / 255)
    assert torch.equal(pictures_as_float(bytes_[0]), bytes_[0].float() / 255)


PAGES = """
import resource, torch
from lerobot.common.utils.memory import keep_all_freed_pages

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(2**20) for _ in range(60)]  # 240 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = keep_all_freed_pages()
print(kept, faults(), faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told to keep pages")
def test_pages_that_were_freed_are_not_taken_anew():
    words = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True).stdout.split()
    kept, first, second = words[0] == "True", int(words[1]), int(words[2])
    assert not kept or second < first / 4  # another C library keeps what it likes
