"""Module names of newer LeRobot releases (`lerobot.policies...`), served as the modules of this package.

`MODULES` maps a module name, or a prefix of names, to the module it means here; both names give one module
object, so classes and registries exist once. `NAMES` lists names that a module offers beside what stands in
its own file; a module that has only such names is made of them. Nothing is imported before it is asked for.
An unknown name is an ImportError that says what the nearest existing name is.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

MODULES = {
    "lerobot.datasets": "lerobot.common.datasets",
    "lerobot.envs": "lerobot.common.envs",
    "lerobot.optim": "lerobot.common.optim",
    "lerobot.policies": "lerobot.common.policies",
    "lerobot.processor": "lerobot.common.processor",
    "lerobot.utils": "lerobot.common.utils",
    "lerobot.constants": "lerobot.common.constants",
    "lerobot.utils.constants": "lerobot.common.constants",
    "lerobot.utils.device_utils": "lerobot.common.utils.device",
    "lerobot.utils.train_utils": "lerobot.common.training.checkpoint",
    "lerobot.common.train_utils": "lerobot.common.training.checkpoint",
    "lerobot.rl.wandb_utils": "lerobot.common.utils.wandb_utils",
    "lerobot.common.wandb_utils": "lerobot.common.utils.wandb_utils",
    "lerobot.transforms": "lerobot.common.datasets.transforms",
    "lerobot.lerobot_types": "lerobot.common.processor.core",
    "lerobot.processor.normalize_processor": "lerobot.common.processor.normalize",
    "lerobot.processor.tokenizer_processor": "lerobot.common.processor.tokenizer",
    "lerobot.processor.device_processor": "lerobot.common.processor.device",
    "lerobot.processor.batch_processor": "lerobot.common.processor.batch",
    "lerobot.processor.rename_processor": "lerobot.common.processor.rename",
    "lerobot.processor.observation_processor": "lerobot.common.processor.observation",
    "lerobot.processor.newline_processor": "lerobot.common.processor.text",
    "lerobot.scripts.lerobot_train": "lerobot.scripts.train",
    "lerobot.scripts.lerobot_eval": "lerobot.scripts.eval",
}

# Module that offers -> module where the names stand -> the names.
NAMES = {
    "lerobot.common.policies": {
        "lerobot.common.policies.factory": ("get_policy_class make_policy make_policy_config make_pre_post_processors"),
        "lerobot.common.policies.pretrained": "PreTrainedPolicy",
        "lerobot.common.processor": "SmolVLANewLineProcessor",
    },
    "lerobot.common.datasets": {
        "lerobot.common.datasets.lerobot_dataset": "LeRobotDataset LeRobotDatasetMetadata CODEBASE_VERSION",
        "lerobot.common.datasets.factory": "make_dataset resolve_delta_timestamps",
        "lerobot.common.datasets.sampler": "EpisodeAwareSampler",
        "lerobot.common.datasets.compute_stats": "aggregate_stats get_feature_stats",
        "lerobot.common.datasets.utils": "load_episodes write_stats",
        "lerobot.common.datasets.image_writer": "safe_stop_image_writer",
    },
    "lerobot.configs": {
        "lerobot.configs.default": "DatasetConfig EvalConfig WandBConfig",
        "lerobot.configs.policies": "PreTrainedConfig",
        "lerobot.configs.types": "FeatureType NormalizationMode PipelineFeatureType PolicyFeature",
    },
    "lerobot.common.optim": {
        "lerobot.common.optim.optimizers": (
            "OptimizerConfig AdamConfig AdamWConfig SGDConfig MultiAdamConfig save_optimizer_state load_optimizer_state"
        ),
        "lerobot.common.optim.schedulers": (
            "LRSchedulerConfig DiffuserSchedulerConfig VQBeTSchedulerConfig "
            "CosineDecayWithWarmupSchedulerConfig save_scheduler_state load_scheduler_state"
        ),
    },
    "lerobot.common.envs": {
        "lerobot.common.envs.configs": "EnvConfig AlohaEnv PushtEnv XarmEnv",
        "lerobot.common.envs.factory": "make_env make_env_config",
        "lerobot.common.envs.utils": ("check_env_attributes_and_types env_to_policy_features preprocess_observation"),
    },
    "lerobot.common.utils": {
        "lerobot.common.constants": "ACTION DONE OBS_ENV_STATE OBS_IMAGE OBS_IMAGES OBS_STATE OBS_STR REWARD",
    },
}

# Prefixes whose contents have another API here, and where to look instead.
ELSEWHERE = {
    "lerobot.cameras": "lerobot.common.robot_devices.cameras",
    "lerobot.motors": "lerobot.common.robot_devices.motors",
    "lerobot.robots": "lerobot.common.robot_devices.robots",
    "lerobot.teleoperators": "lerobot.common.robot_devices.robots",
}


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
_PACKAGES = {name.rpartition(".")[0] for name in _TABLE}


def offered() -> dict[str, dict[str, str]]:
    """Module -> name -> module where the name stands."""
    table: dict[str, dict[str, str]] = {}
    for module, sources in NAMES.items():
        names = {name: source for source, names in sources.items() for name in names.split()}
        table.setdefault(here(module), {}).update(names)
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
            value = getattr(importlib.import_module(names[name]), name)
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
    for prefix, place in ELSEWHERE.items():
        if fullname == prefix or fullname.startswith(prefix + "."):
            return f"No module named '{fullname}': hardware has another interface here, see {place}."
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
