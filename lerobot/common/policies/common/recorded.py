"""Functions of tensors that are recorded once per shape as CUDA graphs and then replayed: no launch waits for Python.

A recording is used only after it gave, on the inputs it was made from, what the function gives, bit for bit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, register_pytree_node, tree_flatten, tree_map_only, tree_unflatten

MOST = 8  # shapes that are recorded; a ninth runs as it is
WARM_UPS = 3  # runs before recording, in which libraries choose their kernels and allocate
PLAIN = (type(None), bool, int, float, str)


def tensor_tree(cls: type) -> type:
    """Have a dataclass taken apart into its fields, so that a recorded function may take one."""
    names = [f.name for f in fields(cls)]
    register_pytree_node(
        cls, lambda whole: ([getattr(whole, name) for name in names], None), lambda parts, _: cls(*parts)
    )
    return cls


class CudaGraph:
    """`function` on tensors of fixed shape, recorded.

    Raises RuntimeError where the function waits for the GPU or copies from the CPU.
    """

    @torch.inference_mode(False)  # its inputs are written to in any mode
    @torch.no_grad()
    def __init__(self, function: Callable[..., Any], leaves: list[Any], spec: TreeSpec):
        self.inputs = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(self.inputs, spec)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                function(*args, **kwargs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # other threads may go on
            self.output = function(*args, **kwargs)

    def replay(self, leaves: list[Any]) -> Any:
        """The function's result on other tensors of the same shapes."""
        for kept, leaf in zip(self.inputs, leaves, strict=True):
            if isinstance(kept, Tensor):
                kept.copy_(leaf, non_blocking=True)
        self.graph.replay()
        return tree_map_only(Tensor, torch.clone, self.output)  # the next replay writes over it


class Recorded:
    """`function`, replayed from a recording where its arguments are tensors of `device` and plain values.

    Random numbers are drawn by a replay as by the function: the recording is checked from the same state of the
    generator. What cannot be recorded, or comes out otherwise, goes on as it is, with a message.
    """

    def __init__(self, function: Callable[..., Any], name: str, device: torch.device, recorder=CudaGraph):
        self.function, self.name, self.device, self.recorder = function, name, device, recorder
        self.recordings: dict[Any, Any] = {}

    def __call__(self, *args, **kwargs) -> Any:
        leaves, spec = tree_flatten((args, kwargs))
        if torch.is_grad_enabled() or not all(self._can_record(leaf) for leaf in leaves):
            return self.function(*args, **kwargs)
        key = (str(spec), *(_kind(leaf) for leaf in leaves))
        if key in self.recordings:
            recording = self.recordings[key]
            return self.function(*args, **kwargs) if recording is None else recording.replay(leaves)
        if len(self.recordings) >= MOST:
            return self.function(*args, **kwargs)
        result, self.recordings[key] = self._record(leaves, spec)
        return result

    def _can_record(self, leaf: Any) -> bool:
        return leaf.device.type == self.device.type if isinstance(leaf, Tensor) else isinstance(leaf, PLAIN)

    def _record(self, leaves: list[Any], spec: TreeSpec) -> tuple[Any, Any]:
        """(result, recording, or None where there is no use for one)."""
        args, kwargs = tree_unflatten(leaves, spec)
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            expected = self.function(*args, **kwargs)
        state = _generators(cuda)
        try:
            recording = self.recorder(self.function, leaves, spec)
        except RuntimeError as e:
            _restore(state, cuda)
            self._warn(f"it cannot be recorded ({str(e).splitlines()[0]})")
            return self.function(*args, **kwargs), None
        _restore(state, cuda)
        found = recording.replay(leaves)
        if not _same(found, expected):
            self._warn("the recording gives other numbers than the function on the first observation")
            return expected, None
        logging.info("%s is recorded as a CUDA graph; equal to the bit on the first observation.", self.name)
        return found, recording

    def _warn(self, why: str) -> None:
        logging.warning("%s runs without a CUDA graph: %s. --policy.inference=plain does not try.", self.name, why)


def _kind(leaf: Any) -> Any:
    return (leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf


def _same(found: Any, expected: Any) -> bool:
    pairs = zip(tree_flatten(found)[0], tree_flatten(expected)[0], strict=True)
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


def _generators(cuda: list[torch.device]) -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in cuda)]


def _restore(state: list[Tensor], cuda: list[torch.device]) -> None:
    torch.set_rng_state(state[0])
    for device, kept in zip(cuda, state[1:], strict=True):
        torch.cuda.set_rng_state(kept, device)
