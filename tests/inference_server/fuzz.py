"""Messages that are damaged in every way that comes to mind, from a seed."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import msgpack
import numpy as np

from lerobot.common.inference_server import wire

STATE = {"observation.state": [np.zeros(6, np.float32)]}
OBSERVE = wire.encode("observe", sequence=1, task="pick", observation=STATE, continues=None, noise=None)
CHUNK = wire.encode(
    "chunk", sequence=1, actions=np.zeros((10, 6), np.float32), planned=None, milliseconds={"model": 1.0}
)
ROBOT = {"type": "koch", "cameras": {"observation.images.a": [48, 64, 3]}, "joints": ["a", "b"], "low": [-9.0, -9.0]}
HELLO = wire.encode(
    "hello",
    client="me",
    arms=["a"],
    checkpoint="",
    task="",
    robot={**ROBOT, "high": [9.0] * 2, "fps": 30.0, "units": ""},
)
PREFIX = wire.PREFIX.pack(wire.MAGIC, wire.VERSION)


def malformed(count: int, seed: int) -> Iterator[bytes]:
    """Random bytes, damaged messages, wrong types and fields, absurd lengths, deep nests, pickles."""
    random = np.random.default_rng(seed)
    ways = (_noise, _prefixed_noise, _flipped, _cut, _swapped, _lengths, _nest, _pickle, _header)
    for _ in range(count):
        yield ways[random.integers(len(ways))](random)


def _noise(random) -> bytes:
    return random.bytes(int(random.integers(0, 300)))


def _prefixed_noise(random) -> bytes:
    return PREFIX + random.bytes(int(random.integers(0, 300)))


def _message(random) -> bytes:
    return (OBSERVE, CHUNK, HELLO)[random.integers(3)]


def _flipped(random) -> bytes:
    data = bytearray(_message(random))
    for _ in range(random.integers(1, 9)):
        data[random.integers(4, len(data) // 3)] ^= int(random.integers(1, 256))
    return bytes(data)


def _cut(random) -> bytes:
    data = _message(random)
    return data[: random.integers(len(data))]


def _swapped(random) -> bytes:
    fields = msgpack.unpackb(_message(random)[wire.PREFIX.size :])
    values = [None, -1, 2**63, float("nan"), float("inf"), "x" * 10_000, b"x", [], {}, [[]] * 200, True, {"shape": [9]}]
    key = list(fields)[random.integers(len(fields))]
    name = key if random.integers(2) else "extra"
    return PREFIX + msgpack.packb({**fields, name: values[random.integers(len(values))]})


def _lengths(random) -> bytes:
    tag = (b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9")[random.integers(5)]
    return PREFIX + tag + random.bytes(4) + random.bytes(20)


def _nest(random) -> bytes:
    return PREFIX + (b"\x91", b"\x81\xa1a", b"\xdc\x00\x7f")[random.integers(3)] * int(random.integers(1, 5000))


def _pickle(random) -> bytes:
    data = pickle.dumps({"kind": "observe", "data": print}, int(random.integers(6)))
    return data if random.integers(2) else PREFIX + data


def _header(random) -> bytes:
    return wire.PREFIX.pack(random.bytes(4), int(random.integers(65536))) + OBSERVE[wire.PREFIX.size :]
