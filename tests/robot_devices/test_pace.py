"""The live line, and what the log does to it."""

from __future__ import annotations

import io
import logging
import os
import re
from types import SimpleNamespace

from lerobot.common.robot_devices.pace import CLEAR_LINE, LiveLine, Pace


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_message_of_the_log_stands_on_a_line_of_its_own():
    terminal = Terminal()
    handler = logging.StreamHandler(terminal)
    logging.getLogger().addHandler(handler)
    camera = SimpleNamespace(age_ms=12.0)
    line, pace = LiveLine(SimpleNamespace(cameras={"laptop": camera}, envelopes={}), terminal), Pace(30)
    try:
        line.show(pace)
        logging.warning("the arm holds")
        line.show(pace)
        line.end()
        logging.warning("over")
    finally:
        logging.getLogger().removeHandler(handler)
    shown = re.sub(f"({re.escape(CLEAR_LINE)})+", "<clear>", terminal.getvalue())  # once per handler of the log
    assert shown == "<clear>laptop 12 ms<clear>the arm holds\n<clear>laptop 12 ms\nover\n"
    assert not handler.filters


def test_the_line_never_wraps(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(terminal, "fileno", lambda: 7, raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((20, 5)))
    cameras = {name: SimpleNamespace(age_ms=12.0) for name in ("laptop", "phone", "wrist")}
    LiveLine(SimpleNamespace(cameras=cameras, envelopes={}), terminal).show(Pace(30))
    assert terminal.getvalue() == CLEAR_LINE + "laptop 12 ms phone 12 ms"[:19]


def test_a_long_run_needs_no_more_memory_and_forgets_no_worst_tick(monkeypatch):
    monkeypatch.setattr("lerobot.common.robot_devices.pace.KEPT", 100)
    pace, now = Pace(30), 0.0
    for number in range(1001):
        pace.tick(now, 0.01)
        now += 0.5 if number == 3 else 0.02 if number < 900 else 0.04
    assert pace.summary() == {"ticks": 1001, "mean_hz": 44.48, "worst_hz": 2.0, "p99_ms": 40.0, "late": 0}
    assert max(len(kept) for kept in vars(pace).values() if hasattr(kept, "__len__")) == 100
