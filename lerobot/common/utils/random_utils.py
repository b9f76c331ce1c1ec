"""Seeds, and the state of every random generator on disk."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from lerobot.common.constants import RNG_STATE


def set_seed(seed: int, accelerator=None) -> None:
    """Seed Python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def derive_seed(*address: int) -> int:
    """A 63-bit seed that is a function of the numbers alone, such as (seed, epoch, index)."""
    return int(np.random.SeedSequence(address).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def seeded_context(seed: int) -> Iterator[None]:
    """Run a block under a seed and put every generator back as it was, also when the block raises."""
    state = get_rng_state()
    set_seed(seed)
    try:
        yield
    finally:
        set_rng_state(state)


def get_rng_state() -> dict[str, Any]:
    """The state of Python's, numpy's and torch's generators."""
    state = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what `get_rng_state` returned."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def save_rng_state(save_dir: str | Path) -> None:
    """Write rng_state.safetensors (keys as in LeRobot's training state)."""
    save_file(rng_tensors(), Path(save_dir) / RNG_STATE)


def rng_tensors() -> dict[str, torch.Tensor]:
    """The state of every generator as the tensors of rng_state.safetensors."""
    state = get_rng_state()
    version, values, gauss = state["python"]
    _, keys, index, has_gauss, cached = state["numpy"]
    flat = {
        "py_rng_version": torch.tensor([version]),
        "py_rng_state": torch.tensor(values, dtype=torch.int64),
        "np_rng_state_values": torch.tensor(keys.astype(np.int64)),
        "np_rng_state_index": torch.tensor([index]),
        "np_rng_has_gauss": torch.tensor([has_gauss]),
        "np_rng_cached_gaussian": torch.tensor([cached], dtype=torch.float64),  # LeRobot rounds it to float32
        "torch_rng_state": state["torch"],
    }
    if gauss is not None:
        flat["py_rng_gauss"] = torch.tensor([gauss], dtype=torch.float64)
    if "cuda" in state:
        flat["torch_cuda_rng_state"] = state["cuda"]
    return flat


def load_rng_state(save_dir: str | Path) -> None:
    """Restore rng_state.safetensors."""
    flat = load_file(Path(save_dir) / RNG_STATE)
    gauss = flat["py_rng_gauss"].item() if "py_rng_gauss" in flat else None
    numpy_state = (
        "MT19937",
        flat["np_rng_state_values"].numpy().astype(np.uint32),
        int(flat["np_rng_state_index"]),
        int(flat["np_rng_has_gauss"]),
        float(flat["np_rng_cached_gaussian"]),
    )
    state = {
        "python": (int(flat["py_rng_version"]), tuple(flat["py_rng_state"].tolist()), gauss),
        "numpy": numpy_state,
        "torch": flat["torch_rng_state"],
    }
    if "torch_cuda_rng_state" in flat:
        state["cuda"] = flat["torch_cuda_rng_state"]
    set_rng_state(state)
