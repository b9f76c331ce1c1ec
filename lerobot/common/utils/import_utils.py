"""Which packages are installed, and packages that add robots, cameras or policies of their own."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import pkgutil
from typing import Any

PLUGIN_PREFIXES = (
    "lerobot_robot_",
    "lerobot_camera_",
    "lerobot_teleoperator_",
    "lerobot_policy_",
    "lerobot_env_",
)


def is_package_available(
    pkg_name: str, import_name: str | None = None, return_version: bool = False
) -> bool | tuple[bool, str]:
    """Whether a package can be imported; with `return_version` also its version ("N/A" without)."""
    found = importlib.util.find_spec(import_name or pkg_name) is not None
    if not return_version:
        return found
    try:
        return found, importlib.metadata.version(pkg_name)
    except importlib.metadata.PackageNotFoundError:
        return found, "N/A"


def require_package(pkg_name: str, extra: str | None = None, import_name: str | None = None) -> None:
    """ImportError naming the extra unless a package can be imported."""
    if not is_package_available(pkg_name, import_name):
        what = f'"[{extra}]"'.replace('"[', '".[') if extra else pkg_name
        flag = "-e " if extra else ""
        raise ImportError(f"This needs {pkg_name}: pip install {flag}{what}")


def register_third_party_plugins() -> None:
    """Import every installed top-level module named like a plugin; one that fails is named in a warning."""
    for module in pkgutil.iter_modules():
        if module.name.startswith(PLUGIN_PREFIXES):
            try:
                importlib.import_module(module.name)
            except Exception as e:  # a stranger's package must not stop this one
                logging.warning("The plugin '%s' cannot be imported: %s", module.name, e)


register_third_party_devices = register_third_party_plugins  # its name in LeRobot 0.3.4


def make_device_from_device_class(config: Any) -> Any:
    """The device of a plugin's configuration: of `MyArmConfig` the class `MyArm` beside it, or in its package.

    Raises TypeError for another name and ImportError if there is no such class.
    """
    cls = type(config)
    if not cls.__name__.endswith("Config"):
        raise TypeError(f"A device's configuration is named <Device>Config, got {cls.__name__}.")
    name, module = cls.__name__.removesuffix("Config"), cls.__module__
    package = module.rpartition(".")[0] or module
    places = [module, package, module.replace("config_", "").replace("configuration_", ""), f"{package}.{name.lower()}"]
    for place in dict.fromkeys(places):
        try:
            return getattr(importlib.import_module(place), name)(config)
        except (ModuleNotFoundError, AttributeError):
            continue
    raise ImportError(f"There is no class {name} for {module}.{cls.__name__}; looked in {', '.join(places)}.")


def __getattr__(name: str) -> bool:
    """`_<package>_available` of any package."""
    if name.startswith("_") and name.endswith("_available") and not name.startswith("__"):
        return is_package_available(name.strip("_").removesuffix("_available"))
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
