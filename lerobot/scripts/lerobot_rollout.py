"""Let a policy move the arm without recording anything, with the flags of LeRobot 0.6's `lerobot-rollout`.

lerobot-rollout --robot.type=koch_follower --robot.port=/dev/ttyACM0 --policy.path=CHECKPOINT --duration=60 \\
    --task="Pick up the cube." --inference.type=rtc

`--inference.type`: sync (plan, then move), async (plan while moving) or rtc. To keep what happens, record instead:
`control_robot.py --control.type=record --control.policy.path=CHECKPOINT`. However it ends, the arm is landed.
"""

from __future__ import annotations

import sys

from lerobot.common.robot_devices import recording
from lerobot.common.robot_devices.control_configs import ControlPipelineConfig, parse_control
from lerobot.common.robot_devices.newer_flags import translate
from lerobot.common.utils.utils import init_logging, run_command
from lerobot.configs.parser import split_arguments
from lerobot.scripts.control_robot import control_robot

RENAMED = {"task": "dataset.single_task", "inference.type": "control.player", "device": "policy.device"}
NO_SENTENCE = " "  # for policies that read none
# Flags that may be given if they ask for what happens here anyway.
ALWAYS = {
    "strategy.type": "base",
    "interpolation_multiplier": "1",
    "rename_map": "{}",
    "return_to_initial_position": "true",
    "use_torch_compile": "false",
}
WITHOUT_COUNTERPART = ("inference.queue_threshold",)  # a chunk is asked for just early enough
UNRECORDED = {"dataset.repo_id": "none/eval_rollout", "dataset.single_task": NO_SENTENCE}  # what a recording must name


def parse(argv: list[str]) -> ControlPipelineConfig:
    """The configuration of a command line, as that of a recording; ValueError for what cannot be had here."""
    given, flags = dict(split_arguments(argv)), dict(UNRECORDED)
    if "policy.path" not in given:
        raise ValueError("Name the checkpoint that moves the arm: --policy.path=...")
    for name, value in given.items():
        if name in ALWAYS and value.lower() != ALWAYS[name]:
            raise ValueError(f"--{name}={value} cannot be had here; leave it away, or set it to {ALWAYS[name]}.")
        if name not in (*ALWAYS, *WITHOUT_COUNTERPART, "duration"):
            flags[RENAMED.get(name, name)] = value
    flags["dataset.episode_time_s"] = str(float(given.get("duration", 0)) or float("inf"))
    cfg = parse_control(translate("record", [f"--{name}={value}" for name, value in flags.items()]))
    cfg.control.fps = cfg.control.fps if "fps" in given else None  # that of the policy's training
    return cfg


def main() -> None:
    """The command."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    init_logging()
    run_command(lambda: control_robot(parse(sys.argv[1:]), recording.rollout))


if __name__ == "__main__":
    main()
