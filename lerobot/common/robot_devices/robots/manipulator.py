"""Leader and follower arms with cameras: opened without torque, checked, energised, and always let go of.

`open` opens ports and cameras, `energise` calibrates, configures and switches torque on, `connect` does both. Every
goal for a follower passes the safety envelope. Whatever ends a run, `disconnect` lands the arm and switches torque off.
"""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path

import numpy as np
import torch

from lerobot.common.checks.finding import Finding
from lerobot.common.robot_devices.cameras.utils import make_cameras_from_configs
from lerobot.common.robot_devices.motors.calibration import (
    DEGREE,
    RANGE_M100_100,
    Calibration,
    load_calibration,
    save_calibration,
)
from lerobot.common.robot_devices.motors.control_table import WATCHDOG_UNIT
from lerobot.common.robot_devices.motors.dynamixel import DynamixelMotorsBus
from lerobot.common.robot_devices.motors.utils import make_motors_buses_from_configs
from lerobot.common.robot_devices.robots.arm_setup import (
    apply_preset,
    calibration_mode,
    limit_motors,
    mechanical_range,
    undo_slipped_turns,
)
from lerobot.common.robot_devices.robots.configs import ManipulatorRobotConfig, calibration_folder
from lerobot.common.robot_devices.robots.dynamixel_calibration import run_arm_calibration
from lerobot.common.robot_devices.safety import EnvelopeConfig, JointLimits, SafetyEnvelope, Unlimited
from lerobot.common.robot_devices.supervisor import Supervision
from lerobot.common.robot_devices.utils import (
    DeviceAlreadyConnectedError,
    DeviceError,
    DeviceNotConnectedError,
    RealClock,
)

FPS = 30
GRIPPER_OPEN = 90.0  # degrees between closed and open
SAG = 10.0  # joint units between command and position of an arm that holds still
TORQUE_S = 1.0  # between two looks at whether the servos are still energised
WATCHDOG_S = 2.5  # the servos stop by themselves after this long without an instruction (2.54 is their most)


