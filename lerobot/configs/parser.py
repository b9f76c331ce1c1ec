"""The command line: `--a.b=value` flags over a config file over a preset over the defaults, decoded into a dataclass.

Layers are plain nested dicts that are merged leaf by leaf, then decoded once by draccus. Values are read as JSON with
the friendly spellings that people type (`True`, `none`, `1_000`); text fields take the value as it stands.
"""

import dataclasses
import difflib
import functools
import importlib
import inspect
import json
import logging
import pkgutil
import sys
import typing
from pathlib import Path
from typing import Any

import draccus
import yaml
from draccus.utils import DraccusException

from lerobot.configs.flags import PATH_KEY, flags_of, help_text, members, parameters

PLUGIN_DISCOVERY_SUFFIX = "discover_packages_path"
PRESETS_DIR = Path(__file__).parent / "presets"
_SPELLINGS = {
    **{"true": True, "yes": True, "on": True},
    **{"false": False, "no": False, "off": False},
    **{"none": None, "null": None},
}
# Flags of newer releases that have another name here.
RENAMED = {"env_eval_freq": "eval_freq"}


class PluginLoadError(ImportError):
    """A package named by `--*.discover_packages_path` could not be imported."""


# --- values as typed ----------------------------------------------------------------------------------------------


def read_value(text: str, kinds: set) -> Any:
    """Read one value as typed on a command line; `kinds` are the types that its flag can have.

    Lists and dicts may lack the quotes of JSON, as in YAML: `[laptop, phone]`, `{top: {type: opencv}}`. ValueError for
    one that is not closed, and for a plain value where only a list, a dict or a group of flags can be.
    """
    takes_text = bool(kinds & {str, Path})
    if text.lower() == "null" and type(None) in kinds:
        return None
    if takes_text:
        return text
    value = _SPELLINGS[text.lower()] if text.lower() in _SPELLINGS else _read_json(text)
    _require_form(text, value, kinds - {type(None)})
    return value


def _read_json(text: str) -> Any:
    """A number, list or dict; what is none of them stays text."""
    try:
        return json.loads(text.replace("_", "") if text.replace("_", "").isdigit() else text)
    except json.JSONDecodeError:
        return _read_container(text) if text.lstrip()[:1] in ("{", "[") else text


def _require_form(text: str, value: Any, kinds: set) -> None:
    """ValueError where only a group, a dict or a list can be and `value` is none."""
    if value is None or isinstance(value, dict):
        return
    forms = {typing.get_origin(kind) or kind for kind in kinds}
    if all(dataclasses.is_dataclass(form) for form in forms):
        raise ValueError(f"{text}: this is a group of flags, each written --group.name=value (see --help).")
    if forms == {dict}:
        raise ValueError(f"{text}: expected names and values in braces, for example {{a: 1, b: 2}}.")
    if forms <= {list, tuple} and not isinstance(value, list):
        raise ValueError(f"{text}: expected a list in brackets, for example [1, 2].")


