"""Messages between the twin's process and the program that controls the arm: a JSON header and raw bytes."""

from __future__ import annotations

import json
import socket
import struct

_SIZES = struct.Struct("<II")
LONGEST = 1 << 26


def send_message(link: socket.socket, header: dict, payload: bytes = b"") -> None:
    """One message."""
    text = json.dumps(header).encode()
    link.sendall(_SIZES.pack(len(text), len(payload)) + text + payload)


def receive_message(link: socket.socket) -> tuple[dict, bytearray] | None:
    """The next message, None when the other side is gone; ValueError for one that is too long."""
    head = _receive(link, _SIZES.size)
    if head is None:
        return None
    header_size, payload_size = _SIZES.unpack(head)
    if header_size + payload_size > LONGEST:
        raise ValueError(f"A message of {header_size + payload_size} bytes: expected at most {LONGEST}.")
    text, payload = _receive(link, header_size), _receive(link, payload_size)
    return None if text is None or payload is None else (json.loads(text), payload)


def _receive(link: socket.socket, size: int) -> bytearray | None:
    data, done = bytearray(size), 0
    while done < size:
        try:
            count = link.recv_into(memoryview(data)[done:])
        except (ConnectionError, TimeoutError):
            return None
        if not count:
            return None
        done += count
    return data
