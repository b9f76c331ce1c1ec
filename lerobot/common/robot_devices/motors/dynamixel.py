"""A chain of Dynamixel X servos: registers by name, joint values through the calibration, torque with care."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np

from lerobot.common.robot_devices.motors.calibration import (
    Calibration,
    JointOutOfRangeError,
    corrected_for_turns,
    require_finite,
    shift_turns,
    to_joint_values,
    to_raw,
)
from lerobot.common.robot_devices.motors.configs import DynamixelMotorsBusConfig
from lerobot.common.robot_devices.motors.control_table import (
    BAUD_RATES,
    CALIBRATED,
    CONTROL_TABLE,
    MODELS,
    SIGNED,
    WATCHDOG_TRIPPED,
    hardware_errors,
    to_signed,
)
from lerobot.common.robot_devices.motors.dynamixel_port import BusCounters, DynamixelPort
from lerobot.common.robot_devices.utils import DeviceAlreadyConnectedError, DeviceError, DeviceNotConnectedError

READ_TRIES = 10
OFF_TRIES = 3
LEVEL_TRIES = 4
GOALS = ("Goal_Position", "Goal_Velocity", "Goal_Current", "Goal_PWM")  # sent every tick: sync write, no answer
MOST_SCANNED_ID = 252


@dataclass(frozen=True)
class MotorHealth:
    """One servo's supply in volts, temperature in Celsius and hardware errors by name."""

    volts: float
    celsius: int
    errors: tuple[str, ...]


