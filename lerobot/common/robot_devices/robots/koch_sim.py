"""The simulated Koch pair as a robot: the twin's process behind the ordinary buses and cameras."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from pathlib import Path

from lerobot.common.checks.finding import Finding
from lerobot.common.envs.koch_sim.scene import CUBE_COUNTS, scene_xml
from lerobot.common.robot_devices.motors.calibration import DEGREE, save_calibration
from lerobot.common.robot_devices.motors.dynamixel import DynamixelMotorsBus
from lerobot.common.robot_devices.robots.configs import (
    FOLLOWER_MODELS,
    JOINTS,
    LEADER_MODELS,
    KochSimRobotConfig,
    koch_bus,
)
from lerobot.common.robot_devices.robots.manipulator import ManipulatorRobot
from lerobot.common.robot_devices.safety import EnvelopeConfig
from lerobot.common.robot_devices.simulation.presets import CALIBRATIONS, HAND_POSES
from lerobot.common.robot_devices.simulation.twin_process import TwinClock, TwinProcess
from lerobot.common.robot_devices.utils import RealClock


class KochSimRobot(ManipulatorRobot):
    """`ManipulatorRobot` whose ports belong to a simulated arm.

    The calibration is the simulator's own, unless the configuration names a folder.
    """

    def __init__(self, config: KochSimRobotConfig, envelope: EnvelopeConfig | None = None, safety: bool = True):
        super().__init__(config, envelope, safety)
        self.twin: TwinProcess | None = None
        self.seed = config.seed
        sizes = {f"{camera.width}x{camera.height}" for camera in self.cameras.values()}
        if len(sizes) > 1:
            raise ValueError(
                f"--robot.cameras: simulated cameras are all of one size, found {', '.join(sorted(sizes))}."
            )
        # Placeholders until the simulator says which terminals it opened.
        self.follower_arms = {"main": DynamixelMotorsBus(koch_bus("", FOLLOWER_MODELS))}
        self.leader_arms = {"main": DynamixelMotorsBus(koch_bus("", LEADER_MODELS))}
        if config.calibration_dir is None:
            self._folder = tempfile.TemporaryDirectory(prefix="koch_sim_")
            self.calibration_dir = Path(self._folder.name)
            self._write_calibrations()

    def open(self) -> list[Finding]:
        """Start the simulator, then open its buses and cameras."""
        config = self.config
        size = next(iter(self.cameras.values())) if self.cameras else None
        self.twin = TwinProcess(
            scene=config.scene,
            seed=self.seed,
            time=config.time,
            leader=config.leader,
            calibration=config.calibration,
            randomization=config.randomization,
            disturbance=config.disturbance,
            overload=config.overload,
            faults=config.faults,
            width=size.width if size else 640,
            height=size.height if size else 480,
        )
        for bus, port in zip((self.follower_arms["main"], self.leader_arms["main"]), self.twin.ports, strict=True):
            bus.port = port
        for camera in self.cameras.values():
            camera.twin = self.twin
        self.clock = TwinClock(self.twin) if config.time == "lockstep" else RealClock()
        return super().open()

    def disconnect(self, land: bool = True) -> None:
        """As every robot, then the simulator ends."""
        super().disconnect(land)
        if self.twin is not None:
            self.twin.close()
            self.twin = None

    # -- what only a simulator can do ----------------------------------------------------------------------------

    @property
    def task(self) -> str:
        """The sentence of the present episode."""
        return self.twin.ask("state")["task"]

    @property
    def success(self) -> bool:
        """Whether the cube lies in the tray; in real time as the newest picture has it, which keeps no loop waiting."""
        if self.config.time == "realtime" and self.cameras:
            return self.twin.success
        return self.twin.ask("state")["success"]

    def reset_scene(self, seed: int | None = None) -> int:
        """Lay out the episode of `seed` (by default the next one) with the arm at rest; returns the seed."""
        self.seed = self.seed + 1 if seed is None else seed
        self.twin.ask("reset", seed=self.seed)
        if self.is_connected:
            self.engage()
        return self.seed

    def hand(self, arm_id: str, prompt: str) -> None:
        """What the operator does when calibrating: put the arm into the pose that the prompt names."""
        logging.info("%s", prompt)
        for word, degrees in HAND_POSES.items():
            if word.upper() in prompt:
                self.twin.ask("pose", arm=arm_id.rsplit("_", 1)[1], degrees=degrees)

    @property
    def dataset_info(self) -> dict:
        """What `info.json` of a recording says about the simulation; `model` is the SHA-256 of the MuJoCo model."""
        config = self.config
        names = ("scene", "seed", "randomization", "disturbance", "calibration")
        model = hashlib.sha256(scene_xml(CUBE_COUNTS[config.scene][1]).encode()).hexdigest()
        return {"sim": True, "simulation": {**{name: getattr(config, name) for name in names}, "model": model}}

    def _write_calibrations(self) -> None:
        drive_mode, homing_offset = CALIBRATIONS[self.config.calibration]
        for arm_id in self.available_arms:
            save_calibration(
                {
                    "homing_offset": list(homing_offset),
                    "drive_mode": list(drive_mode),
                    "start_pos": [0] * 6,
                    "end_pos": [0] * 6,
                    "calib_mode": [DEGREE] * 6,
                    "motor_names": list(JOINTS),
                },
                self._calibration_path(arm_id),
            )
