"""Errors for datasets whose format version this package does not read."""

from __future__ import annotations

from packaging.version import Version


class CompatibilityError(ValueError):
    """Base of the errors below."""


V2_MESSAGE = (
    "Dataset '{repo_id}' has format v{version}; v2.0, v2.1 and v3.0 are read. Convert it first: "
    "python lerobot/common/datasets/v2/convert_dataset_v1_to_v2.py --root={repo_id} --output=FOLDER "
    '--single-task="..."'
)
V21_MESSAGE = (
    "Dataset '{repo_id}' has format v{version}, without statistics per episode. It is read; to add them: "
    "python lerobot/common/datasets/v21/convert_dataset_v20_to_v21.py --root={repo_id}"
)
V30_MESSAGE = (
    "Dataset '{repo_id}' has format v{version}. It is read; for several episodes per file: "
    "python lerobot/common/datasets/v30/convert_dataset_v21_to_v30.py --root={repo_id} --output=FOLDER"
)
FUTURE_MESSAGE = (
    "Dataset '{repo_id}' has format v{version}; v2.0, v2.1 and v3.0 are read. Give a copy in one of them "
    "with --dataset.root (or --dataset.revision=v3.0 for a hub dataset), or update this package."
)


class BackwardCompatibilityError(CompatibilityError):
    """A dataset older than any version that is read here."""

    def __init__(self, repo_id: str | None, version: Version):
        super().__init__(V2_MESSAGE.format(repo_id=repo_id, version=version))


class ForwardCompatibilityError(CompatibilityError):
    """A dataset newer than any version that is read here."""

    def __init__(self, repo_id: str | None, version: Version):
        super().__init__(FUTURE_MESSAGE.format(repo_id=repo_id, version=version))
