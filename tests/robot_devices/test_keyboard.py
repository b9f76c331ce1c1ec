"""Keys of the terminal steer a recording."""

from __future__ import annotations

import os
import time

import pytest

from lerobot.common.robot_devices.keyboard import TerminalKeys, new_events

RIGHT = {"exit_early"}
LEFT = {"exit_early", "rerecord_episode"}
STOP = {"exit_early", "stop_recording"}


@pytest.mark.parametrize(
    "typed, expected",
    [
        (b"\x1b[C", RIGHT),
        (b"n", RIGHT),
        (b"\x1b[D", LEFT),
        (b"\x1bOD", LEFT),
        (b"R", LEFT),
        (b"\x1b", STOP),
        (b"q", STOP),
    ],
)
def test_a_key_sets_its_events(typed, expected):
    master, slave = os.openpty()
    events = new_events()
    keys = TerminalKeys(events, slave)
    os.write(master, b"x" + typed)
    deadline = time.monotonic() + 5
    while not events["exit_early"] and time.monotonic() < deadline:
        os.sched_yield()
    keys.stop()
    os.close(master)
    os.close(slave)
    assert {name for name, is_set in events.items() if is_set} == expected
