"""The command line of `control_robot.py`: a robot, and what to do with it."""

import abc
from dataclasses import dataclass, field

import draccus

import lerobot.common.policies  # noqa: F401  registers the choices of --control.policy.type
from lerobot.common.player.blending import FADE
from lerobot.common.robot_devices.robots.configs import RobotConfig
from lerobot.common.robot_devices.safety import EnvelopeConfig
from lerobot.configs import parser
from lerobot.configs.flags import help_text
from lerobot.configs.policies import PreTrainedConfig


@dataclass
class ControlConfig(draccus.ChoiceRegistry, abc.ABC):
    """What to do with the robot."""

    @property
    def type(self) -> str:
        """The name on the command line."""
        return self.get_choice_name(self.__class__)


@ControlConfig.register_subclass("calibrate")
@dataclass
class CalibrateControlConfig(ControlConfig):
    """Make calibration files by hand."""

    arms: list[str] | None = None  # as '["main_follower"]'; empty: all


@ControlConfig.register_subclass("teleoperate")
@dataclass
class TeleoperateControlConfig(ControlConfig):
    """The follower follows the leader."""

    fps: int | None = None  # empty: as fast as it goes
    teleop_time_s: float | None = None  # empty: until Ctrl-C
    display_data: bool = False  # show everything in rerun
    display_ip: str | None = None  # machine of a viewer that runs already; empty: one is opened here
    display_port: int | None = None  # of that viewer (rerun listens at 9876)
    display_compressed_images: bool = False  # pictures as JPEG


@ControlConfig.register_subclass("record")
@dataclass
class RecordControlConfig(ControlConfig):
    """Record episodes, moved by the leader or by a policy."""

    repo_id: str = ""  # user/name; the name begins with eval_ exactly when a policy moves the arm
    single_task: str = ""  # the sentence, stored with every frame
    root: str | None = None  # the dataset's folder; empty: $HF_LEROBOT_HOME/<repo_id>
    policy: PreTrainedConfig | None = None  # --control.policy.path=CHECKPOINT
    # how a policy's chunks are played: sync (plan, then move), async (plan while moving), rtc (async, and continue the
    # chunk that is being played)
    player: str = "sync"
    fade: int = FADE  # actions over which a chunk of --control.player=async takes over from the one before; 0: at once
    fps: int | None = None  # empty: that of the dataset, or of the policy's training, or 30
    warmup_time_s: float = 10
    episode_time_s: float = 60
    reset_time_s: float = 60
    num_episodes: int = 50
    video: bool = True  # false: PNG files
    push_to_hub: bool = True  # only when logged in to the hub
    private: bool = False
    tags: list[str] | None = None
    num_image_writer_processes: int = 0
    num_image_writer_threads_per_camera: int = 4
    display_data: bool = False  # show everything in rerun
    display_ip: str | None = None  # machine of a viewer that runs already; empty: one is opened here
    display_port: int | None = None  # of that viewer (rerun listens at 9876)
    display_compressed_images: bool = False  # pictures as JPEG
    play_sounds: bool = True
    resume: bool = False  # add to an existing dataset

    def __post_init__(self):
        for name in ("repo_id", "single_task"):
            if not getattr(self, name):
                raise ValueError(f"Recording needs --control.{name}=...")
        if self.player not in ("sync", "async", "rtc"):
            raise ValueError(f"--control.player={self.player}: expected sync, async or rtc.")
        if self.player != "sync" and self.policy is None:
            raise ValueError(f"--control.player={self.player} plays a policy's chunks: add --control.policy.path=...")
        if self.fade < 0:
            raise ValueError(f"--control.fade={self.fade}: expected 0 or more.")
        if self.num_episodes < 1:
            raise ValueError(f"--control.num_episodes={self.num_episodes}: expected at least 1.")


@ControlConfig.register_subclass("replay")
@dataclass
class ReplayControlConfig(ControlConfig):
    """Send the actions of a recorded episode."""

    repo_id: str = ""
    episode: int | None = None
    root: str | None = None
    fps: int | None = None  # empty: the dataset's
    play_sounds: bool = True

    def __post_init__(self):
        if not self.repo_id or self.episode is None:
            raise ValueError("Replaying needs --control.repo_id=... and --control.episode=...")


@ControlConfig.register_subclass("remote_robot")
@dataclass
class RemoteRobotConfig(ControlConfig):
    """The server of the LeKiwi robot; a Koch arm has none."""

    log_interval: int = 100
    display_data: bool = False
    viewer_ip: str | None = None
    viewer_port: str | None = None


@dataclass
class ControlPipelineConfig:
    """Calibrate, teleoperate, record, replay: one robot, one thing to do."""

    robot: RobotConfig  # which robot
    control: ControlConfig  # what to do with it
    safety: str = "on"  # off: targets are only checked to be finite
    envelope: EnvelopeConfig = field(default_factory=EnvelopeConfig)  # the limits that every motion keeps to

    def __post_init__(self):
        if self.safety not in ("on", "off"):
            raise ValueError(f"--safety={self.safety}: expected on or off.")


def parse_control(argv: list[str]) -> ControlPipelineConfig:
    """The configuration of a command line; ValueError for what does not fit."""
    if {"-h", "--help"} & set(argv):
        print(help_text(ControlPipelineConfig))
        raise SystemExit(0)
    pairs = parser.split_arguments(parser.load_plugins(argv))
    given = dict(pairs)
    parser.refuse_absent_device(given, "control.policy.device")
    typed = parser.to_nested(ControlPipelineConfig, [(k, v) for k, v in pairs if k != "config_path"])
    below = {}
    if config_path := given.get("config_path"):
        below = parser.read_config_file(ControlPipelineConfig, config_path)
    control = typed.setdefault("control", {})
    checkpoint = parser.policy_layer({"policy": control.get("policy")}, {})
    raw = parser.merge(below, typed)
    if checkpoint:
        raw["control"]["policy"] = parser.merge(checkpoint, control["policy"])
        raw["control"]["policy"].pop(parser.PATH_KEY)
    return parser.decode(ControlPipelineConfig, raw)
