#!/usr/bin/env python
"""Move this machine's arm by a policy on another one (policy_server.py).

    python lerobot/scripts/robot_client.py --robot.type=koch --server_address=HOST:8080 --token_file=token.txt \
        --task="Pick up the cube." --duration_s=60

Robot and checkpoint are compared, and one chunk is tried, before torque is switched on. Needs
pip install -e ".[remote]".
"""

import sys
from pathlib import Path

from lerobot.common.checks.finding import Finding
from lerobot.common.inference_server.client import RefusedError, RemotePolicy, ServerError
from lerobot.common.inference_server.configs import OF_CLIENT, RobotClientConfig, without_foreign_flags
from lerobot.common.inference_server.drive import RemotePlanner, RemoteRunner, try_out
from lerobot.common.inference_server.handshake import describe_robot, name_arms
from lerobot.common.inference_server.keys import read_token
from lerobot.common.player.chunk_player import ChunkPlayer
from lerobot.common.robot_devices.control_utils import control_loop, landing_on_signals
from lerobot.common.robot_devices.newer_flags import translate_robot
from lerobot.common.robot_devices.pace import Pace
from lerobot.common.robot_devices.preflight import Plan, count_problems, format_table, preflight
from lerobot.common.robot_devices.robots.utils import make_robot_from_config
from lerobot.common.utils.io_utils import write_json
from lerobot.common.utils.utils import init_logging, run_command
from lerobot.configs import parser

QUICK = 0.5  # periods that --player=sync waits for a chunk, before the arm is held


class RobotClient:
    """One run: `prepare` compares and tries with the arm at rest, `run` moves it, `close` lands it."""

    def __init__(self, cfg: RobotClientConfig):
        self.cfg = cfg
        self.token = read_token(cfg.token_file)
        self.robot = make_robot_from_config(cfg.robot, cfg.envelope, cfg.safety != "off")
        self.remote: RemotePolicy | None = None
        self.planner: RemotePlanner | None = None

    def prepare(self) -> None:
        """Open, connect, print one table, switch torque on; ValueError (nothing moved) if anything is wrong."""
        robot = self.robot
        robot.open()
        rows, findings = preflight(robot, Plan(fps=self.cfg.fps))
        if any(bus.calibration is None for bus in robot.follower_arms.values()):
            fix = "control_robot.py --control.type=calibrate"
            findings.append(Finding("remote.calibration", "error", "The arm is not calibrated.", fix=fix))
        if not any(finding.severity == "error" for finding in findings):
            findings += self._connect(rows)
        print(format_table(rows, findings), flush=True)
        errors = sum(finding.severity == "error" for finding in findings)
        if errors:
            raise ValueError(f"{count_problems(errors)} in the table above; torque was not switched on.")
        robot.energise()
        if hasattr(robot, "reset_scene"):
            robot.reset_scene(robot.seed)

    def _connect(self, rows: list[tuple[str, str]]) -> list[Finding]:
        cfg = self.cfg
        self.remote = RemotePolicy(
            cfg.server_address,
            describe_robot(self.robot, cfg.fps),
            name_arms(self.robot),
            checkpoint=cfg.checkpoint,
            task=cfg.task,
            token=self.token,
            quality=cfg.jpeg_quality,
            deadline_s=cfg.deadline_s,
        )
        try:
            findings = self.remote.connect()
            milliseconds = try_out(self.robot, self.remote)
        except ServerError as e:
            code = "remote.refused" if isinstance(e, RefusedError) else "remote.server"
            return [*e.findings, Finding(code, "error", str(e))]
        welcome = self.remote.welcome
        rows.append(("server", f"{cfg.server_address}: {welcome['policy']} '{welcome['checkpoint']}'"))
        rows.append(("chunk", f"{milliseconds:.0f} ms, {self._steps()} actions of each are played"))
        if milliseconds > cfg.deadline_s * 1e3:
            text = f"A chunk took {milliseconds / 1e3:.1f} s, --deadline_s is {cfg.deadline_s}."
            fix = f"--deadline_s={milliseconds / 500:.0f} --land_after_s={milliseconds / 250:.0f}, or a faster server"
            findings.append(Finding("remote.slow", "error", text, fix=fix))
        if cfg.policy_type not in (None, welcome["policy"]):
            text = f"The server's checkpoint is of type {welcome['policy']}, --policy_type={cfg.policy_type}."
            findings.append(Finding("remote.policy_type", "error", text, fix="--checkpoint=NAME, or another server"))
        if cfg.player == "rtc" and not welcome["rtc"]:
            text = f"The policy '{welcome['policy']}' cannot continue a chunk."
            findings.append(Finding("remote.rtc", "error", text, fix="--player=async"))
        return findings

    def _steps(self) -> int:
        return self.cfg.actions_per_chunk or self.remote.welcome["steps"]

    def run(self) -> dict:
        """Move the arm until the time is over; returns the numbers of the run."""
        cfg, pace = self.cfg, Pace(self.cfg.fps)
        patience = QUICK / cfg.fps if cfg.player == "sync" else 0.0
        self.planner = RemotePlanner(self.remote, patience)
        words = {"blend": cfg.blend(), "ask_at": cfg.chunk_size_threshold}
        player = ChunkPlayer(self.planner, cfg.player, cfg.fps, self._steps(), **words)
        runner = RemoteRunner(self.robot, player, cfg.land_after_s)
        try:
            control_loop(self.robot, cfg.duration_s, policy=runner, fps=cfg.fps, single_task=cfg.task, pace=pace)
        finally:
            report = {**pace.summary(), **runner.report()}
            print("\n".join(runner.lines()), flush=True)
            if cfg.report:
                write_json(report, Path(cfg.report))
        return report

    def close(self) -> None:
        """Land the arm, switch torque off, and leave the server."""
        try:
            if self.robot.is_open:
                self.robot.disconnect()
        finally:
            if self.planner is not None:
                self.planner.close()
            elif self.remote is not None:
                self.remote.close()


def robot_client(cfg: RobotClientConfig) -> dict:
    """A whole run; whatever ends it, the arm is landed and its torque switched off."""
    client = RobotClient(cfg)
    with landing_on_signals():
        try:
            client.prepare()
            return client.run()
        finally:
            client.close()


def main() -> None:
    """The command."""
    init_logging()
    run_command(lambda: robot_client(parse(sys.argv[1:])))


def parse(argv: list[str]) -> RobotClientConfig:
    """The configuration of a command line, of ours or LeRobot's."""
    return parser.parse(RobotClientConfig, translate_robot(without_foreign_flags(argv, OF_CLIENT)))


if __name__ == "__main__":
    main()
