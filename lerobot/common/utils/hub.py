"""Files of a checkpoint: from a local folder, the offline cache, or the Hugging Face hub."""

from __future__ import annotations

import functools
import os
import re
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

HUB_OPTIONS = ("force_download", "proxies", "token", "cache_dir", "local_files_only", "revision")
_REPO_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")


def find_file(name_or_path: str | Path, filename: str, *, required: bool = True, **hub) -> Path | None:
    """Return the local path of `filename` of a checkpoint folder, or of a hub repository (downloaded or cached).

    `hub` takes the options of `huggingface_hub.hf_hub_download`; HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE are honoured.
    Raises FileNotFoundError (or returns None when not `required`) if it is in none of these places.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        path = folder / filename
        if path.is_file():
            return path
        return _missing(required, f"'{filename}' is not in the folder '{folder}'. Files there: {_names(folder)}.")
    if folder.is_file() and folder.name == filename:
        return folder
    if not _REPO_ID.match(str(name_or_path)):
        return _missing(required, f"'{name_or_path}' is neither a folder nor a hub id (expected 'owner/name').")
    options = {k: v for k, v in hub.items() if k in HUB_OPTIONS and v is not None}
    options.setdefault("local_files_only", not hub_is_reachable())
    try:
        return Path(hf_hub_download(str(name_or_path), filename, **options))
    except (LocalEntryNotFoundError, OSError, HfHubHTTPError, HFValidationError) as e:
        if isinstance(e, EntryNotFoundError) and not isinstance(e, LocalEntryNotFoundError):
            reason = "the repository has no such file"
        elif isinstance(e, RepositoryNotFoundError):
            reason = "no such repository (or it is private and no token is set)"
        else:
            reason = "it is not in the cache and the hub could not be reached"
        return _missing(
            required,
            f"'{filename}' of '{name_or_path}': no such folder here, and on the hub: {reason}. "
            "Give a local folder, or set HF_ENDPOINT to a mirror or HF_HOME to a filled cache.",
        )


@functools.cache
def hub_is_reachable() -> bool:
    """Whether the hub (or the mirror that HF_ENDPOINT names) answers; asked once, so that being offline costs seconds
    and not a series of time-outs. Behind a proxy it is taken to answer."""
    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    address = urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection((address.hostname, address.port or 443), timeout=3):
            return True
    except OSError:
        return False


def _missing(required: bool, message: str) -> None:
    if required:
        raise FileNotFoundError(message)
    return None


def _names(folder: Path) -> str:
    return ", ".join(sorted(p.name for p in folder.iterdir())[:20]) or "none"


class HubMixin:
    """Saving to a folder and uploading it; a subclass writes its files in `_save_pretrained`."""

    def save_pretrained(self, save_directory, *, repo_id=None, push_to_hub=False, card_kwargs=None, **push_kwargs):
        """Write this object to a folder (made if absent); with `push_to_hub` also upload it to `repo_id`."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self._save_pretrained(folder)
        if push_to_hub:
            return self.push_to_hub(repo_id or folder.name, **push_kwargs)
        return None

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        allow_patterns=None,
        ignore_patterns=None,
        delete_patterns=None,
        card_kwargs: dict | None = None,
    ) -> str:
        """Upload this object as a model repository and return its address."""
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if branch:
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message or f"Upload {self._hub_name()}",
                revision=branch,
                create_pr=create_pr,
                allow_patterns=allow_patterns,
                ignore_patterns=ignore_patterns,
                delete_patterns=delete_patterns,
            )

    def _hub_name(self) -> str:
        name = type(self).__name__
        return next((word.lower() for word in ("Policy", "Config") if word in name), name)
