#!/usr/bin/env python
"""Serve checkpoints to robots on other machines.

    python lerobot/scripts/policy_server.py --policy.path=CHECKPOINT --policy.device=cuda

serves this machine alone; for others add `--host=0.0.0.0 --token_file=token.txt`. Needs pip install -e ".[remote]".
"""

import logging
import sys

from lerobot.common.inference_server.configs import OF_SERVER, PolicyServerConfig, without_foreign_flags
from lerobot.common.inference_server.keys import read_token, require_token
from lerobot.common.inference_server.planner import CheckpointPlanner
from lerobot.common.inference_server.server import PolicyServer
from lerobot.common.robot_devices.control_utils import landing_on_signals
from lerobot.common.utils.utils import init_logging, run_command
from lerobot.configs import parser
from lerobot.configs.policies import PreTrainedConfig


def load_planners(cfg: PolicyServerConfig) -> dict[str, CheckpointPlanner]:
    """Every checkpoint named by the configuration."""
    configs = {} if cfg.policy is None else {"default": cfg.policy}
    for name, path in cfg.policies.items():
        configs[name] = PreTrainedConfig.from_pretrained(path)
        configs[name].pretrained_path = path
    return {name: CheckpointPlanner(config) for name, config in configs.items()}


def serve(cfg: PolicyServerConfig) -> None:
    """Load and serve until interrupted."""
    token = read_token(cfg.token_file)
    require_token(cfg.host, token, "--host")  # before minutes of loading
    server = PolicyServer(load_planners(cfg), cfg.host, cfg.port, token)
    guard = "with a token, encrypted" if token else "without a token: this machine alone"
    logging.info("Serving %s at %s (%s).", ", ".join(server.planners), server.address, guard)
    with landing_on_signals():
        server.serve_forever()


def main() -> None:
    """The command."""
    init_logging()
    run_command(lambda: serve(parser.parse(PolicyServerConfig, without_foreign_flags(sys.argv[1:], OF_SERVER))))


if __name__ == "__main__":
    main()
