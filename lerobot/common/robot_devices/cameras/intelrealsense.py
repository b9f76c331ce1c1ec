"""Intel RealSense cameras: the colour stream."""

from __future__ import annotations

import numpy as np

from lerobot.common.robot_devices.cameras.base import Camera
from lerobot.common.robot_devices.cameras.configs import IntelRealSenseCameraConfig

WAIT_MS = 1000


def import_realsense():
    """The vendor's module; ImportError names the extra."""
    try:
        import pyrealsense2
    except ImportError as e:
        raise ImportError('An Intel RealSense camera needs pyrealsense2: pip install -e ".[realsense]"') from e
    return pyrealsense2


def find_cameras() -> dict[str, str]:
    """Name by serial number of every RealSense that is plugged in."""
    rs = import_realsense()
    devices = rs.context().query_devices()
    return {d.get_info(rs.camera_info.serial_number): d.get_info(rs.camera_info.name) for d in devices}


class IntelRealSenseCamera(Camera):
    """A RealSense, named by its serial number or its name."""

    def __init__(self, config: IntelRealSenseCameraConfig):
        super().__init__(config, f"RealSense camera '{config.serial_number or config.name}'")
        self._rs = import_realsense()
        self._pipeline = None

    def _open(self) -> None:
        rs, config = self._rs, self.config
        serial = str(config.serial_number) if config.serial_number is not None else self._serial_of(config.name)
        setup = rs.config()
        setup.enable_device(serial)
        if config.width and config.height and config.fps:
            setup.enable_stream(rs.stream.color, config.width, config.height, rs.format.rgb8, config.fps)
        else:
            setup.enable_stream(rs.stream.color)
        pipeline = rs.pipeline()
        try:
            profile = pipeline.start(setup).get_stream(rs.stream.color).as_video_stream_profile()
        except RuntimeError as e:
            found = ", ".join(find_cameras()) or "none"
            raise OSError(f"{self.label} cannot be started ({e}); RealSense cameras found: {found}.") from e
        self.fps = profile.fps()
        self.width, self.height = self._turned(profile.width(), profile.height())
        self._pipeline = pipeline

    def _serial_of(self, name: str) -> str:
        found = find_cameras()
        serials = [serial for serial, other in found.items() if other == name]
        if len(serials) != 1:
            raise ValueError(f"{len(serials)} RealSense cameras are named '{name}'; set serial_number: {found}.")
        return serials[0]

    def _grab(self) -> np.ndarray:
        if self._pipeline is None:
            raise OSError(f"{self.label} is closed.")
        try:
            frame = self._pipeline.wait_for_frames(WAIT_MS).get_color_frame()
        except RuntimeError as e:
            raise OSError(f"{self.label} gives no pictures any more ({e}): check its cable.") from e
        return np.asanyarray(frame.get_data()).copy()

    def _release(self) -> None:
        if self._pipeline is not None:
            self._pipeline.stop()
            self._pipeline = None
