"""Module names of newer LeRobot releases (`lerobot.policies...`), served as the modules of this package.

The tables of `import_tables.py` say which module or object a name means here; both names give one object, so classes
and registries exist once. A module that has only names of other modules is made of them. Nothing is imported before it
is asked for. An unknown name is an ImportError that says what the nearest existing name is.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from lerobot.import_tables import ABSENT, ELSEWHERE, MODULES, NAMES


def install() -> None:
    """Make the names importable; called by `lerobot/__init__.py`."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
        sys.meta_path.append(_LastFinder())


def here(name: str) -> str:
    """The module of this package that a module name means; names without a row mean themselves."""
    head, tail = name, ""
    while head:
        if head in _TABLE:
            return _TABLE[head] + tail
        head, _, leaf = head.rpartition(".")
        tail = f".{leaf}{tail}"
    return name


def _make_table() -> dict[str, str]:
    """MODULES, with every row inside a mapped package also under the package's name here.

    `from lerobot.processor import device_processor` asks for `lerobot.common.processor.device_processor`,
    since that is the name of the package's module object.
    """
    table = dict(MODULES)
    for name, module in MODULES.items():
        package, _, leaf = name.rpartition(".")
        table.setdefault(f"{MODULES.get(package, package)}.{leaf}", module)
    return table


_TABLE = _make_table()
_PACKAGES = {name.rpartition(".")[0] for name in [*_TABLE, *NAMES]}


def offered() -> dict[str, dict[str, tuple[str, str]]]:
    """Module -> name -> (module where it stands, its name there)."""
    table: dict[str, dict[str, tuple[str, str]]] = {}
    for module, sources in NAMES.items():
        names = table.setdefault(here(module), {})
        for source, words in sources.items():
            for word in words.split():
                new, _, old = word.partition("=")
                names[new] = (source, old or new)
    return table


_OFFERED = offered()


class _Finder(MetaPathFinder):
    """Asked before the file system is searched, where a new name would give a second copy of a module."""

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        if not fullname.startswith("lerobot."):
            return None
        module = here(fullname)
        if module != fullname:
            found = _find(module)
            return found and ModuleSpec(fullname, _AliasLoader(module), origin=found.origin)
        if fullname not in _OFFERED and fullname not in _PACKAGES:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is None:
            return ModuleSpec(fullname, _NamesLoader(), is_package=fullname in _PACKAGES)
        spec.loader = _OfferingLoader(spec.loader)
        return spec


class _LastFinder(MetaPathFinder):
    """Asked when nothing else knows a name: says what the nearest one is."""

    def find_spec(self, fullname: str, path=None, target=None) -> None:
        if not fullname.startswith("lerobot."):
            return
        # Its own name would make `from package import name` fall back to a message without the nearest name.
        raise ModuleNotFoundError(_explain(fullname), name=f"{fullname} ({here(fullname)})")


class _AliasLoader(Loader):
    """Gives the module of another name."""

    def __init__(self, module: str):
        self.module = module

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.module)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import system has put the one of the new name there
        _offer(module)

    def get_code(self, fullname: str) -> Any:
        """The code for `python -m`."""
        return importlib.util.find_spec(self.module).loader.get_code(self.module)


class _OfferingLoader(Loader):
    """Loads a module as its own loader does and adds the names of the table."""

    def __init__(self, loader: Loader):
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        _offer(module)

    def get_code(self, fullname: str) -> Any:
        """The code for `python -m`."""
        return self.loader.get_code(fullname)


class _NamesLoader(Loader):
    """Makes a module that has only names, or modules, of the tables."""

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        _offer(module)


def _find(module: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(module)
    except ModuleNotFoundError as e:
        if (e.name or "").startswith("lerobot."):
            return None
        raise  # a dependency of the package above


def _offer(module: ModuleType) -> None:
    """Let a module resolve the names of the table, and explain the ones that it lacks."""
    own = module.__dict__.get("__getattr__")
    if getattr(own, "_offers", False):
        return
    names = _OFFERED.get(module.__name__, {})

    def resolve(name: str) -> Any:
        if name in names:
            source, there = names[name]
            value = getattr(importlib.import_module(source), there)
            setattr(module, name, value)
            return value
        if own is not None:
            return own(name)
        missing = f"{module.__name__}.{name}"
        if "__path__" not in vars(module) and _in_from_import(sys._getframe(1)):
            raise ImportError(_explain(missing), name=module.__name__)
        raise AttributeError(f"module '{module.__name__}' has no attribute '{name}'")

    resolve._offers = True
    module.__getattr__ = resolve


def _in_from_import(frame) -> bool:
    """Whether a frame is at `from module import name`, which replaces the text of an AttributeError by its
    own.
    """
    import dis

    return dis.opname[frame.f_code.co_code[frame.f_lasti]] == "IMPORT_FROM"


def _explain(fullname: str) -> str:
    meant = here(fullname)
    for prefix, place in ELSEWHERE.items():
        if meant == prefix or meant.startswith(prefix + "."):
            return f"No module named '{fullname}': hardware has another interface here, see {place}."
    for prefix, (what, nearest) in ABSENT.items():
        if meant == here(prefix) or meant.startswith(here(prefix) + "."):
            return f"There is no '{fullname}': {what} is not part of this project; the nearest thing is '{nearest}'."
    package, _, leaf = fullname.rpartition(".")
    nearest = _nearest(here(package), leaf)
    return f"There is no '{fullname}'" + (f"; the nearest name is '{nearest}'." if nearest else ".")


def _nearest(package: str, leaf: str) -> str | None:
    """The existing name that is most like `leaf` in a module or package, or like its last part anywhere
    above.
    """
    import difflib
    import pkgutil

    module = sys.modules.get(package)
    if module is None:
        return None
    names = {name for name in vars(module) if not name.startswith("_")} | set(_OFFERED.get(package, {}))
    names |= {m.name for m in pkgutil.iter_modules(getattr(module, "__path__", []))}
    names |= {name.rpartition(".")[2] for name in _TABLE if name.rpartition(".")[0] == package}
    close = difflib.get_close_matches(leaf, sorted(names), n=1, cutoff=0)
    return f"{package}.{close[0]}" if close else None
