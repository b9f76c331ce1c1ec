"""A pipeline: steps in order with a converter at each end, saved as a JSON file and states beside it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypedDict, TypeVar

import torch
from safetensors.torch import save_file

from lerobot.common.constants import HF_LEROBOT_HOME
from lerobot.common.processor.converters import batch_to_transition, create_transition, transition_to_batch
from lerobot.common.processor.core import EnvTransition, TransitionKey
from lerobot.common.processor.loading import ProcessorMigrationError, build_steps, read_pipeline_file
from lerobot.common.processor.registry import ProcessorStepRegistry
from lerobot.common.processor.steps import (
    ActionProcessorStep,
    ComplementaryDataProcessorStep,
    DoneProcessorStep,
    Features,
    InfoProcessorStep,
    KeepsFeatures,
    ObservationProcessorStep,
    PolicyActionProcessorStep,
    ProcessorStep,
    RewardProcessorStep,
    RobotActionProcessorStep,
    TruncatedProcessorStep,
)
from lerobot.common.utils.hub import HubMixin
from lerobot.common.utils.io_utils import atomic_path, write_text

TInput = TypeVar("TInput")
TOutput = TypeVar("TOutput")
Hook: TypeAlias = Callable[[int, EnvTransition], None]


class IdentityProcessorStep(KeepsFeatures, ProcessorStep):
    """Returns its input."""

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        self._current_transition = transition
        return transition


@dataclass
class DataProcessorPipeline(HubMixin, Generic[TInput, TOutput]):
    """Applies `to_transition`, then every step, then `to_output`.

    Converters and hooks are not saved: whoever loads a pipeline passes them again. Raises TypeError for an
    element of `steps` that is no ProcessorStep.
    """

    steps: Sequence[ProcessorStep] = field(default_factory=list)
    name: str = "DataProcessorPipeline"
    to_transition: Callable[[TInput], EnvTransition] = field(default=batch_to_transition, repr=False)
    to_output: Callable[[EnvTransition], TOutput] = field(default=transition_to_batch, repr=False)
    before_step_hooks: list[Hook] = field(default_factory=list, repr=False)
    after_step_hooks: list[Hook] = field(default_factory=list, repr=False)

    def __post_init__(self):
        for i, step in enumerate(self.steps):
            if not isinstance(step, ProcessorStep):
                raise TypeError(f"Step {i} ({type(step).__name__}) must inherit from ProcessorStep.")

    def __call__(self, data: TInput) -> TOutput:
        """Run the whole pipeline on one input."""
        return self.to_output(self._run(self.to_transition(data)))

    def _run(self, transition: EnvTransition) -> EnvTransition:
        for i, step in enumerate(self.steps):
            for hook in self.before_step_hooks:
                hook(i, transition)
            transition = step(transition)
            for hook in self.after_step_hooks:
                hook(i, transition)
        return transition

    def step_through(self, data: TInput) -> Iterable[EnvTransition]:
        """Yield the first transition and the one after each step; no hooks, no output conversion."""
        transition = self.to_transition(data)
        yield transition
        for step in self.steps:
            transition = step(transition)
            yield transition

    def _run_part(self, key: TransitionKey, value: Any) -> Any:
        return self._run(create_transition(**{key.value: value}))[key]

    def process_observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Run the steps on a transition that holds only this observation."""
        return self._run_part(TransitionKey.OBSERVATION, observation)

    def process_action(self, action: Any) -> Any:
        """Run the steps on a transition that holds only this action."""
        return self._run_part(TransitionKey.ACTION, action)

    def process_reward(self, reward: Any) -> Any:
        """Run the steps on a transition that holds only this reward."""
        return self._run_part(TransitionKey.REWARD, reward)

    def process_done(self, done: Any) -> Any:
        """Run the steps on a transition that holds only this done flag."""
        return self._run_part(TransitionKey.DONE, done)

    def process_truncated(self, truncated: Any) -> Any:
        """Run the steps on a transition that holds only this truncated flag."""
        return self._run_part(TransitionKey.TRUNCATED, truncated)

    def process_info(self, info: dict[str, Any]) -> dict[str, Any]:
        """Run the steps on a transition that holds only this info."""
        return self._run_part(TransitionKey.INFO, info)

    def process_complementary_data(self, complementary_data: dict[str, Any]) -> dict[str, Any]:
        """Run the steps on a transition that holds only these complementary data."""
        return self._run_part(TransitionKey.COMPLEMENTARY_DATA, complementary_data)

    def register_before_step_hook(self, fn: Hook) -> None:
        """Call `fn(index, transition)` before every step."""
        self.before_step_hooks.append(fn)

    def register_after_step_hook(self, fn: Hook) -> None:
        """Call `fn(index, transition)` after every step."""
        self.after_step_hooks.append(fn)

    def unregister_before_step_hook(self, fn: Hook) -> None:
        """Stop calling a hook. Raises ValueError if it is not registered."""
        _remove(self.before_step_hooks, fn, "before")

    def unregister_after_step_hook(self, fn: Hook) -> None:
        """Stop calling a hook. Raises ValueError if it is not registered."""
        _remove(self.after_step_hooks, fn, "after")

    def __repr__(self) -> str:
        names = [type(step).__name__ for step in self.steps]
        shown = [*names[:3], "...", names[-1]] if len(names) > 4 else names
        return f"DataProcessorPipeline(name={self.name!r}, steps={len(names)}: [{', '.join(shown)}])"

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[ProcessorStep]:
        return iter(self.steps)

    def __getitem__(self, idx: int | slice):
        if not isinstance(idx, slice):
            return self.steps[idx]
        hooks = {"before_step_hooks": [*self.before_step_hooks], "after_step_hooks": [*self.after_step_hooks]}
        return replace(self, steps=self.steps[idx], **hooks)

    def reset(self) -> None:
        """Reset every step; called at the start of every episode."""
        for step in self.steps:
            step.reset()

    def transform_features(self, initial_features: Features) -> Features:
        """The features that come out of the last step; the argument is not changed."""
        features = copy.deepcopy(initial_features)
        for step in self.steps:
            features = step.transform_features(features)
        return features

    @property
    def file_prefix(self) -> str:
        """What the names of this pipeline's files start with."""
        return re.sub(r"[^a-zA-Z0-9_]", "_", self.name.lower())

    def get_config(self) -> dict[str, Any]:
        """The content of the JSON file."""
        return {"name": self.name, "steps": [self._entry(i, step) for i, step in enumerate(self.steps)]}

    def _entry(self, index: int, step: ProcessorStep) -> dict[str, Any]:
        name = registered_name(step)
        entry = {"registry_name": name} if name else {"class": class_path(type(step))}
        entry["config"] = step.get_config()
        if step.state_dict():
            entry["state_file"] = f"{self._state_name(index, step)}.safetensors"
        return entry

    def _state_name(self, index: int, step: ProcessorStep) -> str:
        name = registered_name(step)
        return f"{self.file_prefix}_step_{index}" + (f"_{name}" if name else "")

    def state_dict(self) -> dict[str, dict[str, torch.Tensor]]:
        """State of each step that has one, by the name of its file without suffix."""
        states = {self._state_name(i, step): step.state_dict() for i, step in enumerate(self.steps)}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, states: dict[str, dict[str, torch.Tensor]]) -> None:
        """Take back what `state_dict` gave. Raises KeyError naming missing or unknown states."""
        named = {self._state_name(i, step): step for i, step in enumerate(self.steps)}
        missing, unknown = self.state_dict().keys() - states.keys(), states.keys() - named.keys()
        if missing or unknown:
            raise KeyError(f"States of pipeline '{self.name}': missing {sorted(missing)}, unknown {sorted(unknown)}.")
        for name, state in states.items():
            named[name].load_state_dict(state)

    def save_pretrained(
        self,
        save_directory: str | Path | None = None,
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        card_kwargs: dict | None = None,
        config_filename: str | None = None,
        **push_kwargs,
    ):
        """Write the JSON file and the states to a folder; default `<lerobot home>/processors/<name>`."""
        folder = Path(save_directory or HF_LEROBOT_HOME / "processors" / self.file_prefix)
        folder.mkdir(parents=True, exist_ok=True)
        self._save_pretrained(folder, config_filename)
        if push_to_hub:
            return self.push_to_hub(repo_id or folder.name, **push_kwargs)
        return None

    def _save_pretrained(self, folder: Path, config_filename: str | None = None) -> None:
        for name, state in self.state_dict().items():
            with atomic_path(folder / f"{name}.safetensors") as partial:
                save_file({k: v.detach().cpu().clone() for k, v in state.items()}, partial)
        # Last, so that a folder with the JSON has every file that it names.
        write_text(json.dumps(self.get_config(), indent=2), folder / (config_filename or f"{self.file_prefix}.json"))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        config_filename: str,
        *,
        overrides: dict[str, Any] | None = None,
        to_transition: Callable[[TInput], EnvTransition] | None = None,
        to_output: Callable[[EnvTransition], TOutput] | None = None,
        **hub,
    ) -> DataProcessorPipeline[TInput, TOutput]:
        """Load a pipeline from a folder, a JSON file, or the hub (`hub`: options of hf_hub_download).

        `overrides` maps a registered name (or class name) to constructor arguments that replace the saved
        ones in every step of that name. Raises FileNotFoundError, ProcessorMigrationError (a folder whose
        statistics are still inside the weights), ValueError (not a pipeline, a step that cannot be built),
        ImportError (unknown step) and KeyError (an override that matches no step).
        """
        config, source = read_pipeline_file(pretrained_model_name_or_path, config_filename, **hub)
        return cls._assemble(config, build_steps(config, overrides or {}, source), to_transition, to_output)

    @classmethod
    def from_config(
        cls,
        config: dict[str, Any],
        state_dict: dict[str, dict[str, torch.Tensor]] | None = None,
        overrides: dict[str, Any] | None = None,
        to_transition: Callable[[TInput], EnvTransition] | None = None,
        to_output: Callable[[EnvTransition], TOutput] | None = None,
    ) -> DataProcessorPipeline[TInput, TOutput]:
        """Build a pipeline from what `get_config` and `state_dict` gave."""
        steps = build_steps(config, overrides or {}, state_dict or {})
        return cls._assemble(config, steps, to_transition, to_output)

    @classmethod
    def _assemble(cls, config, steps, to_transition, to_output):
        return cls(
            steps=steps,
            name=config.get("name", "DataProcessorPipeline"),
            to_transition=to_transition or batch_to_transition,
            to_output=to_output or transition_to_batch,
        )


