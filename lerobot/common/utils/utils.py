"""Small helpers of the commands: logging set-up, user-facing errors, names kept for older scripts."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lerobot.common.utils.device import (
    auto_select_torch_device,
    get_safe_torch_device,
    is_amp_available,
    is_torch_device_available,
)
from lerobot.common.utils.logging_utils import format_big_number
from lerobot.common.utils.user_errors import USER_ERRORS


def init_logging(log_file: Path | None = None, display_pid: bool = False, **_) -> None:
    """Log to the terminal (and a file) as `LEVEL time message`."""
    root = logging.getLogger()
    root.handlers.clear()
    root.setLevel(logging.INFO)
    pid = " %(process)d" if display_pid else ""
    layout = logging.Formatter(f"%(levelname)s{pid} %(asctime)s %(message)s", "%H:%M:%S")
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if log_file is not None:
        Path(log_file).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log_file))
    for handler in handlers:
        handler.setFormatter(layout)
        root.addHandler(handler)
    for noisy in ("httpx", "urllib3", "huggingface_hub", "matplotlib", "OpenGL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def run_command(main: Callable[[], object]) -> None:
    """Run a command: user errors become one message and exit code 1 (the traceback with LEROBOT_TRACEBACK=1)."""
    for stream in (sys.stdout, sys.stderr):  # a terminal without Unicode shows `?` and ends no training
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        main()
    except USER_ERRORS as e:
        if os.environ.get("LEROBOT_TRACEBACK"):
            raise
        sys.stdout.flush()
        print(f"error: {e}", file=sys.stderr)
        raise SystemExit(1) from None
    except EOFError:
        print("error: nobody answers: this command asks questions, run it in a terminal.", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        raise SystemExit(130) from None


def json_list(text: str) -> list:
    """What argparse reads a list with."""
    return _json(text, list, '[1, 2] or ["a"]')


def json_dict(text: str) -> dict:
    """What argparse reads a dict with."""
    return _json(text, dict, '{"a": "b"}')


def _json(text: str, kind: type, example: str) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, kind):
        raise argparse.ArgumentTypeError(f"{text}: expected JSON such as {example}")
    return value


def available_memory() -> int:
    """Bytes of main memory that a process can have without swapping; files in the page cache count as free."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux: what is installed
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def inside_slurm() -> bool:
    """Whether this process was started by Slurm."""
    return "SLURM_JOB_ID" in os.environ


def has_method(cls: object, method_name: str) -> bool:
    """Whether an object has a callable of this name."""
    return callable(getattr(cls, method_name, None))


def is_valid_numpy_dtype_string(dtype_str: str) -> bool:
    """Whether numpy knows this dtype name."""
    try:
        np.dtype(dtype_str)
    except TypeError:
        return False
    return True


def get_channel_first_image_shape(image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """(H, W, C) or (C, H, W) -> (C, H, W); ValueError when the channels cannot be told."""
    a, b, c = image_shape
    if c < a and c < b:
        return (c, a, b)
    if a < b and a < c:
        return (a, b, c)
    raise ValueError(f"{image_shape} is not the shape of a picture: no dimension is smaller than both others.")


def get_safe_dtype(dtype: torch.dtype, device: str | torch.device) -> torch.dtype:
    """float32 in place of float64 where the device (mps) has none."""
    kind = device.type if isinstance(device, torch.device) else str(device)
    return torch.float32 if kind == "mps" and dtype == torch.float64 else dtype


__all__ = [
    "auto_select_torch_device",
    "format_big_number",
    "get_channel_first_image_shape",
    "get_safe_dtype",
    "get_safe_torch_device",
    "has_method",
    "init_logging",
    "inside_slurm",
    "is_amp_available",
    "is_torch_device_available",
    "is_valid_numpy_dtype_string",
    "run_command",
]


def unwrap_scalar(value: Any) -> Any:
    """The Python number in a tensor or array of one element; anything else as it is."""
    single = isinstance(value, torch.Tensor | np.ndarray | np.generic) and np.prod(value.shape) == 1
    return value.item() if single else value
