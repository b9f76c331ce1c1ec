"""Errors for datasets whose format version this package does not read."""

from __future__ import annotations

from packaging.version import Version


class CompatibilityError(ValueError):
    """Base of the errors below."""


class BackwardCompatibilityError(CompatibilityError):
    """A dataset older than any version that is read here."""

    def __init__(self, repo_id: str | None, version: Version):
        super().__init__(
            f"Dataset '{repo_id}' has format v{version}; v2.0, v2.1 and v3.0 are read. Convert it first: "
            f"python lerobot/common/datasets/v2/convert_dataset_v1_to_v2.py --root={repo_id} --output=FOLDER "
            '--single-task="..."'
        )


class ForwardCompatibilityError(CompatibilityError):
    """A dataset newer than any version that is read here."""

    def __init__(self, repo_id: str | None, version: Version):
        super().__init__(
            f"Dataset '{repo_id}' has format v{version}; v2.0, v2.1 and v3.0 are read. Give a copy in one of them "
            "with --dataset.root (or --dataset.revision=v3.0 for a hub dataset), or update this package."
        )