class ProcessorKwargs(TypedDict, total=False):
    """Keyword arguments of a pipeline that are not saved with it."""

    to_transition: Callable[[Any], EnvTransition] | None
    to_output: Callable[[EnvTransition], Any] | None


PolicyProcessorPipeline: TypeAlias = DataProcessorPipeline
RobotProcessorPipeline: TypeAlias = DataProcessorPipeline


def registered_name(step: ProcessorStep) -> str | None:
    """The name that a step is saved under, or None if its own class is not registered."""
    return type(step).__dict__.get("_registry_name")


def class_path(step_class: type[ProcessorStep]) -> str:
    """The importable name of an unregistered class; ours by the name that newer LeRobot releases know."""
    return f"{step_class.__module__}.{step_class.__qualname__}".replace("lerobot.common.", "lerobot.", 1)


def _remove(hooks: list[Hook], hook: Hook, when: str) -> None:
    if hook not in hooks:
        raise ValueError(f"Hook {hook} not found in {when}_step_hooks.")
    hooks.remove(hook)


__all__ = [
    "ActionProcessorStep",
    "ComplementaryDataProcessorStep",
    "DataProcessorPipeline",
    "DoneProcessorStep",
    "EnvTransition",
    "IdentityProcessorStep",
    "InfoProcessorStep",
    "ObservationProcessorStep",
    "PolicyActionProcessorStep",
    "PolicyProcessorPipeline",
    "ProcessorMigrationError",
    "ProcessorKwargs",
    "ProcessorStep",
    "ProcessorStepRegistry",
    "RewardProcessorStep",
    "RobotActionProcessorStep",
    "RobotProcessorPipeline",
    "TransitionKey",
    "TruncatedProcessorStep",
]
