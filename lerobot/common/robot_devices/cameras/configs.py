"""Configurations of cameras."""

import abc
from dataclasses import dataclass

import draccus

COLOR_MODES = ("rgb", "bgr")
ROTATIONS = (None, 0, -90, 90, 180)


@dataclass
class CameraConfig(draccus.ChoiceRegistry, abc.ABC):
    """A source of pictures."""

    @property
    def type(self) -> str:
        """The name on the command line."""
        return self.get_choice_name(self.__class__)


def _check(config) -> None:
    if config.color_mode not in COLOR_MODES:
        raise ValueError(f"color_mode={config.color_mode!r}: expected one of {', '.join(COLOR_MODES)}.")
    if config.rotation not in ROTATIONS:
        raise ValueError(f"rotation={config.rotation!r}: expected one of -90, 90, 180 or none.")


@CameraConfig.register_subclass("opencv")
@dataclass
class OpenCVCameraConfig(CameraConfig):
    """Anything that OpenCV opens; width and height are what is captured, before the rotation."""

    camera_index: int | str = 0  # number, device path, file or URL
    fps: int | None = None
    width: int | None = None
    height: int | None = None
    color_mode: str = "rgb"
    rotation: int | None = None  # degrees: -90 is counter-clockwise
    fourcc: str | None = None  # pixel format, as MJPG: two cameras on one hub often need it for 30 fps
    max_age_ms: float = 200.0  # a picture older than this is never acted upon
    mock: bool = False  # pictures of noise instead of a camera

    def __post_init__(self):
        self.channels = 3
        _check(self)
        if self.fourcc is not None and len(self.fourcc) != 4:
            raise ValueError(f"fourcc={self.fourcc!r}: expected four letters, as MJPG or YUYV.")


@CameraConfig.register_subclass("intelrealsense")
@dataclass
class IntelRealSenseCameraConfig(CameraConfig):
    """The colour stream of an Intel RealSense."""

    serial_number: int | str | None = None
    name: str | None = None  # found by its name instead of its serial number
    fps: int | None = None
    width: int | None = None
    height: int | None = None
    color_mode: str = "rgb"
    rotation: int | None = None
    max_age_ms: float = 200.0
    mock: bool = False

    def __post_init__(self):
        self.channels = 3
        _check(self)
        if (self.serial_number is None) == (self.name is None):
            raise ValueError("A RealSense camera needs exactly one of serial_number and name.")


@CameraConfig.register_subclass("sim")
@dataclass
class SimCameraConfig(CameraConfig):
    """A camera of the simulated arm."""

    name: str = "laptop"  # laptop, phone, side or top
    fps: int = 30
    width: int = 640
    height: int = 480
    max_age_ms: float = 200.0

    def __post_init__(self):
        self.channels = 3
