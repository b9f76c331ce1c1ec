"""LeRobot for the Koch arm: seven policies, one dataset format, one entrypoint."""

from lerobot import import_adapter
from lerobot.__version__ import __version__

__all__ = ["__version__"]


def __getattr__(name: str):
    """`available_policies` and the like, looked up when they are asked for."""
    if name.startswith(("available_", "env_")):
        from lerobot import available

        return getattr(available, name)
    raise AttributeError(f"module 'lerobot' has no attribute '{name}'")


import_adapter.install()  # the module names of newer LeRobot releases
