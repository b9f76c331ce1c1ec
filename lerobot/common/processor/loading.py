"""Reading a saved pipeline: find the JSON, resolve the classes, build the steps, load their states."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lerobot.common.processor.registry import ProcessorStepRegistry
from lerobot.common.processor.steps import ProcessorStep
from lerobot.common.utils.hub import find_file
from lerobot.common.utils.io_utils import read_json


class ProcessorMigrationError(ValueError):
    """A checkpoint of a legacy layout: statistics inside the weights, no processor file."""

    def __init__(self, model_path: str | Path, migration_command: str, original_error: str):
        super().__init__(
            f"Model '{model_path}' requires migration to processor format ({original_error}). If its statistics "
            "stand inside the weights, make_pre_post_processors finds them there; or convert the checkpoint once: "
            f"{migration_command}"
        )
        self.migration_command, self.original_error = migration_command, original_error
        self.model_path = model_path


@dataclass
class Source:
    """Where the state files of a pipeline lie."""

    name_or_path: str
    folder: Path
    hub: dict[str, Any]
    is_local: bool

    def state_file(self, filename: str) -> Path:
        """The local path of a state file (downloaded if need be); it must lie beside the JSON."""
        if Path(filename).name != filename:
            raise ValueError(
                f"State file '{filename}' named by a pipeline of '{self.name_or_path}' must be a plain name."
            )
        path = self.folder / filename
        if path.is_file():
            return path
        if self.is_local:
            raise FileNotFoundError(
                f"State file '{filename}' is not in '{self.folder}'; copy the whole checkpoint folder."
            )
        return find_file(self.name_or_path, filename, **self.hub)


def read_pipeline_file(name_or_path: str | Path, filename: str, **hub) -> tuple[dict[str, Any], Source]:
    """The validated JSON of a pipeline and the place of its other files."""
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        file = path / filename
        if not file.is_file():
            _suggest_migration(path, f"'{filename}' is missing")
            raise FileNotFoundError(f"Config file '{filename}' not found in directory '{path}'")
    elif path.is_file():
        file = path
    else:
        file = _from_hub(str(name_or_path), filename, hub)
    config = read_json(file)
    if problem := why_not_a_pipeline(config):
        if path.is_dir():
            _suggest_migration(path, f"'{filename}' is not a pipeline: {problem}")
        raise ValueError(f"{file} is not a valid processor configuration: {problem}.")
    return config, Source(str(name_or_path), file.parent, hub, is_local=path.exists())


def _from_hub(name: str, filename: str, hub: dict[str, Any]) -> Path:
    try:
        return find_file(name, filename, **hub)
    except FileNotFoundError as e:
        raise FileNotFoundError(f"Could not find '{filename}' on the HuggingFace Hub at '{name}': {e}") from e


def why_not_a_pipeline(config: Any) -> str | None:
    """What keeps `config` from being a saved pipeline, or None if nothing does."""
    if not isinstance(config, dict):
        return f"it holds a {type(config).__name__}, expected an object"
    if not isinstance(config.get("steps"), list):
        return f"it has no list 'steps', only the keys {sorted(config)}"
    for i, entry in enumerate(config["steps"]):
        if not isinstance(entry, dict) or not ({"class", "registry_name"} & entry.keys()):
            return f"step {i} has neither 'registry_name' nor 'class'"
    return None


def _suggest_migration(folder: Path, problem: str) -> None:
    """Raise ProcessorMigrationError if the folder has JSON files and none of them is a pipeline."""
    found = []
    for file in folder.glob("*.json"):
        try:
            found.append(read_json(file))
        except (ValueError, OSError):
            continue
    if any(why_not_a_pipeline(config) is None for config in found) or not any(folder.glob("*.json")):
        return
    command = f"python -m lerobot.processor.migrate_policy_normalization --pretrained-path {folder}"
    raise ProcessorMigrationError(folder, command, problem)


def build_steps(
    config: dict[str, Any], overrides: dict[str, Any], states: Source | Mapping[str, dict[str, torch.Tensor]]
) -> list[ProcessorStep]:
    """The steps of a saved pipeline; `states` is where the state files lie, or the states themselves."""
    unused = set(overrides)
    steps = []
    for entry in config["steps"]:
        step_class, key = _resolve(entry)
        unused.discard(key)
        step = _construct(step_class, key, entry.get("config") or {}, overrides.get(key) or {}, states)
        _load_state(step, entry.get("state_file"), states)
        steps.append(step)
    if unused:
        available = [_resolve(entry)[1] for entry in config["steps"]]
        raise KeyError(
            f"Override keys {sorted(unused)} do not match any step of this pipeline; available: {available}."
        )
    return steps


def _resolve(entry: dict[str, Any]) -> tuple[type[ProcessorStep], str]:
    """The class of a saved step, and the name that overrides use for it."""
    if name := entry.get("registry_name"):
        try:
            return ProcessorStepRegistry.get(name), name
        except KeyError as e:
            raise ImportError(f"Failed to load processor step from registry. {e.args[0]}") from e
    module, _, name = entry["class"].rpartition(".")
    try:
        step_class = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as e:
        raise ImportError(f"Failed to load processor step '{entry['class']}': {e}") from e
    if not (isinstance(step_class, type) and issubclass(step_class, ProcessorStep)):
        raise ImportError(f"Failed to load processor step '{entry['class']}': it is not a ProcessorStep.")
    return step_class, name


def _construct(step_class, key, config, overrides, states) -> ProcessorStep:
    folder = states.folder if isinstance(states, Source) else None
    if folder is not None and not states.is_local:  # a hub repository gives only what is asked for
        for name in step_class.files_beside:
            find_file(states.name_or_path, name, required=False, **states.hub)
    try:
        return step_class.from_saved(config, overrides, folder)
    except Exception as e:  # whatever the constructor of a step raises
        raise ValueError(f"Failed to instantiate processor step '{key}' with config: {config}. Error: {e}") from e


def _load_state(step: ProcessorStep, filename: str | None, states) -> None:
    if not filename:
        return
    if not isinstance(states, Source):
        step.load_state_dict(states[filename.removesuffix(".safetensors")])
        return
    path = states.state_file(filename)
    try:
        step.load_state_dict(load_file(path))
    except SafetensorError as e:
        raise ValueError(f"{path} is truncated or not a safetensors file ({e}); copy the checkpoint again.") from e
