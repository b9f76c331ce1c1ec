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
        "random_state": random.getstate(),
        "numpy_random_state": np.random.get_state(),
        "torch_random_state": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["torch_cuda_random_state"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(random_state_dict: dict[str, Any]) -> None:
    """Restore what `get_rng_state` returned."""
    random.setstate(random_state_dict["random_state"])
    np.random.set_state(random_state_dict["numpy_random_state"])
    torch.set_rng_state(random_state_dict["torch_random_state"])
    if torch.cuda.is_available() and "torch_cuda_random_state" in random_state_dict:
        torch.cuda.set_rng_state(random_state_dict["torch_cuda_random_state"])


def serialize_python_rng_state() -> dict[str, torch.Tensor]:
    """Python's generator as tensors."""
    version, values, gauss = random.getstate()
    flat = {
        "py_rng_version": torch.tensor([version]),
        "py_rng_state": torch.tensor(values, dtype=torch.int64),
    }
    if gauss is not None:
        flat["py_rng_gauss"] = torch.tensor([gauss], dtype=torch.float64)
    return flat


def deserialize_python_rng_state(rng_state_dict: dict[str, torch.Tensor]) -> None:
    """Restore Python's generator."""
    gauss = rng_state_dict["py_rng_gauss"].item() if "py_rng_gauss" in rng_state_dict else None
    values = tuple(rng_state_dict["py_rng_state"].tolist())
    random.setstate((int(rng_state_dict["py_rng_version"]), values, gauss))


def serialize_numpy_rng_state() -> dict[str, torch.Tensor]:
    """Numpy's generator as tensors."""
    _, keys, index, has_gauss, cached = np.random.get_state()
    return {
        "np_rng_state_values": torch.tensor(keys.astype(np.int64)),
        "np_rng_state_index": torch.tensor([index]),
        "np_rng_has_gauss": torch.tensor([has_gauss]),
        "np_rng_cached_gaussian": torch.tensor([cached], dtype=torch.float64),  # LeRobot rounds it to float32
    }


def deserialize_numpy_rng_state(rng_state_dict: dict[str, torch.Tensor]) -> None:
    """Restore numpy's generator."""
    np.random.set_state(
        (
            "MT19937",
            rng_state_dict["np_rng_state_values"].numpy().astype(np.uint32),
            int(rng_state_dict["np_rng_state_index"]),
            int(rng_state_dict["np_rng_has_gauss"]),
            float(rng_state_dict["np_rng_cached_gaussian"]),
        )
    )


def serialize_torch_rng_state() -> dict[str, torch.Tensor]:
    """Torch's generators (CPU, and the current CUDA device) as tensors."""
    flat = {"torch_rng_state": torch.get_rng_state()}
    if torch.cuda.is_available():
        flat["torch_cuda_rng_state"] = torch.cuda.get_rng_state()
    return flat


def deserialize_torch_rng_state(rng_state_dict: dict[str, torch.Tensor]) -> None:
    """Restore torch's generators; the one of CUDA where there is a device."""
    torch.set_rng_state(rng_state_dict["torch_rng_state"])
    if torch.cuda.is_available() and "torch_cuda_rng_state" in rng_state_dict:
        torch.cuda.set_rng_state(rng_state_dict["torch_cuda_rng_state"])


def serialize_rng_state() -> dict[str, torch.Tensor]:
    """Every generator as tensors (keys as in LeRobot's training state)."""
    return {**serialize_python_rng_state(), **serialize_numpy_rng_state(), **serialize_torch_rng_state()}


def deserialize_rng_state(rng_state_dict: dict[str, torch.Tensor]) -> None:
    """Restore every generator."""
    deserialize_python_rng_state(rng_state_dict)
    deserialize_numpy_rng_state(rng_state_dict)
    deserialize_torch_rng_state(rng_state_dict)


def save_rng_state(save_dir: str | Path) -> None:
    """Write rng_state.safetensors."""
    save_file(serialize_rng_state(), Path(save_dir) / RNG_STATE)


def load_rng_state(save_dir: str | Path) -> None:
    """Restore rng_state.safetensors."""
    deserialize_rng_state(load_file(Path(save_dir) / RNG_STATE))
