#!/usr/bin/env python
"""Print the requirements of pyproject.toml for some extras: `requirements.py smolvla sim`.

opencv-python needs a desktop's libGL and owns the same module as opencv-python-headless, so the headless build is
printed where one is installed already or libGL is absent.
"""

import ctypes.util
import importlib.metadata
import sys
from pathlib import Path

try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib


def headless_opencv() -> bool:
    """Whether the headless build of OpenCV is the one to have here."""
    try:
        importlib.metadata.version("opencv-python-headless")
    except importlib.metadata.PackageNotFoundError:
        return sys.platform == "linux" and ctypes.util.find_library("GL") is None
    return True


def main(extras: list[str]) -> None:
    """Print one requirement a line."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    for line in dict.fromkeys(lines):
        if line.startswith("opencv-python>") and headless_opencv():
            line = line.replace("opencv-python", "opencv-python-headless", 1)
        print(line)


if __name__ == "__main__":
    main(sys.argv[1:])
