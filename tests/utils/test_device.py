import pytest
import torch

from lerobot.common.utils.device import amp_dtype, is_torch_device_available, mixed_precision


@pytest.mark.parametrize("name", ["cuda:x", "cuda:-1", "tpu"])
def test_a_device_that_does_not_exist_is_named(name):
    with pytest.raises(ValueError, match=f"Unknown device '{name}'"):
        is_torch_device_available(name)


@pytest.mark.parametrize(("supported", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_mixed_precision_on_a_gpu_is_bfloat16_where_it_can(monkeypatch, supported, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    assert amp_dtype("cuda:0") is dtype and amp_dtype("cpu") is torch.bfloat16


def test_mixed_precision_holds_inside_its_context_only():
    a = torch.ones(2, 2)
    with mixed_precision("cpu", True):
        assert (a @ a).dtype is torch.bfloat16
    with mixed_precision("cpu", False):
        assert (a @ a).dtype is torch.float32
