"""Convert a checkpoint whose statistics stand inside its weights to one with processor files.

python -m lerobot.processor.migrate_policy_normalization --pretrained-path CHECKPOINT
"""

from __future__ import annotations

import argparse
from pathlib import Path

MIGRATED_SUFFIX = "_migrated"


def migrate(pretrained_path: str, output_dir: str | Path | None = None, revision: str | None = None) -> Path:
    """Write policy and processors to a new folder and return it; by default beside the old one,
    `<name>_migrated`.
    """
    from lerobot.common.policies.factory import get_policy_class, make_pre_post_processors
    from lerobot.configs.policies import PreTrainedConfig

    hub = {"revision": revision} if revision else {}
    config = PreTrainedConfig.from_pretrained(pretrained_path, **hub)
    policy = get_policy_class(config.type).from_pretrained(pretrained_path, config=config, **hub)
    folder = Path(output_dir) if output_dir else default_output(pretrained_path)
    for part in (policy, *make_pre_post_processors(config, pretrained_path, **hub)):
        part.save_pretrained(folder)
    return folder


def default_output(pretrained_path: str) -> Path:
    """Beside a local checkpoint, else in the working directory."""
    local = Path(pretrained_path)
    if local.is_dir():
        return local.with_name(local.resolve().name + MIGRATED_SUFFIX)
    return Path(pretrained_path.replace("/", "_") + MIGRATED_SUFFIX)


def push(folder: Path, repo_id: str, branch: str | None) -> None:
    """Upload the migrated folder; with a branch, as a pull request."""
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repo_id, exist_ok=True)
    message = "Move statistics from the weights to processor files"
    api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message, create_pr=branch is not None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained-path", required=True, help="folder or hub id of the checkpoint")
    parser.add_argument("--output-dir", help="where to write; default <name>_migrated")
    parser.add_argument("--push-to-hub", action="store_true", help="upload the result")
    parser.add_argument("--hub-repo-id", help="where to upload; default --pretrained-path")
    parser.add_argument("--revision", help="revision of a hub checkpoint")
    parser.add_argument("--private", action="store_true", help="accepted for older scripts; has no effect")
    parser.add_argument("--branch", help="upload as a pull request")
    args = parser.parse_args()
    folder = migrate(args.pretrained_path, args.output_dir, args.revision)
    print(f"Written: {folder}")
    if args.push_to_hub:
        push(folder, args.hub_repo_id or args.pretrained_path, args.branch)


if __name__ == "__main__":
    main()
