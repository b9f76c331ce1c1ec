"""The keys that steer a recording: arrows and Escape, from the desktop or from the terminal."""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
from contextlib import contextmanager, suppress

KEYS = {"right": "next", "n": "next", "left": "redo", "r": "redo", "esc": "stop", "q": "stop"}
SEQUENCES = {"[C": "right", "OC": "right", "[D": "left", "OD": "left"}
HINT = "Keys: right arrow (n) ends this phase and keeps, left (r) records again, Escape (q) stops after this episode."
POLL_S = 0.1
ESCAPE_S = 0.02  # a lone Escape is not followed by more within this time


def new_events() -> dict[str, bool]:
    """What a key press sets."""
    return {"exit_early": False, "rerecord_episode": False, "stop_recording": False}


def press(events: dict[str, bool], key: str) -> None:
    """Right or n: end the phase. Left or r: record the episode again. Escape or q: stop after this episode."""
    action = KEYS.get(key.lower())
    if action is None:
        return
    logging.info({"next": "On to the next.", "redo": "Record it again.", "stop": "Stop recording."}[action])
    events["rerecord_episode"] |= action == "redo"
    events["stop_recording"] |= action == "stop"
    events["exit_early"] = True


class TerminalKeys:
    """Reads single keys of the controlling terminal; it is as before after `stop`."""

    def __init__(self, events: dict[str, bool], terminal: int | None = None):
        import termios
        import tty

        self._events, self._fd = events, sys.stdin.fileno() if terminal is None else terminal
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd, termios.TCSANOW)  # draining would wait for a terminal that was stopped by Ctrl-S
        termios.tcflush(self._fd, termios.TCIFLUSH)
        self._running = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Give the terminal back."""
        import termios

        self._running = False
        self._thread.join(10 * POLL_S)
        with suppress(termios.error):  # the terminal was closed
            termios.tcsetattr(self._fd, termios.TCSANOW, self._before)

    def _run(self) -> None:
        while self._running:
            key = self._next(POLL_S)
            if key == "\x1b":  # an arrow sends more at once, the Escape key nothing
                rest = self._next(ESCAPE_S) and self._last + self._next(ESCAPE_S)
                key = SEQUENCES.get(rest, "") if rest else "esc"
            press(self._events, key)

    def _next(self, timeout: float) -> str:
        ready, _, _ = select.select([self._fd], [], [], timeout)
        self._last = os.read(self._fd, 1).decode(errors="replace") if ready else ""
        return self._last


class DesktopKeys:
    """Listens to the whole desktop, where pynput can: to arrows and Escape, for letters are typed elsewhere as well."""

    def __init__(self, events: dict[str, bool]):
        from pynput import keyboard

        self._listener = keyboard.Listener(on_press=lambda key: press(events, getattr(key, "name", None) or ""))
        self._listener.start()

    def stop(self) -> None:
        """End listening."""
        self._listener.stop()


def is_headless() -> bool:
    """Whether key presses cannot be taken from a desktop."""
    try:
        import pynput.keyboard  # noqa: F401
    except Exception:  # pynput raises its backend's own errors where there is no display
        return True
    return False


def has_desktop() -> bool:
    """Whether a window can be opened."""
    named = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(named) or sys.platform in ("darwin", "win32")


def is_wayland() -> bool:
    """Whether the desktop keeps keys from all but the window that has the focus."""
    session = os.environ.get("XDG_SESSION_TYPE", "")
    return bool(os.environ.get("WAYLAND_DISPLAY")) or session.lower() == "wayland"


def has_terminal() -> bool:
    """Whether keys can be taken from the terminal; one that touched it from the background would be stopped."""
    if sys.stdin is None or not sys.stdin.isatty():
        return False
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return False


@contextmanager
def unechoed(terminal: int | None = None):
    """What is typed meanwhile is not shown between the lines, and the shell does not get it afterwards."""
    if terminal is None:
        if not has_terminal() or sys.platform == "win32":
            yield
            return
        terminal = sys.stdin.fileno()
    import termios

    before = termios.tcgetattr(terminal)
    silent = termios.tcgetattr(terminal)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, silent)
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal was closed
            termios.tcflush(terminal, termios.TCIFLUSH)
            termios.tcsetattr(terminal, termios.TCSANOW, before)


def init_keyboard_listener():
    """(listener or None, events): the desktop's keys, else the terminal's, else none."""
    events = new_events()
    if has_desktop() and not is_wayland() and not is_headless():
        return DesktopKeys(events), events
    if has_terminal():
        return TerminalKeys(events), events
    logging.warning("No keyboard: episodes end by their time only.")
    return None, events
