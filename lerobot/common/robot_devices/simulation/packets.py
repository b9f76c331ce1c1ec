"""Dynamixel protocol 2.0 as bytes: building packets, and finding them in a stream (ROBOTIS e-manual)."""

from __future__ import annotations

from dataclasses import dataclass

HEADER = b"\xff\xff\xfd\x00"
PING, READ, WRITE, REBOOT, CLEAR, STATUS = 0x01, 0x02, 0x03, 0x08, 0x10, 0x55
SYNC_READ, SYNC_WRITE = 0x82, 0x83
BROADCAST = 0xFE
OVERHEAD = 7  # bytes before the instruction
LONGEST = 1024


def _table() -> list[int]:
    rows = []
    for byte in range(256):
        crc = byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x8005) & 0xFFFF if crc & 0x8000 else crc << 1
        rows.append(crc)
    return rows


_CRC = _table()


def crc16(data: bytes) -> int:
    """Polynomial 0x8005, start 0, most significant bit first."""
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFFFF) ^ _CRC[crc >> 8 ^ byte]
    return crc


@dataclass(frozen=True)
class Packet:
    """One packet: id, instruction (0x55 for a status) and parameters (a status begins with its error byte)."""

    motor: int
    instruction: int
    parameters: bytes = b""

    def encode(self) -> bytes:
        """The bytes on the wire, stuffed."""
        body = (bytes([self.instruction]) + self.parameters).replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")
        head = HEADER + bytes([self.motor]) + (len(body) + 2).to_bytes(2, "little") + body
        return head + crc16(head).to_bytes(2, "little")


def status(motor: int, error: int = 0, parameters: bytes = b"") -> bytes:
    """A status packet on the wire."""
    return Packet(motor, STATUS, bytes([error]) + parameters).encode()


class PacketReader:
    """Finds packets in bytes that arrive in any pieces; damaged ones are counted and skipped."""

    def __init__(self):
        self._pending = bytearray()
        self.damaged = 0

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that these bytes complete."""
        self._pending += data
        packets = []
        while (packet := self._next()) is not None:
            packets.append(packet)
        return packets

    def _next(self) -> Packet | None:
        while True:
            start = self._pending.find(HEADER)
            if start < 0:
                del self._pending[: max(0, len(self._pending) - len(HEADER) + 1)]
                return None
            del self._pending[:start]
            if len(self._pending) < OVERHEAD:
                return None
            total = OVERHEAD + int.from_bytes(self._pending[5:7], "little")
            if not OVERHEAD + 3 <= total <= LONGEST:
                self._skip()
                continue
            if len(self._pending) < total:
                # A damaged length must not swallow what follows: a header inside ends the wait.
                if self._pending.find(HEADER, 1) > 0:
                    self._skip()
                    continue
                return None
            raw = bytes(self._pending[:total])
            if crc16(raw[:-2]) != int.from_bytes(raw[-2:], "little"):
                self._skip()
                continue
            del self._pending[:total]
            body = raw[OVERHEAD:-2].replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd")
            return Packet(raw[4], body[0], body[1:])

    def _skip(self) -> None:
        self.damaged += 1
        del self._pending[:1]
