"""Turning the task sentence into token ids."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub import constants

from lerobot.common.constants import (
    OBS_LANGUAGE_ATTENTION_MASK,
    OBS_LANGUAGE_SUBTASK_ATTENTION_MASK,
    OBS_LANGUAGE_SUBTASK_TOKENS,
    OBS_LANGUAGE_TOKENS,
    SUBTASK,
    TASK,
)
from lerobot.common.processor.core import EnvTransition, TransitionKey
from lerobot.common.processor.registry import ProcessorStepRegistry
from lerobot.common.processor.steps import Features, ObservationProcessorStep
from lerobot.common.utils.hub import hub_is_reachable
from lerobot.configs.types import FeatureType, PipelineFeatureType, PolicyFeature

# Folder inside a checkpoint that holds its own copy of the tokenizer.
TOKENIZER_FOLDER = "tokenizer"
SAVED_FIELDS = ("max_length", "task_key", "padding_side", "padding", "truncation")


def load_tokenizer(name: str, folder: Path | None = None) -> Any:
    """Load a tokenizer from a folder inside `folder`, another folder, the cache or the hub.

    Raises ImportError without transformers and FileNotFoundError naming every place that was tried.
    """
    try:
        from_pretrained = sys.modules[__name__].AutoTokenizer.from_pretrained
    except ImportError as e:
        raise ImportError('Tokenizing tasks needs transformers: pip install -e ".[smolvla]"') from e
    local = _local_folder(name, folder)
    # Without a hub only the cache is asked: each further look-up waits for its time-outs.
    options = {} if local or constants.HF_HUB_OFFLINE or hub_is_reachable() else {"local_files_only": True}
    try:
        return from_pretrained(str(local or name), **options)
    # A slow tokenizer wants further packages; one without its vocabulary fails on the absent name.
    except (OSError, ValueError, ImportError, AttributeError) as e:
        reason = e
    if local:
        found = f"the folder '{local}' holds no usable tokenizer ({' '.join(str(reason).split())[:200]})"
    else:
        places = f"{folder} and {Path.cwd()}" if folder else f"{Path.cwd()}"
        found = f"no such folder in {places}, not in the cache, and the hub lacks it or is out of reach"
    raise FileNotFoundError(
        f"Tokenizer '{name}': {found}. Give a folder that holds tokenizer.json by --policy.vlm_model_name (pi0: "
        "--policy.tokenizer_name) or overrides={'tokenizer_processor': {'tokenizer_name': FOLDER}}, or set "
        "HF_ENDPOINT to a mirror."
    ) from reason


def __getattr__(name: str) -> Any:
    """`AutoTokenizer`, of a package that is imported only when a tokenizer is loaded."""
    if name != "AutoTokenizer":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from transformers import AutoTokenizer

    return AutoTokenizer


def _local_folder(name: str, folder: Path | None) -> Path | None:
    """The folder that a name means, if there is one; a relative name does not lead out of `folder`."""
    if folder is not None and not Path(name).is_absolute():
        inside = (folder / name).resolve()
        if inside.is_dir() and inside.is_relative_to(folder.resolve()):
            return inside
    path = Path(name).expanduser()
    return path if path.is_dir() else None


@ProcessorStepRegistry.register("tokenizer_processor")
@dataclass
class TokenizerProcessorStep(ObservationProcessorStep):
    """Adds `observation.language.tokens` (B, L) int64 and `observation.language.attention_mask` (B, L) bool.

    The text is `complementary_data[task_key]`, a string or a list of strings. `padding` "longest" pads to the
    longest text of the batch, "max_length" to `max_length`; longer texts are cut on the tokenizer's own
    truncation side. Texts under `subtask`, if any, go to `observation.subtask.tokens` likewise. Give the
    `tokenizer` itself or a `tokenizer_name` (hub id or folder); only the name is saved.
    """

    tokenizer_name: str | None = None
    tokenizer: Any | None = None
    max_length: int = 512
    task_key: str = TASK
    padding_side: str = "right"
    padding: str = "max_length"
    truncation: bool = True
    input_tokenizer: Any = field(default=None, init=False, repr=False)
    files_beside: ClassVar[tuple[str, ...]] = tuple(
        f"{TOKENIZER_FOLDER}/{name}" for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    )
    # Sentences that the policy was trained on (empty: unknown); another one, or one cut short, warns once.
    known_tasks: set[str] = field(default_factory=set, init=False, repr=False)
    _warned: set[str] = field(default_factory=set, init=False, repr=False)
    _last: tuple | None = field(default=None, init=False, repr=False)  # what was encoded last, and the result

    def __post_init__(self):
        if self.tokenizer is None and self.tokenizer_name is None:
            raise ValueError(
                "Either 'tokenizer' or 'tokenizer_name' must be provided to a TokenizerProcessorStep; at loading "
                "by overrides={'tokenizer_processor': {'tokenizer_name': FOLDER_OR_HUB_ID}}."
            )
        self.input_tokenizer = self.tokenizer if self.tokenizer is not None else load_tokenizer(self.tokenizer_name)

    @classmethod
    def from_saved(cls, config: dict[str, Any], overrides: dict[str, Any], folder: Path | None):
        """The name is looked up inside the checkpoint first; its own copy of the tokenizer serves the saved
        name.
        """
        merged = {**config, **overrides}
        if merged.get("tokenizer") is not None:
            return cls(**merged)
        own = folder / TOKENIZER_FOLDER if folder else None
        if own and own.is_dir() and "tokenizer_name" not in overrides:
            source = str(own)
        elif (source := merged.get("tokenizer_name")) is None:
            return cls(**merged)
        step = cls(**{**merged, "tokenizer": load_tokenizer(source, folder)})
        step.tokenizer = None  # so that the name is saved again
        return step

    def save_tokenizer(self, folder: str | Path) -> None:
        """Put a copy of the tokenizer into a checkpoint, which then loads without a network."""
        self.input_tokenizer.save_pretrained(str(Path(folder) / TOKENIZER_FOLDER))

    def get_task(self, transition: EnvTransition) -> list[str]:
        """The texts of a transition. Raises ValueError or KeyError where there are none."""
        data = transition.get(TransitionKey.COMPLEMENTARY_DATA)
        if data is None:
            raise ValueError("Complementary data is None, so no task can be extracted from it.")
        if self.task_key not in data:
            raise KeyError(
                f"The batch has no '{self.task_key}', but this policy reads a sentence. Datasets add it from "
                f"meta/tasks; in a control loop set batch['{self.task_key}'] = 'what to do'."
            )
        if (task := data[self.task_key]) is None:
            raise ValueError(f"Task extracted from Complementary data is None (key '{self.task_key}').")
        texts = _texts(task)
        if texts is None:
            raise ValueError(f"Task cannot be None or other than a string or list of strings, got {task!r}.")
        return texts

    def get_subtask(self, transition: EnvTransition) -> list[str] | None:
        """The texts under `subtask` of a transition, None where there are none."""
        return _texts((transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}).get(SUBTASK))

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        tasks = self.get_task(self.transition)
        self._warn_of_unseen(tasks)
        device = self._device_of(observation)
        names = (OBS_LANGUAGE_TOKENS, OBS_LANGUAGE_ATTENTION_MASK)
        observation.update(zip(names, self._encode(tasks, device), strict=True))
        if subtask := self.get_subtask(self.transition):
            names = (OBS_LANGUAGE_SUBTASK_TOKENS, OBS_LANGUAGE_SUBTASK_ATTENTION_MASK)
            observation.update(zip(names, self._encode(subtask, device), strict=True))
        return observation

    def _encode(self, texts: list[str], device: torch.device | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids (B, L) int64 and their mask (B, L) bool; those of the last call again where nothing changed."""
        how = (self.max_length, self.padding, self.padding_side, self.truncation)
        asked = (id(self.input_tokenizer), tuple(texts), device, how)
        if self._last is None or self._last[0] != asked:
            self._last = asked, self._tokenize(texts, device)
        tokens, mask = self._last[1]
        return tokens.clone(), mask.clone()

    def _tokenize(self, texts: list[str], device: torch.device | None) -> tuple[torch.Tensor, torch.Tensor]:
        encoded = self.input_tokenizer(
            texts,
            padding=self.padding,
            padding_side=self.padding_side,
            truncation=self.truncation,
            max_length=self.max_length,
            return_tensors="pt",
        )
        self._warn_of_cut(texts, encoded["attention_mask"])
        mask = encoded["attention_mask"].to(torch.bool)
        return encoded["input_ids"].to(device, non_blocking=True), mask.to(device, non_blocking=True)

    def _warn_of_unseen(self, tasks: list[str]) -> None:
        if not self.known_tasks:
            return
        for task in {t.strip() for t in tasks} - {t.strip() for t in self.known_tasks} - self._warned:
            self._warned.add(task)
            known = sorted(self.known_tasks)
            logging.warning(
                "This policy was never trained on the task '%s'; it was on: %s%s.",
                task,
                "; ".join(f"'{t}'" for t in known[:5]),
                f" and {len(known) - 5} more" if len(known) > 5 else "",
            )

    def _warn_of_cut(self, tasks: list[str], mask: torch.Tensor) -> None:
        for task, count in zip(tasks, mask.sum(dim=1).tolist(), strict=True):
            if count < self.max_length or task in self._warned:
                continue
            whole = len(self.input_tokenizer(task)["input_ids"])
            if self.truncation and whole > self.max_length:
                side = "beginning" if self.input_tokenizer.truncation_side == "left" else "end"
                logging.warning(
                    "The task '%s' has %d tokens, %d are read: its %s is cut off (--policy.tokenizer_max_length).",
                    task.strip(),
                    whole,
                    self.max_length,
                    side,
                )
            self._warned.add(task)

    def _device_of(self, observation: dict[str, Any]) -> torch.device | None:
        candidates = (*observation.values(), self.transition.get(TransitionKey.ACTION))
        return next((v.device for v in candidates if isinstance(v, torch.Tensor)), None)

    def get_config(self) -> dict[str, Any]:
        config = {name: getattr(self, name) for name in SAVED_FIELDS}
        if self.tokenizer_name is not None and self.tokenizer is None:
            config["tokenizer_name"] = self.tokenizer_name
        return config

    def transform_features(self, features: Features) -> Features:
        side = PipelineFeatureType.OBSERVATION
        language = PolicyFeature(FeatureType.LANGUAGE, (self.max_length,))
        observed = dict(features.get(side, {}))
        for name in (OBS_LANGUAGE_TOKENS, OBS_LANGUAGE_ATTENTION_MASK):
            observed.setdefault(name, language)
        return {**features, side: observed}


def _texts(task: Any) -> list[str] | None:
    if isinstance(task, str):
        return [task]
    is_list = isinstance(task, (list, tuple)) and all(isinstance(text, str) for text in task)
    return list(task) if is_list else None
