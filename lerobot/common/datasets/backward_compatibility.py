"""Errors for datasets whose format version this package does not read."""

from __future__ import annotations

from packaging.version import Version


class CompatibilityError(ValueError):
    """Base of the errors below."""


class BackwardCompatibilityError(CompatibilityError):
    """A dataset older than any version that is read here."""

    def __init__(self, repo_id: str | None, version: Version):
        super().__init__(
            f"Dataset '{repo_id}' has format v{version}; v2.0 and v2.1 are read. Convert it to v2.1 first."
        )


class ForwardCompatibilityError(CompatibilityError):
    """A dataset newer than any version that is read here."""

    def __init__(self, repo_id: str | None, version: Version):
        super().__init__(
            f"Dataset '{repo_id}' has format v{version}; v2.0 and v2.1 are read. Give its v2.1 copy with "
            "--dataset.root (or --dataset.revision=v2.1 for a hub dataset), or update this package."
        )
