"""Queued actions of a chunk."""

import pytest
import torch

from lerobot.common.policies.common.action_queue import ActionQueue

CHUNK = torch.arange(2 * 5 * 3.0).view(2, 5, 3)


def test_first_actions_of_a_chunk_come_out_in_order_and_the_rest_is_dropped():
    queue = ActionQueue(3)
    queue.extend(CHUNK)
    assert len(queue) == 3
    for step in range(3):
        assert torch.equal(queue.pop(), CHUNK[:, step])
    assert queue.is_empty


def test_reset_forgets_actions():
    queue = ActionQueue(3)
    queue.extend(CHUNK)
    queue.reset()
    assert queue.is_empty
    with pytest.raises(IndexError):
        queue.pop()
