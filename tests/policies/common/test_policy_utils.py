"""Helpers of policies."""

from collections import deque

import torch
from torch import nn

from lerobot.common.policies.utils import (
    eval_mode,
    get_device_from_parameters,
    get_dtype_from_parameters,
    get_output_shape,
    populate_queues,
)


def test_queue_is_first_filled_by_repetition_then_slides():
    queues = {"observation.state": deque(maxlen=3)}
    populate_queues(queues, {"observation.state": 1, "other": 5})
    assert list(queues["observation.state"]) == [1, 1, 1]
    populate_queues(queues, {"observation.state": 2})
    assert list(queues["observation.state"]) == [1, 1, 2]


def test_excluded_keys_are_not_queued():
    queues = {"action": deque(maxlen=2)}
    populate_queues(queues, {"action": 1}, exclude_keys=["action"])
    assert not queues["action"]


def test_output_shape_leaves_running_statistics_alone():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    assert get_output_shape(module, (1, 3, 8, 8)) == (1, 4, 6, 6)
    assert module[1].num_batches_tracked == 0 and module.training


def test_eval_mode_restores_each_module():
    module = nn.Sequential(nn.Dropout(), nn.Dropout()).train()
    module[1].eval()
    with eval_mode(module):
        assert not any(m.training for m in module.modules())
    assert module.training and module[0].training and not module[1].training


def test_device_and_dtype_of_parameters():
    module = nn.Linear(2, 2).double()
    assert get_device_from_parameters(module) == torch.device("cpu")
    assert get_dtype_from_parameters(module) == torch.float64
