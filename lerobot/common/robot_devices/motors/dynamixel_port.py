"""Transactions with Dynamixel servos through the official SDK: every reply is known to answer its own question.

A status packet says which servo sent it but not which register, so a reply that comes too late looks like the answer to
the next question. Two measures: what is left in the input is discarded before each question, and questions about a
register of the loop ask for a block around it whose length belongs to that register alone and changes from question to
question; the length of one that stayed without an answer is not used again until its answer cannot come any more.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from lerobot.common.robot_devices.motors.control_table import FEEDBACK
from lerobot.common.robot_devices.utils import DeviceError, DeviceNotConnectedError

try:
    import termios

    GONE = (OSError, termios.error)  # what the serial library raises when the device was unplugged
except ImportError:  # Windows
    GONE = (OSError,)

STALE_S = 0.25  # an answer later than this does not come,
SILENT_S = 1.0  # unless nothing is answered at all: a bus that stalled says all it owes when it goes on
TWICE_S = 0.02  # an answer that comes a second time comes within this
# Registers read in the loop: address -> remainder modulo 4 of the lengths of blocks around it.
TAGGED = {116: 0, 132: 1, 126: 2, 144: 3}
SEND_S = 1.0  # an adapter that takes no byte for this long is gone
MOST_STALE = 64  # answers to other questions in one transaction, before it counts as lost
PATIENCE_S = 0.0  # beyond the SDK's about 35 ms for an answer: the tests' servos share the processor with everything
POLL_S = 0.001  # the SDK polls; letting the serial library wait this long spares the processor
MOST_BYTES = 255  # asked of the SDK, which would cut a longer reply to the expected size unseen
CRC_BYTES = 2
ALERT = 0x80
ERROR_NAMES = {
    1: "the instruction failed",
    2: "unknown instruction",
    3: "damaged packet",
    4: "value out of the register's range",
    5: "wrong data length",
    6: "value beyond a limit register",
    7: "register not writable now (torque on, or it does not exist in this model)",
}


@dataclass
class BusCounters:
    """What happened on a bus since it was opened."""

    transactions: int = 0
    retries: int = 0
    timeouts: int = 0
    corrupt: int = 0
    stale: int = 0  # replies to an earlier question, refused
    failures: int = 0  # transactions given up
    by_motor: dict[int, int] = field(default_factory=dict)  # id -> tries that it spoiled

    def to_dict(self) -> dict:
        """JSON values."""
        return asdict(self)


class _LostReplyError(Exception):
    def __init__(self, motor: int | None, reason: str):
        super().__init__(reason)
        self.motor, self.reason = motor, reason


def import_sdk():
    """The SDK's module; ImportError names the extra."""
    try:
        import dynamixel_sdk
    except ImportError as e:
        raise ImportError('A Dynamixel arm needs the dynamixel-sdk: pip install -e ".[koch]"') from e
    return dynamixel_sdk


