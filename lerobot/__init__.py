"""LeRobot for the Koch arm: seven policies, one dataset format, one entrypoint."""

from lerobot import import_adapter
from lerobot.__version__ import __version__

__all__ = ["__version__"]

import_adapter.install()  # the module names of newer LeRobot releases
