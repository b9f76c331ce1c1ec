"""Random generators: saved, restored, derived."""

import random

import numpy as np
import torch

from lerobot.common.utils.random_utils import (
    load_rng_state,
    save_rng_state,
    seeded_context,
    set_seed,
)


def draw():
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item()


def test_generators_continue_after_a_round_trip(tmp_path):
    set_seed(3)
    draw()
    save_rng_state(tmp_path)
    expected = draw()
    set_seed(4)
    load_rng_state(tmp_path)
    assert draw() == expected


def test_a_seeded_block_leaves_no_trace_even_when_it_raises():
    set_seed(5)
    expected = draw()
    set_seed(5)
    try:
        with seeded_context(9):
            draw()
            raise RuntimeError
    except RuntimeError:
        pass
    assert draw() == expected
