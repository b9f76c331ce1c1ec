"""Where pi0's tokenizer comes from, and how a checkpoint gets its own copy."""

from __future__ import annotations

import shutil
from pathlib import Path

from lerobot.common.processor.tokenizer import TOKENIZER_FOLDER
from lerobot.common.utils.hub import find_file

SHIPPED = Path(__file__).parent / "tokenizers"
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model")


def tokenizer_folder(name: str, checkpoint: str | Path | None = None) -> Path | None:
    """The folder that holds the tokenizer: the checkpoint's own copy, a folder of this name, one that ships.

    A relative name does not lead out of the checkpoint. None where only cache or hub may have it.
    """
    candidates = [Path(name).expanduser(), SHIPPED / name if "/" not in name else None]
    if checkpoint is not None:
        root = Path(checkpoint).expanduser().resolve()
        inside = (root / name).resolve()
        candidates = [root / TOKENIZER_FOLDER, inside if inside.is_relative_to(root) else None, *candidates]
    return next((c for c in candidates if c is not None and (c / FILES[0]).is_file()), None)


def save_tokenizer(name: str, checkpoint: str | Path | None, folder: Path) -> None:
    """Copy the tokenizer into `folder / "tokenizer"`, as far as it can be had without a network."""
    source, target = tokenizer_folder(name, checkpoint), folder / TOKENIZER_FOLDER
    for filename in FILES:
        if source is not None:
            path = source / filename if (source / filename).is_file() else None
        else:
            path = find_file(name, filename, required=False, local_files_only=True)
        if path is not None and path.resolve() != (target / filename).resolve():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / filename)
