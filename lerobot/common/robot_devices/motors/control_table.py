"""Registers and models of Dynamixel X servos (ROBOTIS e-manual): addresses, sizes, signs, model numbers."""

from __future__ import annotations

from dataclasses import dataclass

RESOLUTION = 4096  # steps per revolution
HALF_TURN = RESOLUTION // 2
HALF_TURN_DEGREES = 180.0

CONTROL_TABLE: dict[str, tuple[int, int]] = {  # name: (address, bytes)
    "Model_Number": (0, 2),
    "Model_Information": (2, 4),
    "Firmware_Version": (6, 1),
    "ID": (7, 1),
    "Baud_Rate": (8, 1),
    "Return_Delay_Time": (9, 1),
    "Drive_Mode": (10, 1),
    "Operating_Mode": (11, 1),
    "Secondary_ID": (12, 1),
    "Protocol_Type": (13, 1),
    "Homing_Offset": (20, 4),
    "Moving_Threshold": (24, 4),
    "Temperature_Limit": (31, 1),
    "Max_Voltage_Limit": (32, 2),
    "Min_Voltage_Limit": (34, 2),
    "PWM_Limit": (36, 2),
    "Current_Limit": (38, 2),
    "Acceleration_Limit": (40, 4),
    "Velocity_Limit": (44, 4),
    "Max_Position_Limit": (48, 4),
    "Min_Position_Limit": (52, 4),
    "Shutdown": (63, 1),
    "Torque_Enable": (64, 1),
    "LED": (65, 1),
    "Status_Return_Level": (68, 1),
    "Registered_Instruction": (69, 1),
    "Hardware_Error_Status": (70, 1),
    "Velocity_I_Gain": (76, 2),
    "Velocity_P_Gain": (78, 2),
    "Position_D_Gain": (80, 2),
    "Position_I_Gain": (82, 2),
    "Position_P_Gain": (84, 2),
    "Feedforward_2nd_Gain": (88, 2),
    "Feedforward_1st_Gain": (90, 2),
    "Bus_Watchdog": (98, 1),
    "Goal_PWM": (100, 2),
    "Goal_Current": (102, 2),
    "Goal_Velocity": (104, 4),
    "Profile_Acceleration": (108, 4),
    "Profile_Velocity": (112, 4),
    "Goal_Position": (116, 4),
    "Realtime_Tick": (120, 2),
    "Moving": (122, 1),
    "Moving_Status": (123, 1),
    "Present_PWM": (124, 2),
    "Present_Current": (126, 2),  # Present_Load on the XL430
    "Present_Velocity": (128, 4),
    "Present_Position": (132, 4),
    "Velocity_Trajectory": (136, 4),
    "Position_Trajectory": (140, 4),
    "Present_Input_Voltage": (144, 2),
    "Present_Temperature": (146, 1),
}
MOST_STEPS = 1_048_575  # of a goal, either way: 256 turns
EEPROM_END = 64  # addresses below are writable only while torque is off
FEEDBACK = (116, 147)  # the block from Goal_Position on has no gaps: any part of it can be read at once
TABLE_SIZE = 147
SIGNED = {
    "Homing_Offset",
    "Goal_PWM",
    "Goal_Current",
    "Goal_Velocity",
    "Goal_Position",
    "Present_PWM",
    "Present_Current",
    "Present_Velocity",
    "Present_Position",
}
CALIBRATED = ("Goal_Position", "Present_Position")

BAUD_RATES = (9600, 57_600, 115_200, 1_000_000, 2_000_000, 3_000_000, 4_000_000)  # by code of Baud_Rate
DEFAULT_BAUD_RATE = 1_000_000
STEPS_PER_DEGREE = RESOLUTION / 360.0
VELOCITY_UNIT = 0.229 * 6  # degrees per second of one unit of Profile_Velocity
WATCHDOG_UNIT = 0.020  # seconds of one unit of Bus_Watchdog
MOST_WATCHDOG, WATCHDOG_TRIPPED = 127, 0xFF  # units at most; what it reads (-1) once the servo has stopped by itself
ANSWER_ALL = 2  # Status_Return_Level: 0 answers a ping only, 1 also reads, 2 everything; lost with the power

POSITION_MODE, EXTENDED_POSITION_MODE, CURRENT_POSITION_MODE = 3, 4, 5
HARDWARE_ERRORS = {0: "input voltage", 2: "overheating", 3: "encoder", 4: "electrical shock", 5: "overload"}


@dataclass(frozen=True)
class MotorModel:
    """What differs between models: number, allowed supply (volts), hottest temperature (Celsius), current control."""

    number: int
    volts: tuple[float, float]
    hottest: int
    has_current: bool
    position_gains: tuple[int, int, int]  # P, I, D at the factory
    velocity_gains: tuple[int, int]  # P, I at the factory
    shutdown: int
    velocity_limit: int  # at the factory; no profile may be faster


MODELS = {
    "xl430-w250": MotorModel(1060, (6.0, 14.0), 72, False, (640, 0, 4000), (100, 1000), 52, 265),
    "xl330-m288": MotorModel(1200, (3.5, 7.0), 70, True, (400, 0, 0), (180, 1600), 53, 445),
    "xl330-m077": MotorModel(1190, (3.5, 7.0), 70, True, (400, 400, 0), (40, 400), 53, 1620),
}
MODEL_NAMES = {model.number: name for name, model in MODELS.items()}


def to_signed(value: int, size: int) -> int:
    """Two's complement of `size` bytes."""
    return value - (1 << 8 * size) if value >= 1 << (8 * size - 1) else value


def hardware_errors(bits: int) -> list[str]:
    """The names of the bits set in Hardware_Error_Status."""
    return [name for bit, name in HARDWARE_ERRORS.items() if bits >> bit & 1]
