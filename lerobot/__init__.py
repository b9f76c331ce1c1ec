"""LeRobot for the Koch arm: seven policies, one dataset format, one entrypoint."""

from lerobot.__version__ import __version__

__all__ = ["__version__"]
