"""The command lines of `policy_server.py` and `robot_client.py`."""

import logging
from dataclasses import dataclass, field

import lerobot.common.policies  # noqa: F401  registers the choices of --policy.type
from lerobot.common.player.blending import FADE, Blend, aggregate, fade
from lerobot.common.player.chunk_player import MODES
from lerobot.common.robot_devices.robots.configs import RobotConfig
from lerobot.common.robot_devices.safety import EnvelopeConfig
from lerobot.configs.parser import split_arguments
from lerobot.configs.policies import PreTrainedConfig

# Flags of LeRobot's asynchronous inference that mean nothing here, and why.
OF_SERVER = {
    "fps": "chunks are planned when they are asked for",
    "inference_latency": "a chunk is sent when it is there",
    "obs_queue_timeout": "the server waits for observations as long as it runs",
}
OF_CLIENT = {
    "policy_device": "the server's owner chooses it: policy_server.py --policy.device=...",
    "client_device": "actions are sent from the CPU",
    "debug_visualize_queue_size": "the last lines of a run and --report=FILE tell where the time went",
}
SERVER_CHOOSES = "pretrained_name_or_path"


@dataclass
class PolicyServerConfig:
    """Serve checkpoints to robots on other machines; clients choose among those named here."""

    policy: PreTrainedConfig | None = None  # the checkpoint served as "default"; --policy.path=CHECKPOINT
    policies: dict[str, str] = field(default_factory=dict)  # further checkpoints by name: '{"cube": "CHECKPOINT", ...}'
    host: str = "127.0.0.1"  # 0.0.0.0: every network of this machine; needs --token_file
    port: int = 8080  # 0: any free one, which is logged
    token_file: str | None = None  # a secret shared with the clients; it also encrypts the connection

    def __post_init__(self):
        if not 0 <= self.port < 65536:
            raise ValueError(f"--port={self.port}: expected 0 (any) to 65535.")
        if (self.policy is None or not self.policy.pretrained_path) and not self.policies:
            raise ValueError("Nothing to serve: set --policy.path=CHECKPOINT.")


@dataclass
class RobotClientConfig:
    """Move this machine's arm by a policy on another one."""

    robot: RobotConfig  # which robot
    server_address: str = "127.0.0.1:8080"  # HOST:PORT that the server logs at its start
    task: str = ""  # the sentence
    checkpoint: str = ""  # which of the server's; empty: its only one
    token_file: str | None = None  # the server's secret
    duration_s: float | None = None  # empty: until Ctrl-C
    fps: int = 30  # of the control loop; the rate that the checkpoint was recorded at
    player: str = "async"  # sync, async, or rtc: each chunk continues the last one
    actions_per_chunk: int | None = None  # actions played of each chunk; empty: as the checkpoint says
    chunk_size_threshold: float = 0.0  # share of them still to be played when the next chunk is asked for, or earlier
    fade: int = FADE  # actions over which a chunk of --player=async takes over from the one before; 0: at once
    aggregate_fn_name: str | None = None  # in place of fading: weighted_average, latest_only, average or conservative
    policy_type: str | None = None  # refuse a server whose checkpoint is of another type
    jpeg_quality: int = 90  # of the pictures that are sent; 0: raw
    deadline_s: float = 2.0  # how long a chunk may take
    land_after_s: float = 5.0  # without a chunk for this long the arm is landed; until then it holds
    report: str | None = None  # file for the numbers of the run, as JSON
    safety: str = "on"  # off: targets are only checked to be finite
    envelope: EnvelopeConfig = field(default_factory=EnvelopeConfig)  # the limits that every motion keeps to

    def __post_init__(self):
        if self.player not in MODES:
            raise ValueError(f"--player={self.player}: expected one of {', '.join(MODES)}.")
        if self.safety not in ("on", "off"):
            raise ValueError(f"--safety={self.safety}: expected on or off.")
        if not 0 <= self.jpeg_quality <= 100:
            raise ValueError(f"--jpeg_quality={self.jpeg_quality}: expected 1 to 100, or 0 for raw pictures.")
        for name in ("fps", "deadline_s", "land_after_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"--{name}={getattr(self, name)}: expected a positive number.")
        if not 0 <= self.chunk_size_threshold <= 1:
            raise ValueError(f"--chunk_size_threshold={self.chunk_size_threshold}: expected 0 to 1.")
        if self.fade < 0:
            raise ValueError(f"--fade={self.fade}: expected 0 or more.")
        if self.actions_per_chunk is not None and self.actions_per_chunk < 1:
            raise ValueError(f"--actions_per_chunk={self.actions_per_chunk}: expected at least 1.")
        if self.aggregate_fn_name is not None and self.player != "async":
            raise ValueError(f"--aggregate_fn_name is for --player=async; got --player={self.player}.")
        self.blend()
        host, _, port = self.server_address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"--server_address={self.server_address}: expected HOST:PORT.")

    def blend(self) -> Blend:
        """How an async chunk takes over from the one before; ValueError for an unknown name."""
        return fade(self.fade) if self.aggregate_fn_name is None else aggregate(self.aggregate_fn_name)


def without_foreign_flags(argv: list[str], foreign: dict[str, str]) -> list[str]:
    """A command line of LeRobot's as one of ours: flags without effect are named in a warning and dropped.

    ValueError for the one by which a client would choose the checkpoint.
    """
    if {"-h", "--help"} & set(argv):
        return argv
    kept = []
    for name, value in split_arguments(argv):
        if name == SERVER_CHOOSES:
            raise ValueError(f"--{name}: the server's owner chooses what it loads: policy_server.py --policy.path=...")
        if name in foreign:
            logging.warning("--%s has no effect here: %s.", name, foreign[name])
        else:
            kept.append(f"--{name}={value}")
    return kept
