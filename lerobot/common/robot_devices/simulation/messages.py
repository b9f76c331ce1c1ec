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


class Inbox:
    """Messages as they arrive; one whose reading an exception cut off, as Ctrl-C does, is read on from there."""

    def __init__(self, link: socket.socket):
        self._link, self._data = link, bytearray()

    def receive(self) -> tuple[dict, bytearray] | None:
        """The next message, None when the other side is gone or silent; ValueError for one that is too long."""
        head = self._first(_SIZES.size)
        if head is None:
            return None
        header_size, payload_size = _SIZES.unpack(head)
        if header_size + payload_size > LONGEST:
            raise ValueError(f"A message of {header_size + payload_size} bytes: expected at most {LONGEST}.")
        begin, end = _SIZES.size + header_size, _SIZES.size + header_size + payload_size
        whole = self._first(end)
        if whole is None:
            return None
        self._data = self._data[end:]
        return json.loads(whole[_SIZES.size : begin]), whole[begin:]

    def _first(self, size: int) -> bytearray | None:
        while len(self._data) < size:
            try:
                data = self._link.recv(size - len(self._data))  # never a part of the message after it
            except (ConnectionError, TimeoutError):
                return None
            if not data:
                return None
            self._data += data
        return self._data[:size]
