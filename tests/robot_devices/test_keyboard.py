"""Keys of the terminal steer a recording."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
from types import SimpleNamespace

import pytest

from lerobot.common.robot_devices import keyboard
from lerobot.common.robot_devices.keyboard import TerminalKeys, new_events, unechoed

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


def test_keys_are_not_shown_between_the_lines_nor_left_to_the_shell():
    master, slave = os.openpty()
    before = termios.tcgetattr(slave)
    with unechoed(slave):
        os.write(master, b"\x1b[C\n")
        assert not select.select([master], [], [], 0.05)[0]
    assert termios.tcgetattr(slave) == before
    assert not select.select([slave], [], [], 0.05)[0]
    os.close(master)
    os.close(slave)


def test_a_program_in_the_background_leaves_the_terminal_alone(monkeypatch):
    # It would be stopped by the system, with the torque on.
    master, slave = os.openpty()
    with os.fdopen(slave) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp())
        assert keyboard.has_terminal()
        monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp() + 1)
        assert not keyboard.has_terminal()
    os.close(master)


def test_letters_typed_in_another_window_steer_nothing(monkeypatch):
    class Listener:
        def __init__(self, on_press):
            self.on_press = on_press

        start = stop = lambda self: None

    fake = SimpleNamespace(keyboard=SimpleNamespace(Listener=Listener))
    monkeypatch.setitem(sys.modules, "pynput", fake)
    events = new_events()
    keys = keyboard.DesktopKeys(events)
    for letter in "nrq":
        keys._listener.on_press(SimpleNamespace(char=letter))
    assert not any(events.values())
    keys._listener.on_press(SimpleNamespace(name="left"))
    assert events["rerecord_episode"]


def test_where_a_desktop_hides_its_keys_they_are_taken_from_the_terminal(monkeypatch):
    for name, value in (("DISPLAY", ":0"), ("WAYLAND_DISPLAY", "wayland-0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(keyboard, "is_headless", lambda: pytest.fail("asked for keys that do not come"))
    monkeypatch.setattr(keyboard, "has_terminal", lambda: False)
    assert keyboard.init_keyboard_listener()[0] is None
