#!/usr/bin/env python
"""Say what is wrong with the set-up, and the flag or command that mends it.

    python lerobot/scripts/doctor.py
    python lerobot/scripts/doctor.py --dataset.root=grasp_dataset --policy.path=RUN --robot.type=koch
    python lerobot/scripts/doctor.py --robot.type=koch --robot.follower_port=/dev/ttyACM0 --robot.cameras='{}'
    python lerobot/scripts/doctor.py --output_dir=outputs/train/RUN --json

Looks at the machine always, at dataset, checkpoint, robot and run where they are named, and at how they fit together;
at motors and cameras where the robot's ports are given (they are read, torque stays as it is).
Exit code: 0 healthy, 1 warnings, 2 errors.
"""

import json
import sys

from lerobot.common.checks.doctor import examine
from lerobot.common.checks.environment import machine
from lerobot.common.checks.finding import Finding, by_severity, exit_code
from lerobot.common.utils.utils import init_logging, run_command
from lerobot.configs import parser
from lerobot.configs.doctor import DoctorConfig
from lerobot.configs.flags import help_text


def parse(argv: list[str]) -> tuple[DoctorConfig, object | None]:
    """The configuration, and that of the robot where `--robot.type` names one."""
    pairs = parser.split_arguments(argv)
    own = [(name, value) for name, value in pairs if not name.startswith("robot.")]
    cfg = parser.decode(DoctorConfig, parser.to_nested(DoctorConfig, own))
    arms = [(name.removeprefix("robot."), value) for name, value in pairs if name.startswith("robot.")]
    return cfg, _robot(dict(arms)) if arms else None


def _robot(flags: dict[str, str]):
    from lerobot.common.robot_devices.robots.configs import RobotConfig

    known = RobotConfig.get_known_choices()
    kind = flags.pop("type", None)
    if kind not in known:
        raise ValueError(f"--robot.type={kind}: expected one of {', '.join(sorted(known))}.")
    nested = parser.to_nested(known[kind], list(flags.items()), prefix="robot.")
    return parser.decode(known[kind], nested, prefix="robot.")


def report(findings: list[Finding]) -> str:
    """The findings for a person, errors first."""
    lines = [] if exit_code(findings) else ["Healthy."]
    for finding in by_severity(findings):
        place = f"  [{finding.where}]" if str(finding.where) else ""
        lines.append(f"{finding.severity.upper():<8}{finding.code}{place}\n        {finding.message}")
        if finding.fix:
            lines.append(f"        mend: {finding.fix}")
    if not findings:
        return lines[0]
    counts = [f"{sum(f.severity == s for f in findings)} {s}s" for s in ("error", "warning", "info")]
    return "\n".join([*lines, "", ", ".join(counts)])


def examined(cfg: DoctorConfig, robot: object | None) -> str:
    """What was looked at, in a few lines."""
    named = {
        "dataset": cfg.dataset.root,
        "policy": cfg.policy.path or cfg.policy.type,
        "robot": robot and robot.type,
        "run": cfg.output_dir,
    }
    parts = "\n".join(f"{what}: {name}" for what, name in named.items() if name)
    return "\n".join([*machine(cfg.output_dir or "."), *([parts] if parts else []), ""])


def main() -> None:
    """Entry point of the command line."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text(DoctorConfig), "\n  --robot.type=koch|koch_sim|...  and its flags")
        return
    init_logging()
    cfg, robot = parse(sys.argv[1:])
    findings = examine(cfg, robot)
    if cfg.json:
        print(json.dumps([f.to_dict() for f in by_severity(findings)], indent=2))
    else:
        print(examined(cfg, robot))
        print(report(findings))
    raise SystemExit(exit_code(findings))


if __name__ == "__main__":
    run_command(main)
