"""Faults of a servo bus and of single servos, injected at random with a seed or by hand."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from lerobot.common.robot_devices.motors.control_table import BAUD_RATES

# What can be wrong with one servo -> what it does with a value.
SERVO_FAULTS = {
    "vanish": lambda servo, value: setattr(servo, "muted", True),
    "return": lambda servo, value: setattr(servo, "muted", False),
    "stuck": lambda servo, value: setattr(servo, "stuck", True),
    "free": lambda servo, value: setattr(servo, "stuck", False),
    "noise": lambda servo, value: setattr(servo, "noise_steps", int(value)),  # steps of its encoder, either way
    "restart": lambda servo, value: servo.reboot(),
    "trip": lambda servo, value: servo.trip(int(value)),  # bit of Hardware_Error_Status
    "volts": lambda servo, value: servo.set_volts(value),
    "celsius": lambda servo, value: servo.set_celsius(value),
    "slip": lambda servo, value: servo.slip(int(value)),  # turns
    "model": lambda servo, value: servo.set("Model_Number", int(value)),
    "id": lambda servo, value: servo.set("ID", int(value)),
    "baud": lambda servo, value: servo.set("Baud_Rate", BAUD_RATES.index(int(value))),
    "answers": lambda servo, value: servo.set("Status_Return_Level", int(value)),
    "drive_mode": lambda servo, value: servo.set("Drive_Mode", int(value)),
    "offset": lambda servo, value: servo.set("Homing_Offset", int(value)),
}


def inject(servo, kind: str, value: float = 0.0) -> None:
    """Make something wrong with a servo; ValueError for a kind that is not in `SERVO_FAULTS`."""
    if kind not in SERVO_FAULTS:
        raise ValueError(f"fault '{kind}': expected one of {', '.join(SERVO_FAULTS)}.")
    SERVO_FAULTS[kind](servo, value)


@dataclass
class Faults:
    """Probabilities per packet: lost, late (by `late_s`), damaged, sent twice. `counts` says how many were injected."""

    lost: float = 0.0
    late: float = 0.0
    corrupt: float = 0.0
    duplicate: float = 0.0
    late_s: float = 0.06
    seed: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self):
        self._random = random.Random(self.seed)

    @classmethod
    def evenly(cls, rate: float, seed: int = 0) -> Faults:
        """The four kinds together at `rate`."""
        return cls(*[rate / 4] * 4, seed=seed)

    def on_arrival(self, data: bytes) -> bytes:
        """What of the host's bytes reaches the servos: lost or damaged ones as well."""
        draw = self._random.random()
        if draw < self.lost:
            return self._count("lost_instruction", b"")
        if draw < self.lost + self.corrupt:
            return self._count("corrupt_instruction", self._damage(data))
        return data

    def on_reply(self, data: bytes) -> list[tuple[float, bytes]]:
        """(delay in seconds, bytes) of what the host gets in place of one status packet."""
        draw = self._random.random()
        for name in ("lost", "late", "corrupt", "duplicate"):
            rate = getattr(self, name)
            if draw < rate:
                return self._count(name, getattr(self, f"_{name}")(data))
            draw -= rate
        return [(0.0, data)]

    def _lost(self, data: bytes) -> list[tuple[float, bytes]]:
        return []

    def _late(self, data: bytes) -> list[tuple[float, bytes]]:
        return [(self._random.uniform(0.2, 1.0) * self.late_s, data)]

    def _corrupt(self, data: bytes) -> list[tuple[float, bytes]]:
        return [(0.0, self._damage(data))]

    def _duplicate(self, data: bytes) -> list[tuple[float, bytes]]:
        return [(0.0, data), (self._random.choice((0.0, self.late_s / 4)), data)]

    def _damage(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self._random.randint(1, 2)):
            changed[self._random.randrange(len(changed))] ^= self._random.randint(1, 255)
        return bytes(changed)

    def _count(self, name: str, value):
        self.counts[name] = self.counts.get(name, 0) + 1
        return value
