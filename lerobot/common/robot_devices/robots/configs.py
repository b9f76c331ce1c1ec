"""Configurations of robots."""

import abc
import math
from dataclasses import dataclass, field
from pathlib import Path

import draccus

from lerobot.common.constants import HF_LEROBOT_CALIBRATION
from lerobot.common.robot_devices.cameras.configs import CameraConfig, OpenCVCameraConfig, SimCameraConfig
from lerobot.common.robot_devices.motors.configs import DynamixelMotorsBusConfig, MotorsBusConfig

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
FOLLOWER_MODELS = ("xl430-w250", "xl430-w250", "xl330-m288", "xl330-m288", "xl330-m288", "xl330-m288")
LEADER_MODELS = ("xl330-m077",) * 6
# What the printed parts allow, in degrees; below one turn each, so that a slipped turn is always seen.
MECHANICAL_LOW = (-110.0, -15.0, -10.0, -115.0, -180.0, -10.0)
MECHANICAL_HIGH = (110.0, 145.0, 185.0, 115.0, 180.0, 100.0)
LEGACY_CALIBRATION = Path(".cache/calibration")  # where LeRobot 0.1 keeps it, below the working directory


def koch_motors(models: tuple[str, ...]) -> dict[str, tuple[int, str]]:
    """The six joints of a Koch arm with their ids."""
    return {name: (index + 1, model) for index, (name, model) in enumerate(zip(JOINTS, models, strict=True))}


def koch_bus(port: str, models: tuple[str, ...]) -> DynamixelMotorsBusConfig:
    """The bus of one Koch arm."""
    return DynamixelMotorsBusConfig(port=port, motors=koch_motors(models))


def calibration_folder(name: str) -> Path:
    """The legacy folder below the working directory if it exists, else the user's own."""
    legacy = LEGACY_CALIBRATION / name
    return legacy if legacy.is_dir() else HF_LEROBOT_CALIBRATION / name


@dataclass
class RobotConfig(draccus.ChoiceRegistry, abc.ABC):
    """A robot."""

    @property
    def type(self) -> str:
        """The name on the command line."""
        return self.get_choice_name(self.__class__)


@dataclass
class ManipulatorRobotConfig(RobotConfig):
    """Leader and follower arms with cameras."""

    leader_arms: dict[str, MotorsBusConfig] = field(default_factory=dict)
    follower_arms: dict[str, MotorsBusConfig] = field(default_factory=dict)
    cameras: dict[str, CameraConfig] = field(default_factory=dict)
    # furthest that a goal may be from the present position, in joint units: one number, or one per motor
    max_relative_target: float | list[float] | None = None
    gripper_open_degree: float | None = None  # where the leader's gripper rests; empty: it stays limp
    gripper_open_pos: float | None = None  # in its place: percent of the way from closed to open
    use_degrees: bool = False  # a newer calibration's joints in degrees, not -100..100; a legacy one's always are
    calibration_dir: str | None = None  # empty: .cache/calibration/<type> if it exists, else ~/.cache/huggingface/...
    follower_calibration: str | None = None  # a file in place of <calibration_dir>/<arm>_follower.json
    leader_calibration: str | None = None
    supervise: bool = True  # a second process lands the arm if this one dies
    mock: bool = False  # simulated servos and noise pictures instead of devices

    def __post_init__(self):
        most = self.max_relative_target
        for value in most if isinstance(most, list) else [] if most is None else [most]:
            if not 0 < value < math.inf:
                raise ValueError(f"--robot.max_relative_target={most}: expected positive numbers.")
        rest = self.gripper_open_degree
        if rest is not None and not MECHANICAL_LOW[-1] <= rest <= MECHANICAL_HIGH[-1]:
            raise ValueError(
                f"--robot.gripper_open_degree={rest}: expected {MECHANICAL_LOW[-1]:.0f} to {MECHANICAL_HIGH[-1]:.0f}."
            )
        if self.gripper_open_pos is not None and not 0 <= self.gripper_open_pos <= 100:
            raise ValueError(f"--robot.gripper_open_pos={self.gripper_open_pos}: expected percent, 0 (closed) to 100.")
        self._check_calibrations()
        for arm in self.follower_arms.values():
            if isinstance(self.max_relative_target, list) and len(self.max_relative_target) != len(arm.motors):
                raise ValueError(
                    f"max_relative_target has {len(self.max_relative_target)} entries for {len(arm.motors)} motors."
                )
            if self.mock:
                arm.mock = True
        if self.mock:
            for device in (*self.leader_arms.values(), *self.cameras.values()):
                device.mock = True

    def _check_calibrations(self) -> None:
        for side in ("follower", "leader"):
            path, arms = getattr(self, f"{side}_calibration"), getattr(self, f"{side}_arms")
            if path is not None and len(arms) > 1:
                raise ValueError(f"--robot.{side}_calibration names one file, the robot has {len(arms)} {side}s.")
            if path is not None and not Path(path).is_file():
                raise ValueError(f"--robot.{side}_calibration={path}: there is no such file.")


