"""Fetching the files of a dataset that are not on disk; offline this never touches the network."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from packaging.version import InvalidVersion, Version

from lerobot.common.datasets.backward_compatibility import (
    BackwardCompatibilityError,
    ForwardCompatibilityError,
)

HUB_TIMEOUT_S = 10.0
NEWEST_READ = Version("3.0")
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


def is_valid_version(version: str) -> bool:
    """Whether a branch or tag name is a format version."""
    try:
        Version(version)
    except InvalidVersion:
        return False
    return True


def get_repo_versions(repo_id: str) -> list[Version]:
    """Format versions that a hub dataset offers as branches or tags."""
    refs = HfApi().list_repo_refs(repo_id, repo_type="dataset")
    return [Version(ref.name) for ref in (*refs.branches, *refs.tags) if is_valid_version(ref.name)]


def get_safe_version(repo_id: str, version: str | Version) -> str:
    """The hub revision to read: the wanted version, else the latest earlier one of the same major, else v3.0."""
    wanted, offered = Version(str(version)), get_repo_versions(repo_id)
    if not offered:
        raise FileNotFoundError(
            f"Hub dataset '{repo_id}' has no version tag such as '{version}'; tag it, or give --dataset.revision."
        )
    if wanted in offered:
        return f"v{wanted}"
    if same := [v for v in offered if v.major == wanted.major and v <= wanted]:
        logging.warning("Hub dataset '%s' has no v%s; reading v%s.", repo_id, wanted, max(same))
        return f"v{max(same)}"
    if NEWEST_READ in offered:
        logging.warning("Hub dataset '%s' has no v%s; reading v%s.", repo_id, wanted, NEWEST_READ)
        return f"v{NEWEST_READ}"
    if older := [v for v in offered if v.major < wanted.major]:
        raise BackwardCompatibilityError(repo_id, max(older))
    raise ForwardCompatibilityError(repo_id, min(v for v in offered if v > wanted))


def download_files(
    repo_id: str | None, root: Path, revision: str, missing: str, allow_patterns=None, ignore_patterns=None
) -> None:
    """Download files of a hub dataset into `root`.

    FileNotFoundError saying what was missing, where it was looked for and which flag to set, when that is
    impossible.
    """
    if (root / "meta" / "info.json").is_file() and (repo_id is None or not _HUB_ID.match(repo_id)):
        raise FileNotFoundError(
            f"The dataset '{root}' lacks '{missing}', which its meta/info.json promises. Put the file back; what else "
            f"is missing says: python lerobot/scripts/check_dataset.py {root}"
        )
    hint = f"Dataset not found: '{missing}' does not exist. Set --dataset.root to the folder that holds meta/info.json"
    if repo_id is not None and (Path(repo_id) / "meta" / "info.json").is_file():
        raise FileNotFoundError(f"{hint}: there is one in '{repo_id}', so set --dataset.root={repo_id}.")
    if repo_id is None or not _HUB_ID.match(repo_id):
        raise FileNotFoundError(f"{hint} (--dataset.repo_id={repo_id} is not a hub id 'owner/name').")
    if constants.HF_HUB_OFFLINE:
        raise FileNotFoundError(f"{hint}, or unset HF_HUB_OFFLINE to download '{repo_id}'.")
    try:
        HfApi().dataset_info(repo_id, timeout=HUB_TIMEOUT_S)  # the calls below may wait for minutes
        if is_valid_version(revision):
            revision = get_safe_version(repo_id, revision)
        snapshot_download(
            repo_id,
            repo_type="dataset",
            revision=revision,
            local_dir=root,
            allow_patterns=allow_patterns,
            ignore_patterns=ignore_patterns,
        )
    except (BackwardCompatibilityError, ForwardCompatibilityError):
        raise
    except Exception as e:  # the hub client raises many unrelated types: requests, httpx, its own
        raise FileNotFoundError(f"{hint}; downloading '{repo_id}' failed: {type(e).__name__}: {str(e)[:200]}") from e