def _read_container(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise ValueError(f"{text}: expected JSON, or YAML in one line ({str(e).splitlines()[0]}).") from None


# Flags of LeRobot 0.4 and later that have no field here, with the value at which they ask for nothing.
NEWER_DEFAULTS = {
    "job.target": "local",
    "policy.pretrained_revision": "null",
    "save_checkpoint_to_hub": "false",
    "trust_remote_code": "false",
    "use_rabc": "false",
    "wandb.add_tags": "true",
}


# --- arguments to nested dicts ------------------------------------------------------------------------------------


def split_arguments(argv: list[str]) -> list[tuple[str, str]]:
    """[`--a=1`, `--b`, `2`, `--c`] -> [(a, 1), (b, 2), (c, true)]. Raises ValueError for anything else."""
    pairs, rest = [], list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or len(word) < 3:
            raise ValueError(f"Unexpected argument '{word}': flags are written --name=value.")
        name, given, value = word[2:].partition("=")
        if not given:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        pairs.append((RENAMED.get(name, name), value))
    return pairs


def to_nested(cls: type, pairs: list[tuple[str, str]], prefix: str = "") -> dict[str, Any]:
    """Turn flag values into a nested dict; an unknown flag is a ValueError that names the nearest one."""
    flags = flags_of(cls)
    nested: dict[str, Any] = {}
    for name, text in pairs:
        if is_newer_default(prefix + name, text):
            continue
        if name not in flags:
            raise ValueError(unknown_flag(prefix + name, [prefix + f for f in flags]))
        inner = nested
        *parents, leaf = name.split(".")
        for parent in parents:
            inner = inner.setdefault(parent, {})
        try:
            inner[leaf] = read_value(text, flags[name])
        except ValueError as e:
            raise ValueError(f"--{prefix}{name}={e}") from None
    return nested


def is_newer_default(name: str, text: str) -> bool:
    """Whether a flag of newer releases asks for nothing; ValueError if it asks for what is not done here."""
    if name not in NEWER_DEFAULTS:
        return False
    if text.lower() not in ("", NEWER_DEFAULTS[name]):
        raise ValueError(f"--{name}={text} is not done here; leave it at {NEWER_DEFAULTS[name]}.")
    return True


def unknown_flag(name: str, known: list[str]) -> str:
    """The message for a flag that does not exist."""
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    if not near:
        tail = name.rsplit(".", 1)[-1]
        near = [k for k in known if k.rsplit(".", 1)[-1] == tail][:2]
    hint = f" Did you mean {' or '.join('--' + n for n in near)}?" if near else " See --help for all flags."
    return f"Unknown flag --{name}.{hint}"


def overrides_to_dict(cls: type, overrides: list[str]) -> dict[str, Any]:
    """Nested dict of `--field=value` strings that address `cls` itself."""
    return to_nested(cls, split_arguments(overrides), prefix="policy.")


def merge(base: dict, over: dict) -> dict:
    """`base` with the leaves of `over` on top; a dict meets a dict key by key, anything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = merge(merged[key], value) if both and key not in REPLACED_WHOLE else value
    return merged


# Maps that are data, not structure: a new value replaces the old one as a whole.
REPLACED_WHOLE = {"input_features", "output_features", "normalization_mapping", "rename_map", "tfs"}


def decode(cls: type, raw: dict, where: str = "command line", prefix: str = "") -> Any:
    """Decode a nested dict into a dataclass; what its own checks raise passes through.

    ValueError names the field that is unknown, missing or cannot be read.
    """
    raw = dict(raw)
    if issubclass(cls, draccus.ChoiceRegistry):
        cls = _chosen(cls, raw, where, prefix)
    hints = parameters(cls)
    if unknown := sorted(set(raw) - set(hints)):
        raise ValueError(f"{where}: {prefix}{unknown[0]} is not a field of {cls.__name__}.")
    for f in dataclasses.fields(cls):
        if f.init and f.name not in raw and f.default is f.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where}: no {prefix}{f.name} given; set --{prefix}{f.name}... (see --help).")
    values = {name: _decode_field(hints[name], value, where, prefix + name) for name, value in raw.items()}
    return cls(**values)


def _chosen(cls: type, raw: dict, where: str, prefix: str) -> type:
    choices = cls.get_known_choices()
    if cls in choices.values():
        raw.pop("type", None)
        return cls
    name = raw.pop("type", None) or cls.default_choice_name()
    if name not in choices:
        raise ValueError(f"{where}: {prefix}type={name} is unknown; expected one of {', '.join(sorted(choices))}.")
    return choices[name]


def _entry_of_map(hint: Any) -> type | None:
    """The dataclass that the values of a map are, as cameras by their names."""
    arguments = typing.get_args(hint) if typing.get_origin(hint) is dict else ()
    return arguments[1] if arguments and dataclasses.is_dataclass(arguments[1]) else None


def _decode_field(hint: Any, value: Any, where: str, name: str) -> Any:
    inner = next((m for m in members(hint) if dataclasses.is_dataclass(m)), None)
    if inner is not None and isinstance(value, dict):
        return decode(inner, value, where, name + ".")
    entry = _entry_of_map(hint)
    if entry is not None and isinstance(value, dict) and all(isinstance(item, dict) for item in value.values()):
        return {key: decode(entry, item, where, f"{name}.{key}.") for key, item in value.items()}
    kinds = set(members(hint))
    if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
        raise ValueError(f"{where}: {name}={str(value).lower()} is no number (a flag without a value means true).")
    try:
        return draccus.decode(hint, value)
    except DraccusException as e:
        # A check of the class itself says what is wrong; the parser, only that something is.
        told = e.__cause__ if isinstance(e.__cause__, ValueError) else e
        reason = " ".join(str(told).split()).rstrip(".")
    except KeyError as e:  # what an enumeration says of a name that it lacks
        reason = f"{e} is not known here"
    except (AttributeError, TypeError) as e:
        reason = f"expected {hint}; on the command line lists and maps are JSON ({e})"
    raise ValueError(f"{where}: {name}={value!r} cannot be read: {reason}.")


# --- the whole command line ---------------------------------------------------------------------------------------


def parse(cls: type, argv: list[str]) -> Any:
    """Fill dataclass `cls` from a command line, a config file, a preset and a checkpoint, in this order of precedence.

    Raises ValueError or FileNotFoundError with one message; `--help` prints the flags and exits.
    """
    if {"-h", "--help"} & set(argv):
        print(help_text(cls))
        raise SystemExit(0)
    argv = load_plugins(argv)
    pairs = split_arguments(argv)
    given = dict(pairs)
    typed = to_nested(cls, [(k, v) for k, v in pairs if k != "config_path"])
    refuse_absent_device(given)
    below = read_preset(given["preset"]) if given.get("preset") else {}
    find_config = getattr(cls, "resume_config_path", lambda _: None)
    if config_path := given.get("config_path") or find_config(given):
        given["config_path"] = config_path
        below = merge(below, read_config_file(cls, config_path))
    if policy := policy_layer(typed, below):
        below["policy"] = policy
    raw = merge(below, typed)
    if "policy" in raw:
        raw["policy"].pop(PATH_KEY, None)
    config = decode(cls, raw)
    _remember(config, given)
    return config


def policy_layer(typed: dict, below: dict) -> dict:
    """The policy's configuration from `--policy.path` (empty without one); it replaces the one of preset or file."""
    policy = typed.get("policy") or {}
    path, kind, present = policy.get(PATH_KEY), policy.get("type"), (below.get("policy") or {}).get("type")
    if path is None:
        if kind and present and kind != present:
            raise ValueError(f"--policy.type={kind} does not fit the preset or config file, which is for '{present}'.")
        return {}
    if kind is not None:
        raise ValueError("Give --policy.path (a checkpoint) or --policy.type (from zero), not both.")
    from lerobot.configs.policies import PreTrainedConfig, drop_unknown, read_policy_config

    raw = read_policy_config(path)
    chosen = PreTrainedConfig._class_of(raw, path)
    known = drop_unknown(chosen, raw, f"config.json of {path}")
    return {**known, "type": raw["type"], "pretrained_path": str(path)}


def read_preset(name: str) -> dict:
    """A JSON file of `lerobot/configs/presets`, by name or by path."""
    path = Path(name) if name.endswith(".json") else PRESETS_DIR / f"{name}.json"
    if not path.is_file():
        known = sorted(p.stem for p in PRESETS_DIR.glob("*.json"))
        raise FileNotFoundError(f"--preset={name}: no such preset. Known: {', '.join(known)}.")
    return json.loads(path.read_text())


def read_config_file(cls: type, path: str) -> dict:
    """A train_config.json (or the checkpoint folder that holds it); unknown fields are dropped with one warning."""
    file = Path(path).expanduser()
    if file.is_dir():
        folders = [file, file / "pretrained_model"]
        file = next((f / "train_config.json" for f in folders if (f / "train_config.json").is_file()), file)
    if not file.is_file():
        raise FileNotFoundError(f"--config_path={path}: no such file, and no train_config.json below it.")
    try:
        raw = json.loads(file.read_text())
    except json.JSONDecodeError as e:
        raise ValueError(f"--config_path={path} is not valid JSON: {e}.") from e
    for newer, name in RENAMED.items():
        if newer in raw:
            raw.setdefault(name, raw.pop(newer))
    dropped: list[str] = []
    kept = _known_only(cls, raw, "", dropped)
    if dropped:
        logging.warning("%s: unknown fields are ignored: %s", file, ", ".join(dropped))
    return kept


def _known_only(cls: type, raw: dict, prefix: str, dropped: list[str]) -> dict:
    hints, kept = typing.get_type_hints(cls), {}
    if issubclass(cls, draccus.ChoiceRegistry):
        kept = {"type": raw["type"]} if "type" in raw else {}
    for key, value in raw.items():
        if key in kept:
            continue
        if key not in hints:
            dropped.append(prefix + key)
            continue
        inner = next((m for m in members(hints[key]) if dataclasses.is_dataclass(m)), None)
        if inner is not None and isinstance(value, dict):
            if issubclass(inner, draccus.ChoiceRegistry) and value.get("type") in inner.get_known_choices():
                inner = inner.get_known_choices()[value["type"]]
            value = _known_only(inner, value, f"{prefix}{key}.", dropped)
        kept[key] = value
    return kept


def refuse_absent_device(given: dict[str, str], flag: str = "policy.device") -> None:
    """ValueError for a device that was typed and is not there; one that a checkpoint names only warns."""
    device = given.get(flag)
    if device and device != "null":
        from lerobot.common.utils.device import get_safe_torch_device

        get_safe_torch_device(device)


def _remember(config: Any, given: dict[str, str]) -> None:
    """Keep what was typed: validation needs to tell a typed value from a default."""
    if dataclasses.is_dataclass(config):
        config.typed_flags = dict(given)


# --- entry points and plugins -------------------------------------------------------------------------------------


def wrap(config_path: str | Path | None = None):
    """Decorate an entry point: its first parameter's dataclass is filled from the command line when it is called
    without arguments; called with a config object it is an ordinary function.

    `config_path` is read first where the command line names no other file.
    """

    def decorate(fn):
        cls = next(iter(inspect.signature(fn).parameters.values())).annotation

        @functools.wraps(fn)
        def wrapper(*args, **kwargs):
            if args and isinstance(args[0], cls):
                return fn(*args, **kwargs)
            below = [] if config_path is None else [f"--config_path={config_path}"]
            return fn(parse(cls, [*below, *sys.argv[1:]]), *args, **kwargs)

        return wrapper

    return decorate


def load_plugins(argv: list[str]) -> list[str]:
    """Import the packages named by `--*.discover_packages_path=NAME` and return the other arguments."""
    rest = []
    for word in argv:
        name, given, value = word.partition("=")
        if not (given and name.endswith(PLUGIN_DISCOVERY_SUFFIX)):
            rest.append(word)
            continue
        load_plugin(value)
    return rest


def load_plugin(plugin_path: str) -> None:
    """Import a package and its direct sub-modules, so that what they register is known to the command line."""
    try:
        package = importlib.import_module(plugin_path)
        for module in pkgutil.iter_modules(getattr(package, "__path__", []), plugin_path + "."):
            importlib.import_module(module.name)
    except ImportError as e:
        raise PluginLoadError(f"Package '{plugin_path}' could not be imported: {e}") from e


def parse_arg(arg_name: str, args: list[str] | None = None) -> str | None:
    """The value of `--<arg_name>` on the command line, or None."""
    words = sys.argv[1:] if args is None else list(args)
    for i, word in enumerate(words):
        if word.startswith(f"--{arg_name}="):
            return word.partition("=")[2]
        if word == f"--{arg_name}" and i + 1 < len(words):
            return words[i + 1]
    return None


def get_path_arg(field_name: str, args: list[str] | None = None) -> str | None:
    """The value of `--<field>.path`."""
    return parse_arg(f"{field_name}.{PATH_KEY}", args)


def get_type_arg(field_name: str, args: list[str] | None = None) -> str | None:
    """The value of `--<field>.type`."""
    return parse_arg(f"{field_name}.type", args)


def get_cli_overrides(field_name: str, args: list[str] | None = None) -> list[str]:
    """`--<field>.x=v` arguments as `--x=v`, without the type and path selectors."""
    start = f"--{field_name}."
    words = sys.argv[1:] if args is None else args
    own = [w for w in words if w.startswith(start)]
    return ["--" + w[len(start) :] for w in own if not w[len(start) :].startswith(("type=", "path="))]


def filter_arg(field_to_filter: str, args: list[str] | None = None) -> list[str]:
    """The arguments without `--<field>=...`."""
    return [w for w in args or [] if not w.startswith(f"--{field_to_filter}=")]


def filter_path_args(fields_to_filter: str | list[str], args: list[str] | None = None) -> list[str]:
    """The arguments without those of fields that are given by a path; a type beside a path is a ValueError."""
    names = [fields_to_filter] if isinstance(fields_to_filter, str) else fields_to_filter
    args = list(args or [])
    for name in names:
        if get_path_arg(name, args) is None:
            continue
        if get_type_arg(name, args) is not None:
            raise ValueError(f"Give --{name}.{PATH_KEY} or --{name}.type, not both.")
        args = [w for w in args if not w.startswith(f"--{name}.")]
    return args


def parse_plugin_args(plugin_arg_suffix: str, args: list[str]) -> dict[str, str]:
    """Arguments whose name ends in `plugin_arg_suffix`, as a dict."""
    pairs = (w.partition("=") for w in args)
    return {name.lstrip("-"): value for name, given, value in pairs if given and name.endswith(plugin_arg_suffix)}
