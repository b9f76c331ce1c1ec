"""The interval around a success rate."""

import pytest

from lerobot.common.evaluation.intervals import wilson_interval


@pytest.mark.parametrize(
    "successes, trials, low, high",
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0000),
    ],
)
def test_interval_agrees_with_published_values(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=6e-5)


def test_interval_narrows_with_more_trials_and_widens_with_confidence():
    few, many = wilson_interval(8, 10), wilson_interval(80, 100)
    surer = wilson_interval(8, 10, confidence=0.99)
    assert many[1] - many[0] < few[1] - few[0] < surer[1] - surer[0]


@pytest.mark.parametrize("successes, trials", [(0, 0), (3, 2), (-1, 5)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="successes of"):
        wilson_interval(successes, trials)
