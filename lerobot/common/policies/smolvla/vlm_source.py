"""Where a vision-language model's configuration, token ids, tokenizer files and weights come from."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from lerobot.common.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from lerobot.common.processor.tokenizer import TOKENIZER_FOLDER
from lerobot.common.utils.hub import find_file
from lerobot.common.utils.io_utils import read_json, write_json

SIZES = Path(__file__).parent / "sizes"
WEIGHTS_INDEX = "model.safetensors.index.json"
TOKENIZER_JSON = "tokenizer.json"
# What a folder needs so that the tokenizer, and transformers' processor for this model family, load from it.
TOKENIZER_FILES = (
    TOKENIZER_JSON,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
FAKE_IMAGE_TOKEN, GLOBAL_IMAGE_TOKEN = "<fake_token_around_image>", "<global-img>"
HOW_TO_START = (
    "Start from a trained policy (--policy.path=lerobot/smolvla_base), train the small one from zero "
    "(--preset=smolvla_mini), or train everything from random weights (--policy.load_vlm_weights=false "
    "--policy.freeze_vision_encoder=false --policy.train_expert_only=false)."
)


def shipped_sizes() -> dict[str, Path]:
    """Names that are built without a network, and the folder of each: configuration, sometimes tokenizer."""
    return {name: SIZES / folder for name, folder in read_json(SIZES / "names.json").items()}


@dataclass(frozen=True)
class VLMSource:
    """A vision-language model by name: hub id, folder, or a size that ships with the code.

    `checkpoint` is the folder or hub id of a policy whose own copy (sub-folder `tokenizer`) comes first.
    `overrides` are merged into the configuration.
    """

    name: str
    checkpoint: str | Path | None = None
    overrides: dict[str, Any] | None = None

    def config(self) -> dict[str, Any]:
        """The JSON configuration. Raises FileNotFoundError where there is none."""
        path = self.find(CONFIG_NAME)
        if path is None:
            raise FileNotFoundError(
                f"Vision-language model '{self.name}': neither a folder here, nor in the cache, nor could "
                f"its {CONFIG_NAME} be fetched. Set --policy.vlm_model_name to a folder with it and with "
                f"{TOKENIZER_JSON}, or to a size that ships with the code: {', '.join(shipped_sizes())}."
            )
        return merge_nested(read_json(path), self.overrides or {})

    def find(self, filename: str, fetch: bool = True) -> Path | None:
        """The local path of a file of this model, downloaded if needed; without `fetch`, only from the
        cache."""
        for folder in self._folders():
            if (folder / filename).is_file():
                return folder / filename
        offline = {} if fetch else {"local_files_only": True}
        for repository, prefix in self._repositories():
            if path := find_file(repository, prefix + filename, required=False, **offline):
                return path
        return None

    def _folders(self) -> list[Path]:
        candidates = [Path(self.name).expanduser(), shipped_sizes().get(self.name)]
        if self.checkpoint is not None:
            root = Path(self.checkpoint).expanduser().resolve()
            inside = (root / self.name).resolve()
            candidates = [
                root / TOKENIZER_FOLDER,
                *([inside] if inside.is_relative_to(root) else []),
                *candidates,
            ]
        return [c for c in candidates if c is not None and c.is_dir()]

    def _repositories(self) -> list[tuple[str, str]]:
        repositories = [(self.name, "")] if self.name.count("/") == 1 and not Path(self.name).is_dir() else []
        if self.checkpoint is not None and not Path(self.checkpoint).expanduser().is_dir():
            repositories.append((str(self.checkpoint), f"{TOKENIZER_FOLDER}/"))
        return repositories

    def image_token_ids(self) -> tuple[int, int]:
        """Ids of the marker around a picture and of the global-picture marker. Raises ValueError if
        unknown."""
        raw = self.config()
        names = ("fake_image_token_id", "global_image_token_id")
        if all(name in raw for name in names):
            return raw[names[0]], raw[names[1]]
        path = self.find(TOKENIZER_JSON)
        ids = {t["content"]: t["id"] for t in read_json(path)["added_tokens"]} if path else {}
        if FAKE_IMAGE_TOKEN not in ids or GLOBAL_IMAGE_TOKEN not in ids:
            raise ValueError(
                f"--policy.add_image_special_tokens needs the tokens {FAKE_IMAGE_TOKEN} and "
                f"{GLOBAL_IMAGE_TOKEN}, which the tokenizer of '{self.name}' ({path}) does not have."
            )
        return ids[FAKE_IMAGE_TOKEN], ids[GLOBAL_IMAGE_TOKEN]

    def tokenizer_folder(self) -> Path | None:
        """The local folder that holds this model's tokenizer, if it has one."""
        return next((f for f in self._folders() if (f / TOKENIZER_JSON).is_file()), None)

    def save(self, folder: Path) -> None:
        """Write configuration and tokenizer into `folder`, as far as they can be had without a network."""
        if self.find(TOKENIZER_JSON, fetch=False) is None and self.name in shipped_sizes():
            return  # nothing that would not be found by name
        folder.mkdir(parents=True, exist_ok=True)
        write_json(self.config(), folder / CONFIG_NAME)
        for filename in TOKENIZER_FILES:
            source = self.find(filename, fetch=False)
            if source is not None and source.resolve() != (folder / filename).resolve():
                shutil.copyfile(source, folder / filename)

    def load_weights(self, vlm: nn.Module) -> None:
        """Copy the pretrained weights into `vlm`. Raises FileNotFoundError or ValueError, naming other
        starts."""
        found = set()
        for path in self._weight_files():
            found |= _copy_known(path, vlm)
        missing = sorted(set(vlm.state_dict()) - found)
        if missing:
            raise ValueError(
                f"The weights of '{self.name}' lack {len(missing)} tensors that its configuration describes, "
                f"for example {', '.join(missing[:4])}. {HOW_TO_START}"
            )

    def _weight_files(self) -> list[Path]:
        paths = [self.find(SAFETENSORS_SINGLE_FILE)]
        if paths == [None] and (index := self.find(WEIGHTS_INDEX)) is not None:
            paths = [self.find(name) for name in sorted(set(read_json(index)["weight_map"].values()))]
        if None in paths:
            raise FileNotFoundError(
                f"The weights of '{self.name}' (--policy.load_vlm_weights=true) are neither here, "
                f"nor in the cache, nor could they be fetched (HF_HOME, HF_ENDPOINT). {HOW_TO_START}"
            )
        return paths


def _copy_known(path: Path, module: nn.Module) -> set[str]:
    """Copy the tensors of a safetensors file that `module` has, cast to its dtypes; returns their names."""
    targets = module.state_dict()
    try:
        with safe_open(str(path), framework="pt") as f, torch.no_grad():
            known = targets.keys() & set(f.keys())
            for name in known:
                targets[name].copy_(f.get_tensor(name))
    except SafetensorError as e:
        raise ValueError(f"{path} is truncated or not a safetensors file ({e}); fetch it again.") from e
    except RuntimeError as e:  # a shape
        raise ValueError(f"{path} does not fit its config.json: tensor {name}: {e}") from e
    return known


def merge_nested(base: dict, overrides: dict) -> dict:
    """`base` with the values of `overrides`, dictionaries merged key by key."""
    merged = dict(base)
    for key, value in overrides.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge_nested(merged[key], value) if nested else value
    return merged
