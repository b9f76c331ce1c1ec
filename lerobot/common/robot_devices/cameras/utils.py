"""From configurations to cameras."""

from __future__ import annotations

from lerobot.common.robot_devices.cameras.base import Camera
from lerobot.common.robot_devices.cameras.configs import (
    CameraConfig,
    IntelRealSenseCameraConfig,
    OpenCVCameraConfig,
    SimCameraConfig,
)


def make_cameras_from_configs(configs: dict[str, CameraConfig]) -> dict[str, Camera]:
    """One camera per configuration, not connected; ValueError for an unknown type."""
    return {name: make_camera(config.type, config=config) for name, config in configs.items()}


def make_camera(camera_type: str, config: CameraConfig | None = None, **kwargs) -> Camera:
    """A camera of the type named `camera_type`; ValueError for an unknown one."""
    if camera_type == "opencv":
        from lerobot.common.robot_devices.cameras.opencv import OpenCVCamera

        return OpenCVCamera(config or OpenCVCameraConfig(**kwargs))
    if camera_type == "intelrealsense":
        from lerobot.common.robot_devices.cameras.intelrealsense import IntelRealSenseCamera

        return IntelRealSenseCamera(config or IntelRealSenseCameraConfig(**kwargs))
    if camera_type == "sim":
        from lerobot.common.robot_devices.cameras.simulated import SimCamera

        return SimCamera(config or SimCameraConfig(**kwargs))
    raise ValueError(f"Camera type '{camera_type}' is not available; expected opencv, intelrealsense or sim.")
