"""One Dynamixel X servo: its registers, what writing them does, and a plain model of the motor behind them.

Registers follow the ROBOTIS e-manual for XL430-W250 and XL330. `shaft` is the turned angle in steps; whoever simulates
a mechanism sets it, otherwise `tick` moves it towards the goal.
"""

from __future__ import annotations

import random

from lerobot.common.robot_devices.motors.control_table import (
    BAUD_RATES,
    CONTROL_TABLE,
    CURRENT_POSITION_MODE,
    EEPROM_END,
    EXTENDED_POSITION_MODE,
    MODELS,
    MOST_STEPS,
    MOST_WATCHDOG,
    POSITION_MODE,
    RESOLUTION,
    SIGNED,
    STEPS_PER_DEGREE,
    TABLE_SIZE,
    VELOCITY_UNIT,
    WATCHDOG_TRIPPED,
    WATCHDOG_UNIT,
    to_signed,
)
from lerobot.common.robot_devices.simulation.packets import BROADCAST, PING, READ, SYNC_READ

CLEAR_TURNS = bytes([0x01, 0x44, 0x58, 0x4C, 0x22])
RESULT_FAIL, INSTRUCTION_ERROR, RANGE_ERROR, LENGTH_ERROR, LIMIT_ERROR, ACCESS_ERROR = 1, 2, 4, 5, 6, 7
ALERT = 0x80
LEAST_LEVEL = {PING: 0, READ: 1, SYNC_READ: 1}  # Status_Return_Level from which an instruction is answered
READ_ONLY = {
    "Model_Number",
    "Model_Information",
    "Firmware_Version",
    "Hardware_Error_Status",
    "Registered_Instruction",
    "Realtime_Tick",
    "Moving",
    "Moving_Status",
    "Velocity_Trajectory",
    "Position_Trajectory",
    *(name for name in CONTROL_TABLE if name.startswith("Present_")),
}
OPERATING_MODES = {1060: {1, 3, 4, 16}, 1190: {0, 1, 3, 4, 5, 16}, 1200: {0, 1, 3, 4, 5, 16}}
FACTORY = {
    "Firmware_Version": 45,
    "Baud_Rate": 3,
    "Return_Delay_Time": 250,
    "Operating_Mode": POSITION_MODE,
    "Secondary_ID": 255,
    "Protocol_Type": 2,
    "Moving_Threshold": 10,
    "PWM_Limit": 885,
    "Max_Position_Limit": RESOLUTION - 1,
    "Status_Return_Level": 2,
    "Goal_PWM": 885,
    "Present_Temperature": 32,
}
CURRENT_LIMIT = 1750
VOLTAGE_BIT, HEAT_BIT, OVERLOAD_BIT = 0, 2, 5
REVERSED = 1  # bit 0 of Drive_Mode
HOMING_MOST = 1_044_479
MOST_GAIN = 16_383
# The least and the greatest number that a register takes; what is not listed takes every number of its size.
RANGES = {
    "ID": (0, BROADCAST - 2),
    "Baud_Rate": (0, len(BAUD_RATES) - 1),
    "Return_Delay_Time": (0, 254),
    "Homing_Offset": (-HOMING_MOST, HOMING_MOST),
    "Temperature_Limit": (0, 100),
    "PWM_Limit": (0, 885),
    "Max_Position_Limit": (0, RESOLUTION - 1),
    "Min_Position_Limit": (0, RESOLUTION - 1),
    "Torque_Enable": (0, 1),
    "LED": (0, 1),
    "Status_Return_Level": (0, 2),
    "Bus_Watchdog": (0, MOST_WATCHDOG),
    "Profile_Acceleration": (0, 32_767),
    **{name: (0, MOST_GAIN) for name in CONTROL_TABLE if name.endswith("_Gain")},
}
LIMITED_BY = {  # beyond the number in another register: a limit error
    "Goal_PWM": "PWM_Limit",
    "Goal_Current": "Current_Limit",
    "Goal_Velocity": "Velocity_Limit",
    "Profile_Velocity": "Velocity_Limit",
}
STUCK_STEPS = 10  # of the goal beyond a blocked joint, from which on the motor gives its whole torque
OVERLOAD_SHARE, OVERLOAD_S = 0.8, 2.0  # more than this share of the stall torque, for longer than this: overload
# A plain model of the winding: it warms up by HEATING Celsius at stall, as an exponential with the time HEATING_S.
AMBIENT, HEATING, HEATING_S = FACTORY["Present_Temperature"], 60.0, 120.0
FULL_LOAD = 1000  # Present_Load of an XL430 at stall, 0.1 % each
STALL_CURRENT = 1470  # mA, XL330
FASTEST = 360.0 * STEPS_PER_DEGREE  # steps per second of an unloaded motor
REGISTER_AT = {address: (name, size) for name, (address, size) in CONTROL_TABLE.items()}


