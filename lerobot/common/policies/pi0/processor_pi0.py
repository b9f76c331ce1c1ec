"""Processors of pi0."""

from __future__ import annotations

from lerobot.common.policies.pi0.configuration_pi0 import PI0Config
from lerobot.common.policies.pi0.tokenizer_source import tokenizer_folder
from lerobot.common.processor import (
    AlohaActionsProcessorStep,
    AlohaInputsProcessorStep,
    Pi0NewLineProcessor,
    TokenizerProcessorStep,
    make_default_pre_post_processors,
)
from lerobot.common.processor.tokenizer import load_tokenizer

__all__ = ["Pi0NewLineProcessor", "make_pi0_pre_post_processors"]


def make_pi0_pre_post_processors(config: PI0Config, dataset_stats: dict | None = None):
    """(preprocessor, postprocessor): rename, batch axis, newline, tokenize, device, normalize | unnormalize, CPU.

    dataset_stats: statistics by feature. Pictures are resized before the tokenizer when `config.image_size` is set;
    with `config.adapt_to_pi_aloha`, Aloha's units are converted outside of the normalization. Raises
    FileNotFoundError if the tokenizer cannot be had.
    """
    steps = [Pi0NewLineProcessor(), make_tokenizer_step(config)]
    if config.adapt_to_pi_aloha:
        steps.append(AlohaInputsProcessorStep())
    pre, post = make_default_pre_post_processors(config, dataset_stats, extra_steps_before_device=steps)
    if config.adapt_to_pi_aloha:
        post.steps.insert(1, AlohaActionsProcessorStep())
    return pre, post


def make_tokenizer_step(config: PI0Config) -> TokenizerProcessorStep:
    """PaliGemma's tokenizer, saved under the name that the configuration has."""
    settings = {
        "tokenizer_name": config.tokenizer_name,
        "max_length": config.tokenizer_max_length,
        "padding_side": "right",
        "padding": "max_length",
    }
    folder = tokenizer_folder(config.tokenizer_name, config.pretrained_path)
    if folder is None:
        try:
            return TokenizerProcessorStep(**settings)
        except FileNotFoundError as e:
            raise FileNotFoundError(
                f"{e} '{config.tokenizer_name}' is gated: accept its licence on the hub and log in, put its files into "
                "a folder and name that (--policy.tokenizer_name=FOLDER), or train the small pi0 (--preset=pi0_mini)."
            ) from e
    step = TokenizerProcessorStep(**settings, tokenizer=load_tokenizer(str(folder)))
    step.tokenizer = None  # the name is saved, not the object
    return step
