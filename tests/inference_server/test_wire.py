"""Messages: what goes in comes out, and nothing else is read."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest

pytest.importorskip("msgpack")

import msgpack

from lerobot.common.inference_server import pictures, wire
from tests.inference_server.fuzz import CHUNK, OBSERVE, malformed

COUNT = 400


def test_a_message_survives_the_way():
    actions = np.arange(12, dtype=np.float32).reshape(2, 6)
    kind, fields = wire.decode(
        wire.encode("chunk", sequence=3, actions=actions, planned=None, milliseconds={"model": 1.5})
    )
    assert kind == "chunk" and fields["sequence"] == 3 and fields["milliseconds"] == {"model": 1.5}
    np.testing.assert_array_equal(fields["actions"], actions)


def test_arrays_of_other_types_are_not_sent():
    with pytest.raises(wire.WireError, match="float64"):
        wire.encode("chunk", sequence=0, actions=np.zeros((2, 6)), planned=None, milliseconds={})


@pytest.mark.parametrize("shape, size", [([2, 6], 44), ([3, 6], 48), ([0, 6], 0), ([-1, 6], 48), ([65536] * 5, 48)])
def test_an_array_whose_bytes_do_not_fill_its_shape_is_refused(shape, size):
    actions = {"dtype": "f4", "shape": shape, "data": b"\0" * size}
    with pytest.raises(wire.WireError):
        wire.decode(wire.encode("chunk", sequence=0, actions=actions, planned=None, milliseconds={}))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(wire.WireError, match="NaN"):
        wire.decode(
            wire.encode("chunk", sequence=0, actions=np.full((1, 6), value, np.float32), planned=None, milliseconds={})
        )


def test_fields_too_many_too_few_and_of_another_type_are_refused():
    for fields in ({}, {"sequence": 1, "more": 2}, {"sequence": "1"}, {"sequence": True}, {"sequence": -1}):
        with pytest.raises(wire.WireError):
            wire.decode(wire.encode("ping", **fields))


def test_a_pickle_is_refused():
    for protocol in range(6):
        with pytest.raises(wire.WireError, match="Pickles"):
            wire.decode(pickle.dumps({"kind": "ping", "sequence": 1}, protocol))
    with pytest.raises(wire.WireError):
        wire.decode(wire.PREFIX.pack(wire.MAGIC, wire.VERSION) + pickle.dumps([1]))


def test_a_length_without_its_bytes_takes_no_memory():
    prefix = wire.PREFIX.pack(wire.MAGIC, wire.VERSION)
    bombs = [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"]
    bombs += [b"\xdc\x00\x80" * 20_000, msgpack.packb(msgpack.ExtType(5, b"x" * 100)), b"\x91" * 100_000]
    tracemalloc.start()
    for bomb in bombs:
        with pytest.raises(wire.WireError):
            wire.decode(prefix + bomb)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_malformed_messages_are_refused_and_nothing_else():
    refused = 0
    for data in malformed(COUNT, seed=1):
        try:
            wire.decode(data)
        except wire.WireError:
            refused += 1
    assert refused > 0.9 * COUNT  # a changed digit of a picture may still be a message
    assert wire.decode(OBSERVE)[0] == "observe" and wire.decode(CHUNK)[0] == "chunk"


def test_a_picture_comes_back_and_one_of_another_size_is_not_decoded():
    picture = np.full((24, 32, 3), (200, 100, 0), np.uint8)
    sent = pictures.encode(picture)
    assert np.abs(pictures.decode(sent, "laptop").astype(int) - picture).max() <= 4
    for change in ({"shape": [48, 32, 3]}, {"jpeg": sent["jpeg"][:60]}, {"jpeg": b"\x89PNG" * 9}):
        with pytest.raises(wire.WireError, match="laptop"):
            pictures.decode({**sent, **change}, "laptop")