class DynamixelPort:
    """One open serial port with servos that speak protocol 2.0; raises ConnectionError when tries are used up."""

    def __init__(self, path: str, baud_rate: int):
        self.path, self.baud_rate = path, baud_rate
        self.counters = BusCounters()
        self.alerts: set[int] = set()  # ids whose last status packet reported a hardware error
        self._sdk = import_sdk()
        self._handler = self._sdk.PacketHandler(2.0)
        self._port = None
        self._tags = {address: deque(_lengths(address, tag)) for address, tag in TAGGED.items()}
        self._unanswered: dict[int, float] = {}  # length of a block -> when it was asked for
        self._received: dict[int, float] = {}  # length of a block -> when it came
        self._asked = self._answered = 0.0  # when the last tagged question was put, and the last answered one
        self._last_failure = -STALE_S

    # -- opening -------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the device; ConnectionError says what is wrong with it and what to do."""
        port = self._sdk.PortHandler(self.path)
        try:
            if not port.setBaudRate(self.baud_rate):
                raise ValueError(f"--baud_rate={self.baud_rate} is not a rate that the SDK knows.")
        except OSError as e:
            raise ConnectionError(_why_not_opened(self.path, e)) from e
        port.ser.timeout, port.ser.write_timeout = POLL_S, SEND_S
        if PATIENCE_S:
            by_length = port.setPacketTimeout
            port.setPacketTimeout = lambda length: _wait_longer(port, by_length, length)
        self._port = port

    def close(self) -> None:
        """Close the device; nothing if it is closed."""
        if self._port is not None:
            self._port.closePort()
            self._port = None

    @property
    def is_open(self) -> bool:
        """Whether the device is open."""
        return self._port is not None

    def set_baud_rate(self, baud_rate: int) -> None:
        """Reopen the device at another rate."""
        self.close()
        self.baud_rate = baud_rate
        self.open()

    # -- transactions --------------------------------------------------------------------------------------------

    def ping(self, motor: int, tries: int = 2) -> int | None:
        """The model number of a servo, None if it does not answer."""
        try:
            return self._retry(lambda: self._ping(motor), tries, f"ping of motor {motor}", settle=True)
        except ConnectionError:
            self._require_open()
            return None

    def sync_read(self, address: int, size: int, motors: Sequence[int], tries: int = 10) -> list[bytes]:
        """`size` bytes at `address` of every servo, in the order of `motors`."""
        hot = address in TAGGED
        what = f"reading address {address} of motors {list(motors)}"
        return self._retry(lambda: self._sync_read(address, size, motors, hot), tries, what, settle=not hot)

    def sync_write(self, address: int, size: int, values: dict[int, int]) -> None:
        """Set a register of several servos at once; they do not answer, so nothing tells whether it arrived."""
        with self._transaction() as port:
            group = self._sdk.GroupSyncWrite(port, self._handler, address, size)
            for motor, value in values.items():
                group.addParam(motor, to_bytes(value, size))
            result = group.txPacket()
        if result != self._sdk.COMM_SUCCESS:
            self.counters.failures += 1
            raise ConnectionError(
                f"Port '{self.path}': a goal could not be sent ({self._handler.getTxRxResult(result)})."
            )

    def write(self, motor: int, address: int, size: int, value: int, tries: int = 10, settle: bool = True) -> None:
        """Set a register of one servo and wait for its acknowledgement; RuntimeError if the servo refuses.

        With `settle`, a try after a lost answer waits until that answer cannot come any more.
        """
        what = f"writing address {address} of motor {motor}"
        error = self._retry(lambda: self._write(motor, address, size, value), tries, what, settle)
        if error & ~ALERT:
            raise DeviceError(f"Motor {motor} refused {value} for address {address}: {ERROR_NAMES[error & ~ALERT]}.")

    def reboot(self, motor: int) -> None:
        """Restart a servo, which clears its hardware error; torque is off afterwards."""
        self._retry(lambda: self._reboot(motor), 3, f"reboot of motor {motor}", settle=True)

    # -- one try -------------------------------------------------------------------------------------------------

    def _ping(self, motor: int) -> int:
        with self._transaction() as port:
            model, result, _ = self._handler.ping(port, motor)
        self._check(result, motor)
        return model

    def _write(self, motor: int, address: int, size: int, value: int) -> int:
        with self._transaction() as port:
            result, error = self._handler.writeTxRx(port, motor, address, size, to_bytes(value, size))
        self._check(result, motor)
        self._note_alert(motor, error)
        return error

    def _reboot(self, motor: int) -> None:
        with self._transaction() as port:
            result, _ = self._handler.reboot(port, motor)
        self._check(result, motor)
        self.alerts.discard(motor)

    def _sync_read(self, address: int, size: int, motors: Sequence[int], hot: bool) -> list[bytes]:
        start, length = self._window(address) if hot else (address, size)
        with self._transaction() as port:
            group = self._sdk.GroupSyncRead(port, self._handler, start, length)
            for motor in motors:
                group.addParam(motor)
            self._check(group.txPacket(), None)
            blocks = [self._receive(port, motor, length) for motor in motors]
        if hot:
            self._unanswered.pop(length, None)
            self._answered, self._received[length] = self._asked, time.monotonic()
        return [block[address - start : address - start + size] for block in blocks]

    def _window(self, address: int) -> tuple[int, int]:
        """Start and length of a block around a register, of a length to which no other answer can still come."""
        lengths = self._tags[address]
        while True:
            now = time.monotonic()
            for _ in range(len(lengths)):
                lengths.rotate(-1)
                twice = now - self._received.get(lengths[0], -TWICE_S) < TWICE_S
                if not twice and self._cannot_come(self._unanswered.get(lengths[0], -SILENT_S), now):
                    self._unanswered[lengths[0]] = self._asked = now
                    return min(address, FEEDBACK[1] - lengths[0]), lengths[0]
            time.sleep(POLL_S)

    def _cannot_come(self, asked: float, now: float) -> bool:
        """Whether no answer to a question of that moment can be on its way: a later one was answered, time went by."""
        return now - asked >= (STALE_S if asked < self._answered else SILENT_S)

    def _receive(self, port, motor: int, length: int) -> bytes:
        for _ in range(MOST_STALE):
            data, result, error = self._handler.readRx(port, motor, MOST_BYTES)
            self._check(result, motor)
            if len(data) == length + CRC_BYTES and not error & ~ALERT:
                self._note_alert(motor, error)
                return bytes(data[:length])
            self.counters.stale += 1
        raise _LostReplyError(motor, f"{MOST_STALE} answers to other questions")

    # -- shared --------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self):
        port = self._require_open()
        try:
            port.ser.reset_input_buffer()
            yield port
        except GONE as e:
            raise ConnectionError(f"Port '{self.path}' is gone ({e}): check the cable and the adapter.") from e
        finally:
            port.is_using = False  # the SDK leaves it set when a transaction is interrupted

    def _require_open(self):
        if self._port is None:
            raise DeviceNotConnectedError(f"Port '{self.path}' is not open; call connect() first.")
        return self._port

    def _check(self, result: int, motor: int | None) -> None:
        if result != self._sdk.COMM_SUCCESS:
            timeout = result == self._sdk.COMM_RX_TIMEOUT
            self.counters.timeouts += timeout
            self.counters.corrupt += not timeout
            raise _LostReplyError(motor, "no answer" if timeout else "a damaged answer")

    def _note_alert(self, motor: int, error: int) -> None:
        (self.alerts.add if error & ALERT else self.alerts.discard)(motor)

    def _retry(self, attempt, tries: int, what: str, settle: bool):
        self.counters.transactions += 1
        for number in range(tries):
            self.counters.retries += number > 0
            if settle:
                time.sleep(max(0.0, self._last_failure + STALE_S - time.monotonic()))
            try:
                return attempt()
            except _LostReplyError as e:
                lost = e
                self._last_failure = time.monotonic()
                if e.motor is not None:
                    self.counters.by_motor[e.motor] = self.counters.by_motor.get(e.motor, 0) + 1
        self.counters.failures += 1
        who = "" if lost.motor is None else f" from motor {lost.motor}"
        raise ConnectionError(
            f"Port '{self.path}': {lost.reason}{who} after {tries} tries ({what}). Check its cable and power; "
            "the motors before it in the chain still answer."
        )


