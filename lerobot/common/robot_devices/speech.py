"""Saying what happens, where the system can speak."""

from __future__ import annotations

import logging
import platform
import shutil
import subprocess

LONGEST_S = 5.0


def say(text: str, blocking: bool = False) -> None:
    """Speak a sentence; without a speech program, nothing happens."""
    command = _command(text, blocking)
    if command is None or shutil.which(command[0]) is None:
        return
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if blocking:
        try:
            process.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            process.kill()


def log_say(text: str, play_sounds: bool = True, blocking: bool = False) -> None:
    """Log a sentence and speak it."""
    logging.info(text)
    if play_sounds:
        say(text, blocking)


def _command(text: str, blocking: bool) -> list[str] | None:
    system = platform.system()
    if system == "Darwin":
        return ["say", text]
    if system == "Linux":
        return ["spd-say", text, *(["--wait"] if blocking else [])]
    if system == "Windows":
        quoted = text.replace("'", "''")
        speak = f"(New-Object -ComObject SAPI.SpVoice).Speak('{quoted}')"
        return ["powershell", "-Command", speak]
    return None
