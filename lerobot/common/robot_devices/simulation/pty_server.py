"""Servos behind pseudo-terminals: whoever opens the device path talks protocol 2.0 with them."""

from __future__ import annotations

import heapq
import os
import select
import termios
import threading
import time
import tty
from collections.abc import Callable, Sequence

from lerobot.common.robot_devices.motors.control_table import BAUD_RATES, DEFAULT_BAUD_RATE
from lerobot.common.robot_devices.simulation.faults import Faults
from lerobot.common.robot_devices.simulation.packets import (
    BROADCAST,
    CLEAR,
    PING,
    READ,
    REBOOT,
    SYNC_READ,
    SYNC_WRITE,
    WRITE,
    Packet,
    PacketReader,
    status,
)
from lerobot.common.robot_devices.simulation.servo import INSTRUCTION_ERROR, Servo

SPEEDS = {getattr(termios, f"B{rate}"): rate for rate in BAUD_RATES if hasattr(termios, f"B{rate}")}
TICK_S = 0.005
END_S = 10.0
CHUNK = 4096


class ServoBus:
    """The servos of one port: instruction packets in, status packets out.

    `on_goals` is called after a sync write that set positions, `on_instruction` before anything is read.
    """

    def __init__(self, servos: Sequence[Servo], faults: Faults | None = None):
        self.servos, self.faults = list(servos), faults or Faults()
        self.on_goals: Callable[[], None] = lambda: None
        self._reader = PacketReader()

    def receive(self, data: bytes, baud_rate: int = DEFAULT_BAUD_RATE) -> list[tuple[float, bytes]]:
        """Answers to the host's bytes as (delay in seconds, bytes); a servo set to another rate hears nothing."""
        replies = []
        for packet in self._reader.feed(self.faults.on_arrival(data)):
            for reply in self._dispatch(packet, baud_rate):
                replies += self.faults.on_reply(reply)
        return replies

    def _dispatch(self, packet: Packet, baud_rate: int) -> list[bytes]:
        present = [servo for servo in self.servos if not servo.muted and servo.baud_rate == baud_rate]
        for servo in present:
            servo.idle_s = 0.0
        if packet.instruction == SYNC_READ:
            return self._sync_read(packet.parameters, present)
        if packet.instruction == SYNC_WRITE:
            self._sync_write(packet.parameters, present)
            return []
        targets = [servo for servo in present if packet.motor in (servo.motor, BROADCAST)]
        heard = [servo.answers(packet.instruction) for servo in targets]  # a restart changes it
        replies = [reply for reply, ok in zip([self._single(s, packet) for s in targets], heard, strict=True) if ok]
        return replies if packet.motor != BROADCAST or packet.instruction == PING else []

    def _single(self, servo: Servo, packet: Packet) -> bytes:
        motor, data = servo.motor, packet.parameters
        if packet.instruction == PING:
            return status(
                motor, servo.alert, servo.get("Model_Number").to_bytes(2, "little") + bytes([servo.memory[6]])
            )
        if packet.instruction == READ:
            return status(motor, *servo.read(*_words(data)))
        if packet.instruction == WRITE:
            return status(motor, servo.write(int.from_bytes(data[:2], "little"), data[2:]))
        if packet.instruction == REBOOT:
            servo.reboot()
            return status(motor)
        if packet.instruction == CLEAR:
            return status(motor, servo.clear_turns(data))
        return status(motor, INSTRUCTION_ERROR | servo.alert)

    def _sync_read(self, data: bytes, present: list[Servo]) -> list[bytes]:
        address, length = _words(data)
        by_id = {servo.motor: servo for servo in present if servo.answers(SYNC_READ)}
        return [status(motor, *by_id[motor].read(address, length)) for motor in data[4:] if motor in by_id]

    def _sync_write(self, data: bytes, present: list[Servo]) -> None:
        address, length = _words(data)
        by_id = {servo.motor: servo for servo in present}
        rows = [data[i : i + 1 + length] for i in range(4, len(data), 1 + length)]
        before = sum(servo.goal_writes for servo in present)
        for row in rows:
            if row[0] in by_id:
                by_id[row[0]].write(address, row[1:])
        if sum(servo.goal_writes for servo in present) > before:
            self.on_goals()


