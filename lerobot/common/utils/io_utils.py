"""Small files: atomic writes, nested dictionaries."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | Path):
    """Yield a temporary name beside `path`; on success it is flushed to disk and renamed, on failure removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        flush_to_disk(partial)
        _put_in_place(partial, path)
    except BaseException:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


def _put_in_place(partial: Path, path: Path) -> None:
    if not (partial.is_dir() and path.is_dir()):
        os.replace(partial, path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.old")  # a folder cannot be renamed over a full one
    os.replace(path, old)
    os.replace(partial, path)
    shutil.rmtree(old)


def flush_to_disk(path: Path) -> None:
    """fsync a file, or every file below a folder."""
    for target in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if not target.is_symlink():
            _fsync(target)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(text: str, path: str | Path) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def append_text(text: str, path: str | Path) -> None:
    """Append all of a text to a file; nothing of it where an OSError says that the disk does not take it."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size, data = os.fstat(handle).st_size, text.encode()
        try:
            while data:
                data = data[os.write(handle, data) :]
        except OSError:
            os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)


def write_json(data: Any, fpath: str | Path, indent: int = 4) -> None:
    """Write JSON atomically; what JSON does not know (functions, devices) is written as null."""
    write_text(json.dumps(data, indent=indent, ensure_ascii=False, default=lambda _: None), fpath)


def read_json(fpath: str | Path) -> Any:
    """Read a JSON file; ValueError (a JSONDecodeError) names it where it is damaged."""
    try:
        return json.loads(Path(fpath).read_text(encoding="utf-8"))
    except json.JSONDecodeError as e:
        raise json.JSONDecodeError(f"{fpath} is not valid JSON, the file is damaged: {e.msg}", e.doc, e.pos) from e


def deserialize_json_into_object(fpath: str | Path, obj: Any) -> Any:
    """Read a JSON file that must be built as `obj` is: the same keys, lengths and types; tuples as in `obj`.

    Raises ValueError for other keys or lengths and TypeError for other types.
    """
    return _like(read_json(fpath), obj)


def _like(value: Any, example: Any) -> Any:
    if isinstance(example, dict) and isinstance(value, dict):
        if value.keys() != example.keys():
            raise ValueError(f"Dictionary keys do not match. Expected: {list(example)}, got: {list(value)}.")
        return {key: _like(value[key], example[key]) for key in example}
    if isinstance(example, (list, tuple)) and isinstance(value, list):
        if len(value) != len(example):
            raise ValueError(f"List length mismatch: expected {len(example)}, got {len(value)}.")
        return type(example)(_like(v, e) for v, e in zip(value, example, strict=True))
    if type(value) is not type(example):
        raise TypeError(f"Type mismatch: expected {type(example)}, got {type(value)}.")
    return value


def flatten_dict(d: dict, parent_key: str = "", sep: str = "/") -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a/b': 1}."""
    flat = {}
    for key, value in d.items():
        name = f"{parent_key}{sep}{key}" if parent_key else str(key)
        flat.update(flatten_dict(value, name, sep) if isinstance(value, dict) else {name: value})
    return flat


def unflatten_dict(d: dict[str, Any], sep: str = "/") -> dict:
    """{'a/b': 1} -> {'a': {'b': 1}}."""
    nested: dict = {}
    for key, value in d.items():
        *parents, leaf = key.split(sep)
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[leaf] = value
    return nested


def merge_known(current: dict, saved: dict, skip: tuple[str, ...] = ()) -> dict:
    """`current` with the values of `saved` for keys that both have, lists becoming tuples where `current` has them."""
    merged = dict(current)
    for key, value in saved.items():
        if key in current and key not in skip:
            merged[key] = tuple(value) if isinstance(current[key], tuple) else value
    return merged