class ManipulatorRobot:
    """`config` names arms and cameras; `safety` False only refuses targets that are not finite.

    Vectors run over the followers in the configured order; values are those of the calibration (legacy: degrees).
    """

    def __init__(self, config: ManipulatorRobotConfig, envelope: EnvelopeConfig | None = None, safety: bool = True):
        self.config, self.robot_type = config, config.type
        self.envelope_config, self.safety = envelope or EnvelopeConfig(), safety
        self.leader_arms = make_motors_buses_from_configs(config.leader_arms)
        self.follower_arms = make_motors_buses_from_configs(config.follower_arms)
        self.cameras = make_cameras_from_configs(config.cameras)
        self.calibration_dir = Path(config.calibration_dir or calibration_folder(config.type))
        self.clock = RealClock()
        self.envelopes: dict[str, SafetyEnvelope] = {}
        self.resting: dict[str, np.ndarray] = {}  # where each follower lay before torque was switched on
        self.supervision: Supervision | None = None
        self.is_connected = self.is_open = self._energised = False
        self.findings: list[Finding] = []
        self.logs: dict = {}
        self._watched, self._last_command = False, 0.0
        self._torque_seen: dict[str, float] = {}  # arm -> when its torque was last looked at, by the robot's clock

    # -- what it has ---------------------------------------------------------------------------------------------

    @property
    def motor_features(self) -> dict[str, dict]:
        """`action` and `observation.state` as a dataset has them."""
        names = [f"{arm}_{motor}" for arm, bus in self.follower_arms.items() for motor in bus.motors]
        feature = {"dtype": "float32", "shape": (len(names),), "names": names}
        return {"action": feature, "observation.state": dict(feature)}

    @property
    def camera_features(self) -> dict[str, dict]:
        """`observation.images.<name>` per camera."""
        names = ["height", "width", "channels"]
        return {
            f"observation.images.{name}": {"shape": (camera.height, camera.width, 3), "names": names, "info": None}
            for name, camera in self.cameras.items()
        }

    @property
    def features(self) -> dict[str, dict]:
        """All features of a recorded frame."""
        return {**self.motor_features, **self.camera_features}

    @property
    def has_camera(self) -> bool:
        """Whether there is any camera."""
        return bool(self.cameras)

    @property
    def num_cameras(self) -> int:
        """Number of cameras."""
        return len(self.cameras)

    @property
    def available_arms(self) -> list[str]:
        """Ids for `--control.arms`, followers first."""
        return [f"{name}_follower" for name in self.follower_arms] + [f"{name}_leader" for name in self.leader_arms]

    @property
    def buses(self) -> dict[str, DynamixelMotorsBus]:
        """Every bus by its arm id."""
        return dict(zip(self.available_arms, [*self.follower_arms.values(), *self.leader_arms.values()], strict=True))

    @property
    def units(self) -> str:
        """How joint values are to be read: legacy (degrees), deg_percent (gripper in percent) or normalized."""
        modes = [mode for bus in self.follower_arms.values() for mode in (bus.calibration or {}).get("calib_mode", [])]
        if all(mode == DEGREE for mode in modes):
            return "legacy"
        return "normalized" if RANGE_M100_100 in modes else "deg_percent"

    # -- connection ----------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open, check the motors and energise; on any failure everything is let go of again."""
        self.open()
        try:
            findings = [finding for finding in self.check() if finding.severity == "error"]
            if findings:
                raise ConnectionError(" ".join(f"{finding.message} {finding.fix}".strip() for finding in findings))
            self.energise()
        except BaseException:
            self.disconnect()
            raise

    def open(self) -> list[Finding]:
        """Open every port and camera, torque untouched; what cannot be opened is a finding, or raised by `connect`."""
        if self.is_open:
            raise DeviceAlreadyConnectedError("The robot is already connected.")
        if not (self.leader_arms or self.follower_arms or self.cameras):
            raise ValueError("The robot has neither arms nor cameras: nothing to connect.")
        self.is_open, self.findings = True, []
        for name, bus in self.buses.items():
            self._try(f"robot.{name}.port", name, bus.connect)
        for name, camera in self.cameras.items():
            self._try(f"robot.camera.{name}", f"camera {name}", camera.connect)
        return self.findings

    def _try(self, code: str, who: str, action) -> None:
        try:
            action()
        except (OSError, ValueError, DeviceError) as e:
            self.findings.append(Finding(code, "error", f"{who}: {e}"))

    def check(self) -> list[Finding]:
        """What is wrong with ports, cameras, motors and calibration files; nothing moves."""
        from lerobot.common.checks.robot import check_calibration, check_motors

        found = list(self.findings)
        for name, bus in self.buses.items():
            if bus.is_connected:
                found += check_motors(name, bus)
            found += check_calibration(name, self._calibration_path(name), bus)
        return found

    def energise(self, calibrate: bool = True) -> None:
        """Torque off, calibrate, find the present pose, configure, and switch the followers' torque on."""
        self._energised = True
        for name, bus in self.buses.items():
            bus.set_torque(False)
            if stopped := bus.wake():
                logging.warning(
                    "%s: %s had been stopped by their watchdog: the last program ended, or its cable came off, "
                    "while they moved. They take goals again.",
                    name,
                    ", ".join(stopped),
                )
        if calibrate:
            self.load_calibrations()
        for bus in self.buses.values():
            apply_preset(bus, bus in self.follower_arms.values())
        for name, bus in self.buses.items():  # after the presets: a change of mode can cost a servo its count of turns
            undo_slipped_turns(name, bus)
        for name, bus in self.follower_arms.items():
            self._make_envelope(name, bus)
            self._limit_motors(name, bus)
        if self.config.supervise and self.follower_arms:
            self.supervision = Supervision.start(self)
        for bus in self.follower_arms.values():
            bus.set_torque(True)
        for bus in self.leader_arms.values():
            self._open_gripper(bus)
        self.is_connected = True

    def load_calibrations(self) -> None:
        """Read every arm's calibration file, or make it by hand where there is none."""
        for name, bus in self.buses.items():
            path = self._calibration_path(name)
            if path.exists():
                bus.set_calibration(self.read_calibration(name, bus))
            else:
                arm, kind = name.rsplit("_", 1)
                logging.info("There is no calibration '%s': it is made now.", path)
                bus.set_calibration(None)
                calibration = run_arm_calibration(bus, self.robot_type, arm, kind)
                self.keep_calibration(name, calibration)
                bus.set_calibration(calibration)

    def read_calibration(self, arm_id: str, bus: DynamixelMotorsBus) -> Calibration:
        """An arm's calibration file; ValueError, FileNotFoundError."""
        return load_calibration(self._calibration_path(arm_id), bus.motors, self.config.use_degrees)

    def keep_calibration(self, arm_id: str, calibration: Calibration) -> None:
        """Write an arm's calibration file; that of mock motors never into the folder where real arms have theirs."""
        path = self._calibration_path(arm_id)
        if self.config.mock and self.config.calibration_dir is None:
            logging.warning("'%s' is not written: these motors are a mock (--robot.calibration_dir keeps it).", path)
            return
        save_calibration(calibration, path)
        logging.info("Calibration written to '%s'.", path)

    def _calibration_path(self, arm_id: str) -> Path:
        side = arm_id.rsplit("_", 1)[1]
        named = getattr(self.config, f"{side}_calibration")
        return Path(named) if named else self.calibration_dir / f"{arm_id}.json"

    def _open_gripper(self, bus: DynamixelMotorsBus) -> None:
        """Let the leader's gripper spring open to where it rests."""
        percent, rest = self.config.gripper_open_pos, self.config.gripper_open_degree
        if percent is not None:
            share = GRIPPER_OPEN / 100 if calibration_mode(bus, "gripper") == DEGREE else 1.0
            rest = np.array([percent * share])
        if rest is not None:
            bus.set_torque(True, "gripper")
            bus.write("Goal_Position", rest, "gripper")

    def learn_limits(self, name: str, bus: DynamixelMotorsBus) -> JointLimits:
        """The limits of a calibrated follower, from the dataset that is named or from the arm; ValueError."""
        low, high = mechanical_range(bus)
        config = self.envelope_config
        if not config.dataset_root:
            return JointLimits.of_arm(bus.motor_names, low, high, config)
        joints = self.motor_features["action"]["names"]
        first = joints.index(f"{name}_{bus.motor_names[0]}")
        names, root = bus.motor_names, config.dataset_root
        return JointLimits.of_dataset(root, names, low, high, config.margin, joints, first, self.units)

    def _make_envelope(self, name: str, bus: DynamixelMotorsBus) -> None:
        kind = SafetyEnvelope if self.safety else Unlimited
        self.envelopes[name] = kind(self.learn_limits(name, bus), 1 / FPS, self.envelope_config)
        self.resting[name] = bus.read("Present_Position")
        self.envelopes[name].engage(self.resting[name])

    def _limit_motors(self, name: str, bus: DynamixelMotorsBus) -> None:
        if self.safety:
            limit_motors(bus, self.envelopes[name].limits, self.envelope_config.gripper_current)

    def watch(self, on: bool) -> None:
        """A motion begins or ends: while it lasts, servos and supervisor notice when goals stop coming."""
        self._watched = on
        if not on and self.supervision is not None:
            self.supervision.disarm()  # first: with a motor that does not answer, what follows takes long
        for bus in self.follower_arms.values():
            if on:
                bus.write("Bus_Watchdog", 0)  # a servo that has stopped takes goals again only after this
                bus.write("Bus_Watchdog", round(WATCHDOG_S / WATCHDOG_UNIT))
            else:
                bus.stop_watching()
        if on and self.supervision is not None:
            self.supervision.arm()

    # -- moving --------------------------------------------------------------------------------------------------

    def set_rate(self, fps: float | None) -> None:
        """Tell the envelopes how long a tick is; None: as long as each turns out to be."""
        for envelope in self.envelopes.values():
            envelope.period, envelope.measured = 1 / (fps or FPS), fps is None

    def engage(self) -> None:
        """Start a motion from where the followers are."""
        for name, bus in self.follower_arms.items():
            self.envelopes[name].engage(bus.read("Present_Position"))

    def resume(self) -> None:
        """Start a motion from the last commands, below which a loaded arm hangs; `engage` if it is elsewhere."""
        for name, bus in self.follower_arms.items():
            self._resume(name, bus)

    def _resume(self, name: str, bus: DynamixelMotorsBus) -> None:
        present, commanded = bus.read("Present_Position"), self.envelopes[name].commanded
        self.envelopes[name].engage(commanded if np.abs(present - commanded).max() < SAG else present)

    def leader_positions(self) -> dict[str, np.ndarray]:
        """Joint values of each leader."""
        positions = {}
        for name, bus in self.leader_arms.items():
            start = time.perf_counter()
            positions[name] = bus.read("Present_Position")
            self.logs[f"read_leader_{name}_pos_dt_s"] = time.perf_counter() - start
        return positions

    def follower_positions(self) -> np.ndarray:
        """Joint values of all followers, float32 (S,)."""
        positions = []
        for name, bus in self.follower_arms.items():
            start = time.perf_counter()
            positions.append(bus.read("Present_Position"))
            self.logs[f"read_follower_{name}_pos_dt_s"] = time.perf_counter() - start
        return np.concatenate(positions) if positions else np.zeros(0, np.float32)

    def teleop_step(self, record_data: bool = False) -> tuple[dict, dict] | None:
        """Let the followers follow; with `record_data` (observation, action), the state measured after the goal."""
        self._require()
        leaders = self.leader_positions()
        sent = [self._command(name, bus, leaders[name]) for name, bus in self.follower_arms.items()]
        if not record_data:
            return None
        return self.capture_observation(), {"action": torch.from_numpy(np.concatenate(sent))}

    def capture_observation(self) -> dict[str, torch.Tensor]:
        """State float32 (S,) and pictures uint8 (H, W, 3), not copied; StaleFrameError for a frozen camera."""
        self._require()
        observation = {"observation.state": torch.from_numpy(self.follower_positions())}
        for name, camera in self.cameras.items():
            start = time.perf_counter()
            observation[f"observation.images.{name}"] = torch.from_numpy(camera.async_read())
            self.logs[f"read_camera_{name}_dt_s"] = camera.logs.get("delta_timestamp_s", 0.0)
            self.logs[f"async_read_camera_{name}_dt_s"] = time.perf_counter() - start
        return observation

    def send_action(self, action: torch.Tensor) -> torch.Tensor:
        """Send targets (A,) through the envelope; returns what was sent."""
        self._require()
        sent, first = [], 0
        for name, bus in self.follower_arms.items():
            last = first + len(bus.motors)
            sent.append(self._command(name, bus, np.asarray(action[first:last], dtype=np.float64)))
            first = last
        return torch.from_numpy(np.concatenate(sent))

    def hold(self) -> torch.Tensor:
        """Send the last commands again; returns them."""
        return self.send_action(np.concatenate([envelope.commanded for envelope in self.envelopes.values()]))

    def _command(self, name: str, bus: DynamixelMotorsBus, target: np.ndarray) -> np.ndarray:
        start = time.perf_counter()
        if self._watched and start - self._last_command > WATCHDOG_S:
            for arm, stopped_bus in self.follower_arms.items():  # a long inference: the servos have stopped
                self._wake(arm, stopped_bus)
        self._last_command = start
        self._look_at_servos(name, bus)
        goal = self.envelopes[name].limit(target, self.clock.now())
        if self.config.max_relative_target is not None:
            goal = ensure_safe_goal_position(goal, bus.read("Present_Position"), self.config.max_relative_target)
        bus.write("Goal_Position", goal)
        if self.supervision is not None:
            self.supervision.beat()
        if bus.alerts:
            raise ConnectionError(f"Hardware error of {bus.alerts} on {name}_follower: {self._errors(bus)}")
        self.logs[f"write_follower_{name}_goal_pos_dt_s"] = time.perf_counter() - start
        return goal

    def _look_at_servos(self, name: str, bus: DynamixelMotorsBus) -> None:
        """Once a second: a servo that restarted is limp, one that its watchdog stopped takes no goals."""
        now = self.clock.now()
        if now - self._torque_seen.get(name, -TORQUE_S) < TORQUE_S:
            return
        self._torque_seen[name] = now
        limp = [motor for motor, on in zip(bus.motors, bus.read("Torque_Enable"), strict=True) if not on]
        if limp:
            raise ConnectionError(
                f"{name}_follower: the torque of {', '.join(limp)} is off, though it was switched on: the servo "
                f"restarted (its supply dipped, or a plug is loose) or gave up ({self._errors(bus) or 'no error'})."
            )
        if self._watched:
            self._wake(name, bus)

    def _wake(self, name: str, bus: DynamixelMotorsBus) -> None:
        """Servos that heard nothing for `WATCHDOG_S` have stopped: they go on slowly from where they are."""
        stopped = bus.wake()
        if not stopped:
            return
        logging.warning(
            "%s_follower: %s heard nothing for %.1f s and stopped by themselves (a long inference, or a loose cable). "
            "The arm goes on slowly from where it is.",
            name,
            ", ".join(stopped),
            WATCHDOG_S,
        )
        self._limit_motors(name, bus)
        self._resume(name, bus)
        bus.write("Bus_Watchdog", round(WATCHDOG_S / WATCHDOG_UNIT))

    def _errors(self, bus: DynamixelMotorsBus) -> str:
        with contextlib.suppress(ConnectionError):
            return "; ".join(f"{motor}: {', '.join(h.errors)}" for motor, h in bus.health().items() if h.errors)
        return "unknown"

    def watch_health(self) -> list[Finding]:
        """Supply, temperature and errors of every motor, as findings; called a few times a minute."""
        from lerobot.common.checks.robot import check_health

        return [finding for name, bus in self.buses.items() for finding in check_health(name, bus)]

    def glide(self, targets: dict[str, np.ndarray], seconds: float) -> None:
        """Move the followers to targets in that time, along straight lines in joint space."""
        starts = {name: self.envelopes[name].commanded for name in targets}
        ticks = max(1, round(seconds * FPS))
        for tick in range(1, ticks + 1):
            for name, target in targets.items():
                share = tick / ticks
                goal = starts[name] + (3 * share**2 - 2 * share**3) * (target - starts[name])
                self.follower_arms[name].write("Goal_Position", goal.astype(np.float32))
            if self.supervision is not None:
                self.supervision.beat()
            self.clock.wait(1 / FPS)
        for name, target in targets.items():
            self.envelopes[name].engage(target)
        self.resume()

    def land(self) -> None:
        """Move the followers to where they lay before torque was switched on."""
        if self.is_connected and self.resting:
            self.watch(False)
            self.resume()
            self.glide(self.resting, self.envelope_config.landing_s)

    # -- the end -------------------------------------------------------------------------------------------------

    def disconnect(self, land: bool = True) -> None:
        """Land, switch torque off, and close everything; what fails on the way is logged."""
        if not self.is_open:
            raise DeviceNotConnectedError("The robot is not connected.")
        if land and self.is_connected:
            try:
                self.land()
            except (Exception, KeyboardInterrupt) as e:  # whatever it is; a second Ctrl-C: do not wait for the landing
                logging.error(
                    "The arm was not landed (%s): its torque is switched off where it is.", e or "interrupted"
                )
        for envelope in self.envelopes.values():
            logging.info("%s", envelope.summary())
        for bus in self.buses.values():
            if bus.is_connected:
                bus.disconnect(energised=self._energised)
        for camera in self.cameras.values():
            if camera.is_connected:
                camera.disconnect()
        if self.supervision is not None:
            self.supervision.finish()
            self.supervision = None
        self.envelopes, self.resting = {}, {}
        self.is_connected = self.is_open = self._energised = False

    def __enter__(self) -> ManipulatorRobot:
        self.connect()
        return self

    def __exit__(self, *_) -> None:
        if self.is_open:
            self.disconnect()

    def __del__(self):
        if getattr(self, "is_open", False):
            with contextlib.suppress(Exception):  # the interpreter may be half gone
                self.disconnect(land=False)

    def _require(self) -> None:
        if not self.is_connected:
            raise DeviceNotConnectedError("The robot is not connected; call connect() first.")


def ensure_safe_goal_position(goal: np.ndarray, present: np.ndarray, most: float | list[float]) -> np.ndarray:
    """`goal` no further than `most` (one number, or one per joint) from `present`, with a warning when it was."""
    safe = present + np.clip(goal - present, -np.asarray(most), np.asarray(most))
    if not np.allclose(safe, goal):
        logging.warning(
            "Goals held near the arm: asked %s, sent %s.", (goal - present).tolist(), (safe - present).tolist()
        )
    return safe.astype(np.float32)
