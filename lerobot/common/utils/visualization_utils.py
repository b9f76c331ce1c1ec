"""Showing what a robot sees and does in the viewer of `rerun`."""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from lerobot.common.constants import ACTION, OBS_PREFIX
from lerobot.common.utils.import_utils import require_package


def init_rerun(session_name: str = "lerobot_control_loop", ip: str | None = None, port: int | None = None) -> None:
    """Open a viewer, or connect to the one at ip:port.

    The environment variables RERUN_FLUSH_NUM_BYTES (default 8000) and LEROBOT_RERUN_MEMORY_LIMIT (default 10%)
    bound what is held back and what the viewer keeps. ImportError without `rerun-sdk`.
    """
    require_package("rerun-sdk", "visualize", import_name="rerun")
    import rerun

    os.environ.setdefault("RERUN_FLUSH_NUM_BYTES", "8000")
    rerun.init(session_name)
    if ip is not None and port is not None:
        rerun.connect_grpc(url=f"rerun+http://{ip}:{port}/proxy")
    else:
        rerun.spawn(memory_limit=os.environ.get("LEROBOT_RERUN_MEMORY_LIMIT", "10%"))


def log_rerun_data(
    observation: Mapping[str, Any] | None = None,
    action: Mapping[str, Any] | None = None,
    compress_images: bool = False,
) -> None:
    """Log numbers as curves and pictures (channels first or last) as images, under the name of each value.

    Names get the prefix `observation.` or `action.` if they lack it; vectors become a curve per entry.
    """
    require_package("rerun-sdk", "visualize", import_name="rerun")
    import rerun

    for prefix, values in ((OBS_PREFIX, observation), (f"{ACTION}.", action)):
        for name, value in (values or {}).items():
            if value is not None:
                _log(rerun, name if str(name).startswith(prefix) else f"{prefix}{name}", value, compress_images)


def _log(rerun, name: str, value: Any, compress_images: bool) -> None:
    if isinstance(value, numbers.Real | np.number):
        rerun.log(name, rerun.Scalars(float(value)))
    elif isinstance(value, np.ndarray) and value.ndim == 3:
        channels_first = value.shape[0] in (1, 3, 4) and value.shape[-1] not in (1, 3, 4)
        image = rerun.Image(value.transpose(1, 2, 0) if channels_first else value)
        rerun.log(name, image.compress() if compress_images else image, static=True)
    elif isinstance(value, np.ndarray):
        for index, number in enumerate(value.ravel()):
            rerun.log(f"{name}_{index}", rerun.Scalars(float(number)))
