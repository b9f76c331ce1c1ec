"""Processors of SmolVLA."""

from __future__ import annotations

from lerobot.common.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.common.policies.smolvla.vlm_source import HOW_TO_START, VLMSource
from lerobot.common.processor import (
    SmolVLANewLineProcessor,
    TokenizerProcessorStep,
    make_default_pre_post_processors,
)
from lerobot.common.processor.tokenizer import load_tokenizer

__all__ = ["SmolVLANewLineProcessor", "make_smolvla_pre_post_processors"]


def make_smolvla_pre_post_processors(config: SmolVLAConfig, dataset_stats: dict | None = None):
    """(preprocessor, postprocessor): rename, batch axis, newline, tokenize, device, normalize | unnormalize,
    CPU.

    dataset_stats: statistics by feature. Pictures are resized before the tokenizer when `config.image_size`
    is set. Raises FileNotFoundError if the tokenizer of `config.vlm_model_name` cannot be had.
    """
    return make_default_pre_post_processors(
        config,
        dataset_stats,
        extra_steps_before_device=[SmolVLANewLineProcessor(), make_tokenizer_step(config)],
    )


def make_tokenizer_step(config: SmolVLAConfig) -> TokenizerProcessorStep:
    """The tokenizer of the vision-language model, saved under the name that the configuration has."""
    settings = {
        "tokenizer_name": config.vlm_model_name,
        "max_length": config.tokenizer_max_length,
        "padding_side": "right",
        "padding": config.pad_language_to,
    }
    folder = VLMSource(config.vlm_model_name, config.pretrained_path).tokenizer_folder()
    if folder is None:
        try:
            return TokenizerProcessorStep(**settings)
        except FileNotFoundError as e:
            raise FileNotFoundError(f"{e} HF_HOME may name a filled cache. {HOW_TO_START}") from e
    step = TokenizerProcessorStep(**settings, tokenizer=load_tokenizer(str(folder)))
    step.tokenizer = None  # the name is saved, not the object
    return step