class Servo:
    """Registers and motor of one servo.

    `read` and `write` are what packets do; `set` and `get` are for the simulation and skip the access rules. ROBOTIS'
    pages disagree on whether a change to mode 4 costs the servo its count of turns: `mode_4_forgets_turns` says so.
    """

    def __init__(self, motor: int, model: str, shaft: float = RESOLUTION / 2, mode_4_forgets_turns: bool = True):
        self.model = MODELS[model]
        self.mode_4_forgets_turns = mode_4_forgets_turns
        self.shaft = float(shaft)
        self.memory = bytearray(TABLE_SIZE)
        self.muted = False  # the servo vanished: it neither hears nor answers
        self.stuck = False  # its gears are blocked
        self.noise_steps, self._random = 0, random.Random(motor)  # by which its encoder is off, either way
        self.idle_s = 0.0  # since the last instruction on the bus
        self.goal_writes = 0
        self.load = 0.0  # of a servo without a mechanism: what hangs on it, as a share of the stall torque
        self.overload_s = OVERLOAD_S  # infinite: it presses for as long as it is asked to
        self.celsius, self._overloaded_s = float(AMBIENT), 0.0
        self._factory(motor)

    def _factory(self, motor: int) -> None:
        self.set("Model_Number", self.model.number)
        self.set("ID", motor)
        for name, value in FACTORY.items():
            self.set(name, value)
        self.set("Temperature_Limit", self.model.hottest)
        self.set("Min_Voltage_Limit", round(self.model.volts[0] * 10))
        self.set("Max_Voltage_Limit", round(self.model.volts[1] * 10))
        self.set("Present_Input_Voltage", 120 if self.model.number == 1060 else 50)
        self.set("Shutdown", self.model.shutdown)
        self.set("Velocity_Limit", self.model.velocity_limit)
        if self.model.has_current:
            self.set("Current_Limit", CURRENT_LIMIT)
        self._mode_defaults()
        self.sense()

    # -- registers as the simulation sees them -------------------------------------------------------------------

    @property
    def motor(self) -> int:
        """The id that the servo answers to."""
        return self.get("ID")

    @property
    def baud_rate(self) -> int:
        """The rate at which the servo talks."""
        return BAUD_RATES[self.get("Baud_Rate")]

    @property
    def torque(self) -> bool:
        """Whether the motor is energised."""
        return bool(self.get("Torque_Enable"))

    @property
    def goal(self) -> int:
        """Goal_Position in steps of the shaft."""
        return self._direction * (self.get("Goal_Position") - self._offset)

    def get(self, name: str) -> int:
        """A register's number."""
        address, size = CONTROL_TABLE[name]
        value = int.from_bytes(self.memory[address : address + size], "little")
        return to_signed(value, size) if name in SIGNED else value

    def set(self, name: str, value: int) -> None:
        """Put a number into a register, whatever its access rule."""
        address, size = CONTROL_TABLE[name]
        self.memory[address : address + size] = (int(value) & (1 << 8 * size) - 1).to_bytes(size, "little")

    @property
    def _offset(self) -> int:
        offset = self.get("Homing_Offset")
        return 0 if self.get("Operating_Mode") == POSITION_MODE and abs(offset) > 1024 else offset

    @property
    def _direction(self) -> int:
        """-1 for a servo that counts backwards (bit 0 of Drive_Mode); the sign of the offset stays as it is."""
        return -1 if self.get("Drive_Mode") & REVERSED else 1

    # -- instructions --------------------------------------------------------------------------------------------

    @property
    def alert(self) -> int:
        """The alert bit of every status packet."""
        return ALERT if self.get("Hardware_Error_Status") else 0

    def answers(self, instruction: int) -> bool:
        """Whether Status_Return_Level lets it answer: 0 a ping only, 1 also what reads, 2 everything."""
        return self.get("Status_Return_Level") >= LEAST_LEVEL.get(instruction, 2)

    def read(self, address: int, length: int) -> tuple[int, bytes]:
        """Error byte and data."""
        if address + length > TABLE_SIZE or length == 0:
            return LENGTH_ERROR | self.alert, b""
        return self.alert, bytes(self.memory[address : address + length])

    def write(self, address: int, data: bytes) -> int:
        """Error byte; nothing changes where it is not 0."""
        name, size = REGISTER_AT.get(address, (None, 0))
        if name is None or name in READ_ONLY:
            return ACCESS_ERROR | self.alert
        if len(data) != size:
            return LENGTH_ERROR | self.alert
        value = int.from_bytes(data, "little")
        value = to_signed(value, size) if name in SIGNED else value
        error = self._refusal(name, address, value)
        if not error:
            self._accept(name, value)
        return error | self.alert

    def _refusal(self, name: str, address: int, value: int) -> int:
        absent = {"Goal_Current", "Current_Limit"} if not self.model.has_current else set()
        if name in absent | {"Acceleration_Limit"}:
            return ACCESS_ERROR
        if address < EEPROM_END and self.torque:
            return ACCESS_ERROR
        if self.stopped and (name.startswith("Goal_") or (name == "Bus_Watchdog" and value)):
            return RANGE_ERROR  # until 0 is written to Bus_Watchdog
        if name == "Torque_Enable" and value and self.get("Hardware_Error_Status"):
            return RESULT_FAIL
        if name == "Operating_Mode" and value not in OPERATING_MODES[self.model.number]:
            return RANGE_ERROR
        low, high = self._goal_range() if name == "Goal_Position" else RANGES.get(name, (value, value))
        if not low <= value <= high:
            return RANGE_ERROR
        return LIMIT_ERROR if name in LIMITED_BY and abs(value) > self.get(LIMITED_BY[name]) else 0

    def _goal_range(self) -> tuple[int, int]:
        if self.get("Operating_Mode") == POSITION_MODE:
            return self.get("Min_Position_Limit"), self.get("Max_Position_Limit")
        return -MOST_STEPS, MOST_STEPS

    def _accept(self, name: str, value: int) -> None:
        mode_before = self.get("Operating_Mode")
        self.set(name, value)
        if name == "Operating_Mode" and value != mode_before:
            self._mode_defaults()
            if value == POSITION_MODE or (value == EXTENDED_POSITION_MODE and self.mode_4_forgets_turns):
                self._collapse_turns()
        elif name == "Torque_Enable" and value:
            if mode_before == POSITION_MODE:
                self._collapse_turns()
            self.set("Goal_Position", self.get("Present_Position"))
        elif name == "Goal_Position":
            self.goal_writes += 1
        self.sense()

    def _mode_defaults(self) -> None:
        """What a change of mode puts back: gains, profile, and the goals that are limits of the position modes."""
        for letter, gain in zip("PID", self.model.position_gains, strict=True):
            self.set(f"Position_{letter}_Gain", gain)
        for letter, gain in zip("PI", self.model.velocity_gains, strict=True):
            self.set(f"Velocity_{letter}_Gain", gain)
        self.set("Feedforward_1st_Gain", 0)
        self.set("Feedforward_2nd_Gain", 0)
        self.set("Profile_Velocity", 0)
        self.set("Profile_Acceleration", 0)
        self.set("Goal_PWM", self.get("PWM_Limit"))
        if self.model.has_current:
            self.set("Goal_Current", self.get("Current_Limit"))

    def _collapse_turns(self) -> None:
        """The turn counter is lost: the servo knows its angle within one revolution only."""
        self.shaft = self._direction * (self._direction * self.shaft % RESOLUTION)

    def clear_turns(self, password: bytes) -> int:
        """The clear instruction: forget whole turns; error byte."""
        if password != CLEAR_TURNS:
            return RESULT_FAIL | self.alert
        self._collapse_turns()
        self.sense()
        return self.alert

    def reboot(self) -> None:
        """Power-on state: RAM at its defaults, errors cleared, torque off, turns forgotten (in mode 4 as well)."""
        self._overloaded_s = 0.0
        self.memory[EEPROM_END:] = bytes(TABLE_SIZE - EEPROM_END)
        self.set("Status_Return_Level", 2)
        self.set("Present_Temperature", round(self.celsius))
        self.set("Present_Input_Voltage", 120 if self.model.number == 1060 else 50)
        self._mode_defaults()
        self._collapse_turns()
        self.sense()

    # -- physics and faults --------------------------------------------------------------------------------------

    def sense(self) -> None:
        """Put the shaft's position into the registers."""
        noise = self._random.randint(-self.noise_steps, self.noise_steps) if self.noise_steps else 0
        counted = self._direction * (round(self.shaft) + noise) + self._offset
        self.set("Present_Position", counted)
        self.set("Position_Trajectory", counted)

    def move_towards_goal(self, shaft: float, seconds: float) -> float:
        """Where a motor at `shaft` gets in that time, limited by Profile_Velocity."""
        profile = self.get("Profile_Velocity") * VELOCITY_UNIT * STEPS_PER_DEGREE
        most = min(FASTEST, profile or FASTEST) * seconds
        return shaft + min(max(self.goal - shaft, -most), most)

    def tick(self, seconds: float) -> None:
        """Let time pass: the watchdog runs, and a servo without a mechanism turns towards its goal."""
        if self.torque and not self.stuck:
            self.shaft = self.move_towards_goal(self.shaft, seconds)
        self.watch(seconds)
        self.bear((1.0 if self.presses else self.load) if self.torque else 0.0, seconds)
        self.sense()

    def watch(self, seconds: float) -> None:
        """Let the bus watchdog run: without an instruction in its time the motor stops where it is."""
        self.idle_s += seconds
        limit = self.get("Bus_Watchdog")
        if self.torque and 0 < limit <= MOST_WATCHDOG and self.idle_s > limit * WATCHDOG_UNIT:
            self.set("Bus_Watchdog", WATCHDOG_TRIPPED)
            self.set("Goal_Position", self.get("Present_Position"))
            self.set("Profile_Velocity", 0)  # the e-manual: applied as 0, and whether for good it does not say
            self.set("Profile_Acceleration", 0)

    @property
    def presses(self) -> bool:
        """Whether it is blocked away from its goal, and gives all it has."""
        return self.stuck and self.torque and abs(self.goal - self.shaft) > STUCK_STEPS

    @property
    def stopped(self) -> bool:
        """Whether the bus watchdog has stopped the motor: it takes no goal until 0 is written to Bus_Watchdog."""
        return self.get("Bus_Watchdog") == WATCHDOG_TRIPPED

    def bear(self, share: float, seconds: float) -> None:
        """Give this share (-1..1) of the stall torque for a time: it shows as load or current, warms, and may trip."""
        unit = STALL_CURRENT if self.model.has_current else FULL_LOAD
        self.set("Present_Current", round(share * unit))
        warmest = AMBIENT + HEATING * share**2
        self.celsius += (warmest - self.celsius) * min(1.0, seconds / HEATING_S)
        self.set("Present_Temperature", round(self.celsius))
        if self.celsius > self.get("Temperature_Limit"):
            self.trip(HEAT_BIT)
        self._overloaded_s = self._overloaded_s + seconds if abs(share) > OVERLOAD_SHARE and self.torque else 0.0
        if self._overloaded_s > self.overload_s:
            self.trip(OVERLOAD_BIT)

    def trip(self, bit: int) -> None:
        """A hardware error: torque goes off and stays off until a reboot."""
        self.set("Hardware_Error_Status", self.get("Hardware_Error_Status") | 1 << bit)
        if self.get("Shutdown") >> bit & 1:
            self.set("Torque_Enable", 0)

    def set_volts(self, volts: float) -> None:
        """The supply; outside its limits the voltage error is raised."""
        self.set("Present_Input_Voltage", round(volts * 10))
        if not self.get("Min_Voltage_Limit") <= round(volts * 10) <= self.get("Max_Voltage_Limit"):
            self.trip(VOLTAGE_BIT)

    def set_celsius(self, celsius: float) -> None:
        """The winding's temperature; it is felt at the next moment that passes."""
        self.celsius = celsius
        self.set("Present_Temperature", round(celsius))

    def slip(self, turns: int) -> None:
        """The turn counter is off by whole turns."""
        self.shaft += turns * RESOLUTION
        self.sense()

    @property
    def stiffness(self) -> float:
        """Position_P_Gain relative to the factory's."""
        return self.get("Position_P_Gain") / self.model.position_gains[0]

    @property
    def current_limited(self) -> float:
        """The share of its torque that the motor may use: Goal_Current in current-based position mode."""
        if self.get("Operating_Mode") != CURRENT_POSITION_MODE:
            return 1.0
        return min(1.0, abs(self.get("Goal_Current")) / CURRENT_LIMIT)