class DynamixelMotorsBus:
    """The servos of one arm.

    `read` and `write` name a register and motors; positions pass through the calibration when one is set. A read is
    tried ten times, then ConnectionError. `logs` holds the duration and time of the last access per register.
    """

    def __init__(self, config: DynamixelMotorsBusConfig):
        self.config = config
        self.port, self.motors = config.port, {name: tuple(motor) for name, motor in config.motors.items()}
        for name, (_, model) in self.motors.items():
            if model not in MODELS:
                raise ValueError(
                    f"Motor '{name}' has the unknown model '{model}'; expected one of {', '.join(MODELS)}."
                )
        self.calibration: Calibration | None = None
        self.is_connected = False
        self.logs: dict = {}
        self._port: DynamixelPort | None = None
        self._simulated = None

    # -- connection ----------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open the port; nothing is asked of the motors. ConnectionError says what is wrong with the port."""
        if self.is_connected:
            raise DeviceAlreadyConnectedError(f"The bus on '{self.port}' is already connected.")
        if self.config.mock:
            self._simulated = _start_simulation(self.motors)
            self.port = self._simulated.paths[0]
        self._port = DynamixelPort(self.port, self.config.baud_rate)
        self._port.open()
        self.is_connected = True

    def reconnect(self) -> None:
        """Close the port, if open, and open it again; calibration and counters stay."""
        counters = self.counters
        if self._port is not None:
            with contextlib.suppress(OSError):
                self._port.close()
        self._port = DynamixelPort(self.port, self.config.baud_rate)
        self._port.counters = counters
        self._port.open()
        self.is_connected = True

    def disconnect(self, torque_off: bool = True, energised: bool = True) -> None:
        """Switch torque off (unless told not to) and close the port; what fails on the way is logged, not raised.

        Where nobody `energised` the arm, motors that do not answer are no reason for alarm.
        """
        self._require()
        if torque_off:
            try:
                self.set_torque(False)
            except (ConnectionError, RuntimeError) as e:
                text = "Torque could not be switched off on '%s': %s CUT THE POWER of the arm."
                logging.log(logging.ERROR if energised else logging.DEBUG, text, self.port, e)
        with contextlib.suppress(OSError):
            self._port.close()
        self.is_connected = False
        if self._simulated is not None:
            self._simulated.close()

    def __enter__(self) -> DynamixelMotorsBus:
        self.connect()
        return self

    def __exit__(self, *_) -> None:
        if self.is_connected:
            self.disconnect()

    # -- who is there --------------------------------------------------------------------------------------------

    @property
    def motor_names(self) -> list[str]:
        """Names in the order of the configuration, which is the order of every vector."""
        return list(self.motors)

    @property
    def motor_models(self) -> list[str]:
        """Model names in the same order."""
        return [model for _, model in self.motors.values()]

    @property
    def motor_indices(self) -> list[int]:
        """Ids in the same order."""
        return [motor for motor, _ in self.motors.values()]

    @property
    def counters(self) -> BusCounters:
        """Transactions, retries and failures since the port was opened."""
        return BusCounters() if self._port is None else self._port.counters

    @property
    def alerts(self) -> list[str]:
        """Motors whose last answer reported a hardware error."""
        raised = set() if self._port is None else self._port.alerts
        return [name for name, (motor, _) in self.motors.items() if motor in raised]

    def ping(self, name: str) -> int | None:
        """The model number of a motor, None without an answer."""
        return self._require().ping(self.motors[name][0])

    def answer_level(self, name: str) -> int:
        """Status_Return_Level of a motor that answers a ping; 0 for one that does not answer when it is read."""
        motor, model = self.motors[name]
        try:
            return int(self.read_with_motor_ids([model], [motor], "Status_Return_Level", LEVEL_TRIES)[0])
        except ConnectionError:
            return 0

    def are_motors_configured(self) -> bool:
        """Whether every motor answers to its id."""
        try:
            return self.read("ID").tolist() == self.motor_indices
        except ConnectionError as e:
            logging.warning("%s", e)
            return False

    def find_motor_indices(self, possible_ids=None, num_retry: int = 2) -> list[int]:
        """The ids that answer, of `possible_ids` or all; OSError where a motor stores another id than it answers to."""
        port, found = self._require(), []
        for motor in possible_ids or range(MOST_SCANNED_ID):
            try:
                stored = port.sync_read(*CONTROL_TABLE["ID"], [motor], tries=num_retry)[0][0]
            except ConnectionError:
                continue
            if stored != motor:
                raise OSError(f"A motor answers to id {motor} but stores id {stored}: two motors share an id.")
            found.append(motor)
        return found

    def set_bus_baudrate(self, baudrate: int) -> None:
        """Talk at another rate."""
        if self._require().baud_rate != baudrate:
            self._port.set_baud_rate(baudrate)

    def answering_baud_rate(self) -> int | None:
        """The rate at which any of the motors answers; the rate in use stays as it was."""
        present = self._require().baud_rate
        try:
            for rate in (present, *(rate for rate in BAUD_RATES if rate != present)):
                self.set_bus_baudrate(rate)
                if any(self._port.ping(motor, tries=1) is not None for motor in self.motor_indices):
                    return rate
        finally:
            self.set_bus_baudrate(present)
        return None

    # -- registers -----------------------------------------------------------------------------------------------

    def set_calibration(self, calibration: Calibration | None) -> None:
        """Use a calibration; kept by reference, so turn corrections reach the caller's copy."""
        self.calibration = calibration

    def read(self, data_name: str, motor_names: str | list[str] | None = None) -> np.ndarray:
        """A register of the named motors (all by default), (J,): int64, or float32 joint values for positions."""
        start = time.perf_counter()
        names = self._names(motor_names)
        values = self.read_with_motor_ids(self._models(names), self._ids(names), data_name)
        if data_name in CALIBRATED and self.calibration is not None:
            values = self.apply_calibration_autocorrect(values, names)
        self._log("read", data_name, names, start)
        return values

    def write(self, data_name: str, values, motor_names: str | list[str] | None = None) -> None:
        """Set a register of the named motors to a number or one number each.

        A scalar is truncated to a whole number, as in LeRobot 0.1. Goals go out unacknowledged; any other register is
        acknowledged per motor, and RuntimeError says which motor refused. ValueError for values that are not finite.
        """
        start = time.perf_counter()
        names = self._names(motor_names)
        if isinstance(values, (int, float, np.integer, np.floating)):
            require_finite(np.array([values] * len(names)), names)
            values = [int(values)] * len(names)
        values = np.array(values)
        require_finite(values, names)
        if data_name in CALIBRATED and self.calibration is not None:
            values = to_raw(values, names, self.calibration)
        self.write_with_motor_ids(self._models(names), self._ids(names), data_name, values.tolist())
        self._log("write", data_name, names, start)

    def read_with_motor_ids(self, motor_models, motor_ids, data_name: str, num_retry: int = READ_TRIES) -> np.ndarray:
        """A register without calibration, int64 (J,) (positions int32)."""
        address, size = _register(data_name, motor_models)
        blocks = self._require().sync_read(address, size, list(motor_ids), tries=num_retry)
        numbers = [int.from_bytes(block, "little") for block in blocks]
        if data_name in SIGNED:
            numbers = [to_signed(number, size) for number in numbers]
        return np.array(numbers, dtype=np.int32 if data_name in CALIBRATED else np.int64)

    def write_with_motor_ids(
        self, motor_models, motor_ids, data_name: str, values, num_retry: int = READ_TRIES
    ) -> None:
        """Set a register without calibration."""
        address, size = _register(data_name, motor_models)
        if isinstance(values, (int, np.integer)):
            values = [values] * len(motor_ids)
        port = self._require()
        if data_name in GOALS:
            port.sync_write(address, size, dict(zip(motor_ids, values, strict=True)))
            return
        for motor, value in zip(motor_ids, values, strict=True):
            port.write(motor, address, size, value, tries=num_retry)

    def send(self, data_name: str, value: int, motor_names: str | list[str] | None = None) -> None:
        """Set a register of several motors to a number in one packet, which none acknowledges."""
        names = self._names(motor_names)
        address, size = _register(data_name, self._models(names))
        self._require().sync_write(address, size, dict.fromkeys(self._ids(names), value))

    def apply_calibration_autocorrect(self, values: np.ndarray, names: list[str]) -> np.ndarray:
        """Joint values; whole turns that a joint slipped by are put into the calibration (in memory)."""
        try:
            return to_joint_values(values, names, self.calibration)
        except JointOutOfRangeError as e:
            turns = corrected_for_turns(values, names, self.calibration)
            logging.warning("%s Corrected by whole turns: %s.", e, turns)
            shift_turns(self.calibration, turns)
            return to_joint_values(values, names, self.calibration)

    # -- torque and health ---------------------------------------------------------------------------------------

    def set_torque(self, on: bool, motor_names: str | list[str] | None = None) -> None:
        """Switch torque and read it back; every motor is tried before the first failure is raised.

        Before it is switched on, the goal becomes the present position, so nothing jumps.
        """
        names = self._names(motor_names)
        if on:
            present = self.read_with_motor_ids(self._models(names), self._ids(names), "Present_Position")
            self._goal_acknowledged(names, present)
        elif self._let_go_at_once(names):
            return
        address, size = CONTROL_TABLE["Torque_Enable"]
        failure = None
        for name in names:
            try:
                # Switching off waits for no late answer: what counts is read back.
                tries, settle = (READ_TRIES, True) if on else (OFF_TRIES, False)
                self._require().write(self.motors[name][0], address, size, int(on), tries, settle)
            except (ConnectionError, RuntimeError) as e:
                failure = failure or e
        if failure is not None:
            raise failure
        wrong = [n for n, state in zip(names, self.read("Torque_Enable", names), strict=True) if state != int(on)]
        if wrong:
            raise DeviceError(f"Torque of {wrong} did not switch {'on' if on else 'off'} on '{self.port}'.")

    def _let_go_at_once(self, names: list[str]) -> bool:
        """Switch torque off in one packet to all; whether all answer that it is."""
        try:
            self.send("Torque_Enable", 0, names)
            states = self.read_with_motor_ids(self._models(names), self._ids(names), "Torque_Enable", OFF_TRIES)
        except ConnectionError:
            return False
        return not states.any()

    def _goal_acknowledged(self, names: list[str], raw) -> None:
        address, size = CONTROL_TABLE["Goal_Position"]
        for name, value in zip(names, raw, strict=True):
            self._require().write(self.motors[name][0], address, size, int(value))

    def wake(self) -> list[str]:
        """Let motors that their bus watchdog has stopped take goals again, with the watchdog off; their names.

        The stop may have cost them their speed limit (Profile_Velocity), which whoever set it sets again.
        """
        states = zip(self.motors, self.read("Bus_Watchdog"), strict=True)
        stopped = [name for name, state in states if state == WATCHDOG_TRIPPED]
        self.write("Bus_Watchdog", 0, stopped)
        return stopped

    def stop_watching(self) -> None:
        """Switch the bus watchdogs off; a motor that does not answer is left to what is asked of it next."""
        try:
            self.send("Bus_Watchdog", 0)
            states = self.read_with_motor_ids(self.motor_models, self.motor_indices, "Bus_Watchdog", OFF_TRIES)
            self.write("Bus_Watchdog", 0, [n for n, state in zip(self.motors, states, strict=True) if state])
        except ConnectionError as e:
            logging.debug("%s", e)

    def health(self, motor_names: str | list[str] | None = None) -> dict[str, MotorHealth]:
        """Supply, temperature and hardware errors per motor."""
        names = self._names(motor_names)
        blocks = self._require().sync_read(CONTROL_TABLE["Present_Input_Voltage"][0], 3, self._ids(names))
        bits = self.read("Hardware_Error_Status", names)
        return {
            name: MotorHealth(int.from_bytes(block[:2], "little") / 10, block[2], tuple(hardware_errors(int(errors))))
            for name, block, errors in zip(names, blocks, bits, strict=True)
        }

    # -- shared --------------------------------------------------------------------------------------------------

    def _require(self) -> DynamixelPort:
        if not self.is_connected:
            raise DeviceNotConnectedError(f"The bus on '{self.port}' is not connected; call connect() first.")
        return self._port

    def _names(self, motor_names: str | list[str] | None) -> list[str]:
        if motor_names is None:
            return self.motor_names
        return [motor_names] if isinstance(motor_names, str) else list(motor_names)

    def _ids(self, names: list[str]) -> list[int]:
        return [self.motors[name][0] for name in names]

    def _models(self, names: list[str]) -> list[str]:
        return [self.motors[name][1] for name in names]

    def _log(self, kind: str, data_name: str, names: list[str], start: float) -> None:
        suffix = f"{kind}_{data_name}_{'_'.join(names)}"
        self.logs[f"delta_timestamp_s_{suffix}"] = time.perf_counter() - start
        self.logs[f"timestamp_utc_{suffix}"] = datetime.now(timezone.utc)

    def __del__(self):
        if getattr(self, "is_connected", False):
            with contextlib.suppress(Exception):  # the interpreter may be half gone
                self.disconnect()


def _register(data_name: str, models) -> tuple[int, int]:
    if data_name not in CONTROL_TABLE:
        raise ValueError(f"There is no register '{data_name}'; expected one of {', '.join(CONTROL_TABLE)}.")
    lacking = [model for model in models if not MODELS[model].has_current]
    if data_name in ("Goal_Current", "Current_Limit") and lacking:
        raise NotImplementedError(f"Register {data_name} does not exist in {', '.join(sorted(set(lacking)))}.")
    return CONTROL_TABLE[data_name]


def _start_simulation(motors: dict[str, tuple[int, str]]):
    from lerobot.common.robot_devices.simulation.pty_server import ServoThread
    from lerobot.common.robot_devices.simulation.servo import Servo

    return ServoThread([[Servo(motor, model) for motor, model in motors.values()]])
