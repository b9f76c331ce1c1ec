"""Averaging of overlapping chunks."""

import math

import pytest
import torch

from lerobot.common.policies.common.temporal_ensemble import TemporalEnsembler


def test_known_values():
    ensembler = TemporalEnsembler(0.01, 4)
    got = [ensembler.update((torch.arange(4.0) + 10 * k).view(1, 4, 1)).item() for k in range(6)]
    assert got == pytest.approx([0.0, 5.4775, 10.9400, 16.3875, 26.3875, 36.3875], abs=5e-5)


@pytest.mark.parametrize("coeff", [0.0, 0.3, -0.3])
def test_result_is_the_weighted_mean_of_all_predictions_of_a_moment(coeff):
    steps, size = 9, 4
    chunks = torch.randn(steps, 2, size, 3, generator=torch.Generator().manual_seed(0))
    ensembler = TemporalEnsembler(coeff, size)
    for now in range(steps):
        made = range(max(0, now - size + 1), now + 1)
        weights = [math.exp(-coeff * i) for i in range(len(made))]
        expected = sum(w * chunks[k][:, now - k] for w, k in zip(weights, made, strict=True)) / sum(weights)
        torch.testing.assert_close(ensembler.update(chunks[now]), expected, atol=1e-5, rtol=1e-5)


def test_reset_forgets_predictions_and_chunks_are_not_changed():
    ensembler = TemporalEnsembler(0.01, 2)
    ensembler.update(torch.ones(1, 2, 1))
    ensembler.reset()
    chunk = torch.zeros(1, 2, 1)
    assert ensembler.update(chunk) == 0
    ensembler.update(torch.ones(1, 2, 1))
    assert (chunk == 0).all()
