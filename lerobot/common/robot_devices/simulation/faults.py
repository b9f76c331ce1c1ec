"""Faults of a servo bus, injected at random with a seed or by hand."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


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
