"""Recorded calls: once per shape, only where they give the same bits, else the function itself.

On a CPU the recording is played by a stand-in that, as a CUDA graph does, reads and writes tensors of its own.
"""

from dataclasses import dataclass

import pytest
import torch
from torch.utils._pytree import tree_unflatten

from lerobot.common.policies.common.recorded import MOST, Recorded, tensor_tree

CPU = torch.device("cpu")


class StandIn:
    """Runs the function on its own copies of the tensors; counts how often it was made."""

    made = 0
    offset = 0.0

    def __init__(self, function, leaves, spec):
        type(self).made += 1
        self.function, self.spec = function, spec
        self.inputs = [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        self._run()  # as warming up does, with random draws

    def _run(self):
        args, kwargs = tree_unflatten(self.inputs, self.spec)
        return self.function(*args, **kwargs)

    def replay(self, leaves):
        for kept, leaf in zip(self.inputs, leaves, strict=True):
            if isinstance(kept, torch.Tensor):
                kept.copy_(leaf)
        return self._run() + self.offset


@pytest.fixture
def recorder():
    return type("Recorder", (StandIn,), {"made": 0})


def noisy(x, extra=None, scale=1.0):
    return scale * (x + torch.randn(x.shape)) + (0 if extra is None else sum(extra))


@torch.no_grad()
def test_replay_equals_the_function_draws_included(recorder):
    recorded = Recorded(noisy, "noisy", CPU, recorder)
    for again in range(3):
        x, extra = torch.randn(2, 3), [torch.randn(2, 3), torch.randn(2, 3)]
        torch.manual_seed(again)
        expected, after = noisy(x, extra, scale=2.0), torch.rand(1)
        torch.manual_seed(again)
        assert torch.equal(recorded(x, extra, scale=2.0), expected)
        assert torch.equal(torch.rand(1), after), "the generator stands elsewhere afterwards"
    assert recorder.made == 1


@torch.no_grad()
def test_every_shape_and_every_plain_argument_has_a_recording_up_to_a_limit(recorder):
    recorded = Recorded(noisy, "noisy", CPU, recorder)
    for count in range(1, MOST + 3):
        assert recorded(torch.zeros(count)).shape == (count,)
    assert recorder.made == MOST
    other = Recorded(noisy, "noisy", CPU, recorder)
    other(torch.zeros(2)), other(torch.zeros(2), scale=3.0), other(torch.zeros(2, dtype=torch.float64))
    assert recorder.made == MOST + 3


@torch.no_grad()
def test_a_recording_with_other_bits_is_given_up(recorder, caplog):
    recorder.offset = 1e-6
    recorded, x = Recorded(noisy, "noisy", CPU, recorder), torch.zeros(3)
    for _ in range(2):
        torch.manual_seed(0)
        expected = noisy(x)
        torch.manual_seed(0)
        assert torch.equal(recorded(x), expected)
    assert recorder.made == 1 and caplog.text.count("gives other numbers") == 1


@torch.no_grad()
def test_what_cannot_be_recorded_runs_as_it_is(caplog):
    def refuse(function, leaves, spec):
        torch.rand(5)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    recorded, x = Recorded(noisy, "noisy", CPU, refuse), torch.zeros(3)
    for _ in range(2):
        torch.manual_seed(0)
        expected = noisy(x)
        torch.manual_seed(0)
        assert torch.equal(recorded(x), expected)
    assert caplog.text.count("operation not permitted") == 1 and "--policy.inference=plain" in caplog.text


@torch.no_grad()
def test_a_dataclass_of_tensors_is_an_argument(recorder):
    @tensor_tree
    @dataclass
    class Pair:
        first: torch.Tensor
        more: list[tuple[torch.Tensor, torch.Tensor]]

    recorded = Recorded(lambda pair: pair.first + sum(a * b for a, b in pair.more), "pair", CPU, recorder)
    for value in (1.0, 2.0):
        x = torch.full((2,), value)
        assert recorded(Pair(x, [(x, x), (x, x)])).tolist() == [value + 2 * value**2] * 2
    assert recorder.made == 1


def test_gradients_and_functions_as_arguments_are_never_recorded(recorder):
    recorded = Recorded(lambda x, steer=None: x * 2 if steer is None else steer(x), "double", CPU, recorder)
    x = torch.ones(2, requires_grad=True)
    recorded(x).sum().backward()
    assert x.grad.tolist() == [2, 2]
    with torch.no_grad():
        assert recorded(x, lambda y: y + 5).tolist() == [6, 6]
    assert recorder.made == 0


@pytest.mark.parametrize("name", ["act", "diffusion", "vqbet", "tdmpc", "pi0", "smolvla"])
def test_every_policy_names_what_can_be_recorded(name, recorder):
    from lerobot.common.policies.factory import get_policy_class

    assert get_policy_class(name).recordable
