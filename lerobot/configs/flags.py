"""The flags of a dataclass: names, possible types, defaults, and the comment that stands beside each field."""

import dataclasses
import inspect
import json
import types
import typing
from typing import Any

import draccus

PATH_KEY = "path"


def flags_of(cls: type, prefix: str = "") -> dict[str, set]:
    """Every flag of a dataclass (nested ones dotted, all registered choices together) with its possible types."""
    flags: dict[str, set] = {}
    for parameter, hint in parameters(cls).items():
        for option in members(hint):
            for name, kinds in _flags_of_type(option, prefix + parameter).items():
                flags.setdefault(name, set()).update(kinds)
    return flags


def parameters(cls: type) -> dict[str, Any]:
    """What the constructor of a dataclass takes, by name with its type; also what is not kept as a field."""
    hints = typing.get_type_hints(cls)
    wanted = {name: hints[name] for name in inspect.signature(cls).parameters}
    return {name: hint.type if isinstance(hint, dataclasses.InitVar) else hint for name, hint in wanted.items()}


def _flags_of_type(option: Any, name: str) -> dict[str, set]:
    if not dataclasses.is_dataclass(option):
        return {name: {option}}
    found: dict[str, set] = {name: {option}}
    if issubclass(option, draccus.ChoiceRegistry):
        found[f"{name}.type"] = {str}
        found[f"{name}.{PATH_KEY}"] = {str}
        for choice in option.get_known_choices().values():
            for flag, kinds in flags_of(choice, name + ".").items():
                found.setdefault(flag, set()).update(kinds)
        return found
    return {**found, **flags_of(option, name + ".")}


def members(hint: Any) -> tuple:
    """The types of a union, or the one type that a hint is."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def help_text(cls: type) -> str:
    """One line per flag: name, type, default and the comment that stands beside the field."""
    lines = [
        (inspect.getdoc(cls) or "").split("\n\n")[0],
        "",
        "  --config_path=FILE  --preset=NAME  --policy.path=CHECKPOINT",
        "",
    ]
    rows = list(flag_rows(cls, ""))
    width = min(48, max(len(name) + len(default) for name, default, _ in rows) + 3)
    lines += [f"  {'--' + name + '=' + default:<{width}}  {comment}".rstrip() for name, default, comment in rows]
    return "\n".join(lines)


def flag_rows(cls: type, prefix: str = ""):
    """(name, default, comment) of every flag; one that only some choices have begins its comment with `[choice]`."""
    hints, comments = typing.get_type_hints(cls), field_comments(cls)
    for f in dataclasses.fields(cls):
        options = [o for o in members(hints[f.name]) if dataclasses.is_dataclass(o)]
        if not options:
            yield prefix + f.name, _default_text(f), comments.get(f.name, "")
            continue
        for option in options:
            if issubclass(option, draccus.ChoiceRegistry):
                choices = {n: c for n, c in option.get_known_choices().items() if getattr(c, "runs_here", True)}
                yield f"{prefix}{f.name}.type", "|".join(choices), comments.get(f.name, "")
                for name, choice in choices.items():
                    for row in flag_rows(choice, f"{prefix}{f.name}."):
                        yield row[0], row[1], f"[{name}] {row[2]}".rstrip()
            else:
                yield from flag_rows(option, f"{prefix}{f.name}.")


def _default_text(f: dataclasses.Field) -> str:
    if f.default is not dataclasses.MISSING:
        return json.dumps(f.default, default=str)
    if f.default_factory is not dataclasses.MISSING:
        return json.dumps(draccus.encode(f.default_factory()), default=str)
    return "(required)"


def field_comments(cls: type) -> dict[str, str]:
    """The comment beside (or above) each field of a dataclass, base classes included."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        above = ""
        for line in inspect.getsource(base).splitlines():
            text, _, comment = line.partition("  # ")
            name = text.strip().split(":")[0]
            if line.strip().startswith("# "):
                above = f"{above} {line.strip()[2:]}".strip()
                continue
            if name.isidentifier() and ":" in text:
                found[name] = comment.strip() or above or found.get(name, "")
            above = ""
    return found
