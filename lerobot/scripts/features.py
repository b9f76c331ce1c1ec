#!/usr/bin/env python
"""Look at, check or delete the stores that --policy.frozen_features keeps.

    python lerobot/scripts/features.py list
    python lerobot/scripts/features.py verify [NAME ...]
    python lerobot/scripts/features.py remove NAME ... | --all

Stores lie in HF_LEROBOT_HOME/features, or where --dir says. A store that is removed is filled again when needed.
"""

import argparse
import datetime as dt
import shutil
from pathlib import Path

from tqdm import tqdm

from lerobot.common.constants import HF_LEROBOT_HOME
from lerobot.common.datasets.frame_store import DONE, MANIFEST, FrameStore
from lerobot.common.utils.utils import run_command


def find_stores(folder: Path, names: list[str]) -> list[FrameStore]:
    """The stores of these names, or all; FileNotFoundError names one that is not there."""
    known = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{MANIFEST}"))}
    if unknown := sorted(set(names) - set(known)):
        raise FileNotFoundError(f"No store '{unknown[0]}' in '{folder}'; there are: {', '.join(known) or 'none'}.")
    return [FrameStore.at(known[name]) for name in names or known]


def size_on_disk(store: FrameStore) -> int:
    """Bytes that a store really takes; its files are sparse until they are full."""
    return sum(path.stat().st_blocks * 512 for path in store.root.iterdir())


def describe(store: FrameStore) -> str:
    """One line about a store."""
    used = dt.datetime.fromtimestamp((store.root / DONE).stat().st_mtime)
    done = f"{len(store.episodes_done)} of {store.num_episodes} episodes"
    what = f"{store.depends.get('policy', '?')} {store.depends.get('mode', '?')}"
    return f"{store.root.name}  {what:<20} {size_on_disk(store) / 1e9:8.2f} GB  {done:<24} filled {used:%Y-%m-%d %H:%M}"


def list_stores(stores: list[FrameStore], folder: Path) -> None:
    """Print what there is."""
    for store in stores:
        print(describe(store))
    total = sum(size_on_disk(store) for store in stores)
    print(f"{len(stores)} stores, {total / 1e9:.2f} GB in '{folder}'.")


def verify_stores(stores: list[FrameStore]) -> None:
    """Compare every record with its checksum; FrameStoreError names the first that differs."""
    for store in stores:
        for episode in tqdm(store.episodes_done, desc=store.root.name, unit="episode"):
            store.verify(episode)
        print(f"{store.root.name}: {len(store.episodes_done)} episodes as they were written.")


def remove_stores(stores: list[FrameStore]) -> None:
    """Delete stores that no process uses; FrameStoreError where one does."""
    for store in stores:
        size = size_on_disk(store)
        store.hold_for_filling()
        shutil.rmtree(store.root)
        store.release()
        print(f"Removed {store.root.name} ({size / 1e9:.2f} GB).")


def main():
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["list", "verify", "remove"])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--dir", type=Path, default=HF_LEROBOT_HOME / "features")
    parser.add_argument("--all", action="store_true", help="with remove: every store")
    args = parser.parse_args()
    if args.command == "remove" and not args.names and not args.all:
        parser.error("remove: name the stores, or say --all")
    stores = find_stores(args.dir.expanduser(), args.names)
    if args.command == "list":
        list_stores(stores, args.dir)
    elif not stores:
        print(f"No stores in '{args.dir}'.")
    else:
        {"verify": verify_stores, "remove": remove_stores}[args.command](stores)


if __name__ == "__main__":
    run_command(main)
