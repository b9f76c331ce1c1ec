"""Moving a transition to a device, optionally casting its floats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from lerobot.common.processor.converters import ACTION_TENSOR
from lerobot.common.processor.core import EnvTransition, TransitionKey
from lerobot.common.processor.registry import ProcessorStepRegistry
from lerobot.common.processor.steps import KeepsFeatures, ProcessorStep
from lerobot.common.utils.device import get_safe_torch_device

FLOAT_DTYPES = {
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "half": torch.half,
    "float": torch.float,
    "double": torch.double,
}
_SINGLE = (TransitionKey.ACTION, TransitionKey.REWARD, TransitionKey.DONE, TransitionKey.TRUNCATED)
_DICTS = (TransitionKey.OBSERVATION, TransitionKey.COMPLEMENTARY_DATA)


@ProcessorStepRegistry.register("device_processor")
@dataclass
class DeviceProcessorStep(KeepsFeatures, ProcessorStep):
    """Moves every tensor but those of info to `device`; casts floats to `float_dtype` if that is set.

    A tensor that is on some CUDA device already stays there when the target is CUDA. Raises ValueError if the
    device is not available here, or for an unknown dtype.
    """

    device: str | torch.device = "cpu"
    float_dtype: str | None = None
    DTYPE_MAPPING: ClassVar[dict[str, torch.dtype]] = FLOAT_DTYPES

    def __post_init__(self):
        self.tensor_device = get_safe_torch_device(str(self.device))
        self.device = self.tensor_device.type
        self.non_blocking = self.device == "cuda"
        if self.float_dtype is not None and self.float_dtype not in FLOAT_DTYPES:
            raise ValueError(f"Invalid float_dtype {self.float_dtype!r}: expected one of {', '.join(FLOAT_DTYPES)}.")

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        action = transition.get(TransitionKey.ACTION)
        if action is not None and not isinstance(action, torch.Tensor):
            raise ValueError(f"{ACTION_TENSOR} or None, got {type(action)} (in DeviceProcessorStep).")
        moved = dict(transition)
        for key in transition.keys() & set(_SINGLE):
            moved[key] = self._move(transition[key])
        for key in _DICTS:
            if part := transition.get(key):
                moved[key] = {name: self._move(value) for name, value in part.items()}
        return moved

    def _move(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        device, dtype = self.tensor_device, value.dtype
        if device.type == "cuda" and value.is_cuda:
            device = value.device
        if value.is_floating_point():
            if device.type == "mps" and dtype is torch.float64:
                dtype = torch.float32  # mps has no doubles
            dtype = FLOAT_DTYPES.get(self.float_dtype, dtype)
        return value.to(device=device, dtype=dtype, non_blocking=self.non_blocking)

    def get_config(self) -> dict[str, Any]:
        return {"device": self.device, "float_dtype": self.float_dtype}