@RobotConfig.register_subclass("koch")
@dataclass
class KochRobotConfig(ManipulatorRobotConfig):
    """A Koch v1.1 pair. The ports are placeholders: find yours with lerobot/scripts/find_motors_bus_port.py."""

    leader_arms: dict[str, MotorsBusConfig] = field(
        default_factory=lambda: {"main": koch_bus("/dev/tty.usbmodem585A0085511", LEADER_MODELS)}
    )
    follower_arms: dict[str, MotorsBusConfig] = field(
        default_factory=lambda: {"main": koch_bus("/dev/tty.usbmodem585A0076891", FOLLOWER_MODELS)}
    )
    cameras: dict[str, CameraConfig] = field(
        default_factory=lambda: {
            "laptop": OpenCVCameraConfig(camera_index=0, fps=30, width=640, height=480),
            "phone": OpenCVCameraConfig(camera_index=1, fps=30, width=640, height=480),
        }
    )
    gripper_open_degree: float | None = 35.156
    follower_port: str | None = None  # in place of the placeholder, as /dev/ttyACM0
    leader_port: str | None = None

    def __post_init__(self):
        for port, arms in ((self.follower_port, self.follower_arms), (self.leader_port, self.leader_arms)):
            if port is not None and arms:
                arms["main"].port = port
        super().__post_init__()


@RobotConfig.register_subclass("koch_bimanual")
@dataclass
class KochBimanualRobotConfig(ManipulatorRobotConfig):
    """Two Koch pairs."""

    leader_arms: dict[str, MotorsBusConfig] = field(
        default_factory=lambda: {
            "left": koch_bus("/dev/tty.usbmodem585A0085511", LEADER_MODELS),
            "right": koch_bus("/dev/tty.usbmodem575E0031751", LEADER_MODELS),
        }
    )
    follower_arms: dict[str, MotorsBusConfig] = field(
        default_factory=lambda: {
            "left": koch_bus("/dev/tty.usbmodem585A0076891", FOLLOWER_MODELS),
            "right": koch_bus("/dev/tty.usbmodem575E0032081", FOLLOWER_MODELS),
        }
    )
    cameras: dict[str, CameraConfig] = field(
        default_factory=lambda: {
            "laptop": OpenCVCameraConfig(camera_index=0, fps=30, width=640, height=480),
            "phone": OpenCVCameraConfig(camera_index=1, fps=30, width=640, height=480),
        }
    )
    gripper_open_degree: float | None = 35.156


@RobotConfig.register_subclass("koch_sim")
@dataclass
class KochSimRobotConfig(ManipulatorRobotConfig):
    """The simulated Koch pair: the same program down to the bytes on the bus."""

    cameras: dict[str, CameraConfig] = field(
        default_factory=lambda: {"laptop": SimCameraConfig("laptop"), "phone": SimCameraConfig("phone")}
    )
    gripper_open_degree: float | None = None  # the leader is moved by its source
    scene: str = "A"  # A: one cube; B: two or three, the sentence chooses
    seed: int = 0  # of the first episode; the next ones count on
    time: str = "realtime"  # realtime, or lockstep: time passes only when the program waits (same run every time)
    leader: str = "expert"  # what moves the leader arm: expert or hold
    randomization: str = "none"  # none, light or full: lights, colours, camera poses, friction, servo gains
    disturbance: float = 0.0  # radians by which the arm misses its goals, so that recordings show corrections
    overload: bool = False  # a servo that presses against something for 2 s shuts down, as real ones do
    calibration: str = "plain"  # plain, or hard: reversed joints and odd offsets
    faults: dict[str, float] = field(default_factory=dict)  # of the bus: lost, late, corrupt, duplicate, seed

    def __post_init__(self):
        for name, value, known in (
            ("time", self.time, ("realtime", "lockstep")),
            ("leader", self.leader, ("expert", "hold")),
            ("calibration", self.calibration, ("plain", "hard")),
            ("randomization", self.randomization, ("none", "light", "full")),
        ):
            if value not in known:
                raise ValueError(f"--robot.{name}={value}: expected one of {', '.join(known)}.")
        super().__post_init__()
