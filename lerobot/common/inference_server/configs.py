"""The command lines of `policy_server.py` and `robot_client.py`."""

import logging
from dataclasses import dataclass, field

import lerobot.common.policies  # noqa: F401  registers the choices of --policy.type
from lerobot.common.player.chunk_player import MODES
from lerobot.common.robot_devices.robots.configs import RobotConfig
from lerobot.common.robot_devices.safety import EnvelopeConfig
from lerobot.configs.parser import split_arguments
from lerobot.configs.policies import PreTrainedConfig

# Flags of LeRobot's asynchronous inference that mean nothing here, and why.
NO_EFFECT = {
    "inference_latency": "a chunk is sent when it is there",
    "obs_queue_timeout": "the server waits for observations as long as it runs",
    "chunk_size_threshold": "the player asks for the next chunk when it is due",
    "aggregate_fn_name": "the player drops what is late; use --player=rtc for smooth seams",
    "debug_visualize_queue_size": "the last line of a run tells where the time went",
    "client_device": "actions are sent from the CPU",
}
SERVER_CHOOSES = ("policy_type", "pretrained_name_or_path", "policy_device")


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
        host, _, port = self.server_address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"--server_address={self.server_address}: expected HOST:PORT.")


def without_foreign_flags(argv: list[str]) -> list[str]:
    """A command line of LeRobot's as one of ours: flags without effect are named in a warning and dropped.

    ValueError for those by which a client would choose the checkpoint.
    """
    if {"-h", "--help"} & set(argv):
        return argv
    kept = []
    for name, value in split_arguments(argv):
        if name in SERVER_CHOOSES:
            raise ValueError(f"--{name}: the server's owner chooses what it loads: policy_server.py --policy.path=...")
        if name in NO_EFFECT:
            logging.warning("--%s has no effect here: %s.", name, NO_EFFECT[name])
        else:
            kept.append(f"--{name}={value}")
    return kept
