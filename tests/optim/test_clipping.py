"""Clipping gives what torch gives, to the bit."""

import math

import pytest
import torch

from lerobot.common.optim.clipping import clip_gradients


@pytest.mark.parametrize("largest", [0.01, 5.0, 1e4, math.inf])
@pytest.mark.parametrize("odd", [None, math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_and_gradients_are_those_of_torch(largest, odd, dtype):
    torch.manual_seed(0)
    pairs = [[torch.nn.Parameter(torch.randn(3, 4).to(dtype)) for _ in range(3)] for _ in range(2)]
    for i in range(2):  # the third has no gradient
        gradient = torch.randn(3, 4).to(dtype)
        gradient[0, 0] = gradient[0, 0] if odd is None else odd
        for parameters in pairs:
            parameters[i].grad = gradient.clone()
    norm, expected = clip_gradients(iter(pairs[0]), largest), torch.nn.utils.clip_grad_norm_(pairs[1], largest)
    torch.testing.assert_close(norm, expected, rtol=0, atol=0, equal_nan=True)
    for found, right in zip(*pairs, strict=True):
        torch.testing.assert_close(found.grad, right.grad, rtol=0, atol=0, equal_nan=True)


def test_gradients_that_are_small_enough_are_not_written():
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    before = parameter.grad._version
    assert clip_gradients([parameter], 10.0) == math.sqrt(3) and parameter.grad._version == before
    assert clip_gradients([parameter], 1.0) == math.sqrt(3) and parameter.grad.norm() < 1
