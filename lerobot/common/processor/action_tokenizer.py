"""Actions as text, as pi0-FAST is trained on them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lerobot.common.constants import ACTION_TOKEN_MASK, ACTION_TOKENS
from lerobot.common.processor.core import EnvTransition, TransitionKey
from lerobot.common.processor.registry import ProcessorStepRegistry
from lerobot.common.processor.steps import KeepsFeatures, ProcessorStep
from lerobot.common.processor.tokenizer import load_tokenizer

BEGIN, END = "Action: ", "|"
SAVED = {"fast_skip_tokens": 128, "paligemma_tokenizer_name": "google/paligemma-3b-pt-224"}  # unless at the default


@ProcessorStepRegistry.register("action_tokenizer_processor")
@dataclass
class ActionTokenizerProcessorStep(KeepsFeatures, ProcessorStep):
    """Adds `action.tokens` `(B, max_action_tokens)` int64 and `action.token_mask`, bool, to the complementary data.

    The action stays as it is. Its tokens t, of `action_tokenizer_input_object` (called with `(1, T, A)`, returns a list
    of lists) or of the FAST tokenizer `action_tokenizer_name`, take ids from the end of the text vocabulary,
    `vocab_size - 1 - fast_skip_tokens - t`, between "Action: " and "|". Longer ones are cut, with a warning.

    trust_remote_code: a FAST tokenizer is code in its repository. A checkpoint's file cannot ask for that by itself:
    loading one with `action_tokenizer_name` needs the override `trust_remote_code` or a tokenizer object.
    """

    action_tokenizer_name: str | None = None
    action_tokenizer_input_object: Any | None = None
    trust_remote_code: bool = True
    max_action_tokens: int = 256
    fast_skip_tokens: int = SAVED["fast_skip_tokens"]
    paligemma_tokenizer_name: str = SAVED["paligemma_tokenizer_name"]
    action_tokenizer: Any = field(default=None, init=False, repr=False)
    text_tokenizer: Any = field(default=None, init=False, repr=False)

    def __post_init__(self):
        if self.action_tokenizer_input_object is None and self.action_tokenizer_name is None:
            raise ValueError(
                "Either 'action_tokenizer_input_object' or 'action_tokenizer_name' must be provided to an "
                "ActionTokenizerProcessorStep."
            )
        self.action_tokenizer = self.action_tokenizer_input_object or self._load()
        self.text_tokenizer = load_tokenizer(self.paligemma_tokenizer_name)

    def _load(self) -> Any:
        from transformers import AutoProcessor

        try:
            return AutoProcessor.from_pretrained(self.action_tokenizer_name, trust_remote_code=self.trust_remote_code)
        except (OSError, ValueError) as e:
            raise FileNotFoundError(
                f"Action tokenizer '{self.action_tokenizer_name}': not in the cache, and the hub lacks it "
                f"or is out of reach, or it needs trust_remote_code ({' '.join(str(e).split())[:200]})."
            ) from e

    @classmethod
    def from_saved(cls, config: dict[str, Any], overrides: dict[str, Any], folder: Path | None):
        return cls(**{**config, "trust_remote_code": False, **overrides})

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        self._current_transition = dict(transition)
        action = transition.get(TransitionKey.ACTION)
        if action is None:
            return transition
        tokens, mask = self._encode(action)
        data = dict(transition.get(TransitionKey.COMPLEMENTARY_DATA) or {})
        return {
            **transition,
            TransitionKey.COMPLEMENTARY_DATA: {**data, ACTION_TOKEN_MASK: mask, ACTION_TOKENS: tokens},
        }

    def _encode(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """action `(B, T, A)`, `(B, A)` or `(A,)`; without a batch axis the result has none."""
        chunks = action[None] if action.ndim == 1 else action
        length = self.max_action_tokens
        tokens = torch.zeros(len(chunks), length, dtype=torch.long)
        mask = torch.zeros(len(chunks), length, dtype=torch.bool)
        for i, chunk in enumerate(chunks.cpu()):
            ids = self._ids(chunk[None])
            if len(ids) > length:
                logging.warning("A chunk has %d action tokens, %d are kept (max_action_tokens).", len(ids), length)
            kept = torch.tensor(ids[:length])
            tokens[i, : len(kept)], mask[i, : len(kept)] = kept, True
        tokens, mask = tokens.to(action.device), mask.to(action.device)
        return (tokens[0], mask[0]) if action.ndim == 1 else (tokens, mask)

    def _ids(self, chunk: Tensor) -> list[int]:
        found = self.action_tokenizer(chunk)[0]
        text, last = self.text_tokenizer, self.text_tokenizer.vocab_size - 1 - self.fast_skip_tokens
        start = [text.bos_token_id, *text.encode(BEGIN, add_special_tokens=False)]
        return [*start, *(last - int(token) for token in found), *text.encode(END)]

    def get_config(self) -> dict[str, Any]:
        config = {"trust_remote_code": self.trust_remote_code, "max_action_tokens": self.max_action_tokens}
        config |= {name: getattr(self, name) for name, usual in SAVED.items() if getattr(self, name) != usual}
        if self.action_tokenizer_name is not None and self.action_tokenizer_input_object is None:
            config["action_tokenizer_name"] = self.action_tokenizer_name
        return config