def _words(data: bytes) -> tuple[int, int]:
    return int.from_bytes(data[:2], "little"), int.from_bytes(data[2:4], "little")


class PtyServer:
    """One pseudo-terminal per bus; `serve_once` moves bytes between them and the servos."""

    def __init__(self, buses: Sequence[ServoBus]):
        self.buses = list(buses)
        self._masters, self._slaves = [], []
        for _ in self.buses:
            master, slave = os.openpty()
            tty.setraw(master)
            tty.setraw(slave)  # kept open: otherwise reading fails while the host reopens the device
            os.set_blocking(master, False)
            self._masters.append(master)
            self._slaves.append(slave)
        self.paths = [os.ttyname(slave) for slave in self._slaves]
        self._late: list[tuple[float, int, int, bytes]] = []
        self._number = 0

    def serve_once(self, timeout: float, others: Sequence = ()) -> list:
        """Handle what arrives within `timeout` seconds; returns which of `others` (file-like) can be read."""
        if self._late:
            timeout = max(0.0, min(timeout, self._late[0][0] - time.monotonic()))
        ready, _, _ = select.select([*self._masters, *others], [], [], timeout)
        self._send_due()
        for handle in ready:
            if handle in self._masters:
                index = self._masters.index(handle)
                for delay, reply in self.buses[index].receive(self._read(handle), self._rate(index)):
                    self._send(index, delay, reply)
        return [handle for handle in ready if handle not in self._masters]

    def unplug(self, index: int) -> None:
        """Close a terminal: the host sees its device disappear."""
        os.close(self._masters[index])
        os.close(self._slaves[index])
        self._masters[index] = self._slaves[index] = -1
        self._masters = [handle for handle in self._masters if handle >= 0]

    def close(self) -> None:
        """Close every terminal."""
        for handle in (*self._masters, *self._slaves):
            if handle >= 0:
                os.close(handle)
        self._masters, self._slaves = [], []

    def _rate(self, index: int) -> int:
        """The rate that the host has set, in baud."""
        return SPEEDS.get(termios.tcgetattr(self._slaves[index])[4], 0)

    def _read(self, handle: int) -> bytes:
        try:
            return os.read(handle, CHUNK)
        except OSError:
            return b""

    def _send(self, index: int, delay: float, data: bytes) -> None:
        if delay > 0:
            self._number += 1
            heapq.heappush(self._late, (time.monotonic() + delay, self._number, index, data))
        else:
            self._put(index, data)

    def _send_due(self) -> None:
        now = time.monotonic()
        while self._late and self._late[0][0] <= now:
            _, _, index, data = heapq.heappop(self._late)
            self._put(index, data)

    def _put(self, index: int, data: bytes) -> None:
        try:
            os.write(self._masters[index], data)
        except BlockingIOError:  # nobody reads: the terminal's buffer is full, as a serial line would overrun
            return


class ServoThread:
    """A `PtyServer` in a thread of this process, for tests and `mock` buses; servos move in real time."""

    def __init__(self, servos: Sequence[Sequence[Servo]], faults: Faults | None = None):
        self.servos = [list(chain) for chain in servos]
        self.buses = [ServoBus(chain, faults) for chain in self.servos]
        self.server = PtyServer(self.buses)
        self.paths = self.server.paths
        self.lock = threading.Lock()  # held while packets and time change the servos
        self._running = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and remove the terminals."""
        self._running = False
        self._thread.join(END_S)
        self.server.close()

    def __enter__(self) -> ServoThread:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _run(self) -> None:
        last = time.monotonic()
        while self._running:
            with self.lock:
                self.server.serve_once(TICK_S)
                now = time.monotonic()
                for chain in self.servos:
                    for servo in chain:
                        servo.tick(now - last)
                last = now
