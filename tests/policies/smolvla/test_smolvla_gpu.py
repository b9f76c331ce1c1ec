"""A GPU never waits for Python, nor Python for it: training and planning without a look at the numbers.

The device `meta` has shapes and no numbers: what looks at one raises. It stands in for a GPU where there is none.
"""

from types import SimpleNamespace

import pytest
import torch

from lerobot.common.policies.common.fast_inference import record_calls
from lerobot.common.training.engine import Engine
from tests.policies.smolvla.conftest import tiny_batch, tiny_policy

FROZEN = {"freeze_vision_encoder": True, "train_expert_only": True}


@pytest.fixture
def meta(monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # which does not know that device
    return "meta"


def make_engine() -> Engine:
    return Engine(SimpleNamespace(policy=SimpleNamespace(device="cpu", use_amp=False), gradient_accumulation_steps=1))


def moved(policy, device: str):
    batch = {key: value.to(device) for key, value in tiny_batch(policy.config).items()}
    return policy.to(device), batch


def step(policy, batch, engine) -> torch.Tensor:
    engine.prepare(policy, None)
    loss, _ = engine.backward_of([batch], [2])
    return engine.clip(policy, None, 10.0) + loss


@pytest.mark.parametrize("frozen", [{}, FROZEN], ids=["all trained", "expert only"])
@pytest.mark.parametrize("markers", [False, True])
def test_a_training_step_looks_at_no_number(frozen, markers, meta):
    policy, batch = moved(tiny_policy(**frozen, add_image_special_tokens=markers), meta)
    assert step(policy.train(), batch, make_engine()).device.type == "meta"


@torch.no_grad()
def test_what_is_recorded_looks_at_no_number(meta):
    policy = tiny_policy()
    observation = policy.prepare_observation(tiny_batch(policy.config))
    on_meta = [[x.to(meta) for x in part] if isinstance(part, list) else part.to(meta) for part in observation]
    assert policy.to(meta).model.sample_actions(*on_meta).device.type == "meta"


@pytest.mark.gpu
@pytest.mark.parametrize("frozen", [{}, FROZEN], ids=["all trained", "expert only"])
def test_a_training_step_on_a_gpu_waits_for_nothing(frozen):
    policy, batch = moved(tiny_policy(**frozen), "cuda")
    optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())
    for warm in (True, False):
        torch.cuda.set_sync_debug_mode("default" if warm else "error")
        try:
            step(policy.train(), batch, make_engine())
            optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_chunk_from_a_cuda_graph_has_the_bits_of_the_plain_one(dtype):
    policy, batch = moved(tiny_policy(), "cuda")
    policy.model.vlm_with_expert.to(dtype)
    noise = torch.randn(2, policy.config.chunk_size, policy.config.max_action_dim, device="cuda")
    expected = policy.predict_action_chunk(dict(batch), noise=noise)
    record_calls(policy, torch.device("cuda"))
    for _ in range(3):
        assert torch.equal(policy.predict_action_chunk(dict(batch), noise=noise), expected)
    (recording,) = policy.model.sample_actions.recordings.values()
    assert recording is not None, "it was given up"