def _wait_longer(port, by_length, length: int) -> None:
    by_length(length)
    port.setPacketTimeoutMillis(port.packet_timeout + 1000 * PATIENCE_S)


def _lengths(address: int, tag: int) -> list[int]:
    """Lengths of blocks around a tagged register, inside the feedback block."""
    size = 3 if address == 144 else 4 if tag < 2 else 2  # 144: supply and temperature together
    return [n for n in range(size, FEEDBACK[1] - FEEDBACK[0] + 1) if n % 4 == tag]


def to_bytes(value: int, size: int) -> list[int]:
    """Little-endian bytes of the low bits of a number; negative ones wrap."""
    return list((int(value) & (1 << 8 * size) - 1).to_bytes(size, "little"))


def available_ports() -> list[str]:
    """The serial devices of this machine."""
    from serial.tools import list_ports

    return sorted(port.device for port in list_ports.comports())


def _why_not_opened(path: str, error: OSError) -> str:
    text = str(error)
    if "Permission denied" in text:
        return (
            f"No permission to open '{path}'. Linux: sudo usermod -aG dialout $USER, then log in again (once), "
            f"or sudo chmod 666 {path} (until it is unplugged)."
        )
    if "could not open port" in text and "No such file" in text:
        found = ", ".join(available_ports()) or "none"
        return (
            f"There is no device '{path}'; serial ports found: {found}. Set the right one with --robot.follower_port "
            "or --robot.leader_port (two pairs: in --robot.follower_arms, --robot.leader_arms; a motor alone: --port), "
            "or use the simulated arm: --robot.type=koch_sim."
        )
    return f"'{path}' cannot be opened ({text}): is another program using it, and is it a serial port?"
