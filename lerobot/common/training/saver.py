"""When checkpoints are written, which are kept, and that training does not wait for the disk."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import threading
from pathlib import Path

from lerobot.common.constants import CHECKPOINTS_DIR
from lerobot.common.training.checkpoint import (
    Snapshot,
    get_step_checkpoint_dir,
    replace_link,
    update_last_checkpoint,
    write_snapshot,
)
from lerobot.common.training.manifest import checkpoints_of
from lerobot.common.utils.io_utils import read_json, write_json

BEST_LINK = "best"
BEST_NAME = "best.json"
LOCK_NAME = ".lock"
LARGER_IS_BETTER = ("success", "reward")


class CheckpointSaver:
    """Writes snapshots in a thread of its own, one at a time; keeps the newest `save_total_limit` and the best.

    A write that fails while training goes on is reported and tried again at the next checkpoint; the last one of a run
    raises. Opening a run's folder removes what an interrupted write left behind, and locks it against a second run.
    """

    def __init__(self, cfg, engine):
        self.cfg, self.folder, self.writes = cfg, Path(cfg.output_dir) / CHECKPOINTS_DIR, engine.is_main
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._lock = lock_output(Path(cfg.output_dir)) if self.writes else None
        if self.writes and self.folder.is_dir():
            remove_leftovers(self.folder)

    def is_due(self, step: int) -> bool:
        """Whether the configuration wants a checkpoint after this update."""
        freq = self.cfg.save_freq
        return self.cfg.save_checkpoint and (step == self.cfg.steps or bool(freq and step % freq == 0))

    def save(self, snapshot: Snapshot | None) -> None:
        """Write a snapshot in the background; waits only while the one before is still being written."""
        if snapshot is None:  # another process writes
            return
        self.wait()
        target = get_step_checkpoint_dir(self.cfg.output_dir, self.cfg.steps, snapshot.step)
        logging.info("Checkpoint %s", target)
        self._thread = threading.Thread(target=self._write, args=(snapshot, target), name="checkpoint", daemon=False)
        self._thread.start()

    def _write(self, snapshot: Snapshot, target: Path) -> None:
        try:
            write_snapshot(snapshot, target)
            update_last_checkpoint(target)
            self._prune(target)
        except BaseException as e:  # shown by wait() in the training thread
            self._error = e

    def wait(self, final: bool = False) -> None:
        """Until the disk has the last snapshot; a failure is logged, or raised at the end of a run."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is None:
            return
        message = (
            f"A checkpoint could not be written to {self.folder}: {error}. Earlier ones are whole. Free some space "
            "(--save_total_limit=3 keeps fewer) or choose another disk (--output_dir)."
        )
        if final or not isinstance(error, OSError):
            raise OSError(message) from error
        logging.error("%s Training goes on; the next checkpoint is tried again.", message)

    def close(self) -> None:
        """Finish writing and free the folder for another run."""
        try:
            self.wait()
        finally:
            if self._lock:
                self._lock.close()

    def require_space(self, policy) -> None:
        """OSError before the first step if the disk has no room for the checkpoints that will stand there at once."""
        cfg = self.cfg
        if not (cfg.save_checkpoint and self.writes):
            return
        one = checkpoint_bytes(cfg, policy)
        free = shutil.disk_usage(cfg.output_dir).free
        if free < one:
            raise OSError(
                f"A checkpoint takes {one / 1e6:.1f} MB and {cfg.output_dir} has {free / 1e6:.1f} MB free. "
                "Free some space or choose another --output_dir."
            )
        count = number_of_checkpoints(cfg)
        kept = min(count, cfg.save_total_limit + 1) if cfg.save_total_limit else count
        if free < one * kept:
            logging.warning(
                "%d checkpoints of %.1f MB do not fit into the %.1f MB free in %s: set --save_total_limit.",
                kept, one / 1e6, free / 1e6, cfg.output_dir,
            )  # fmt: skip

    def _prune(self, newest: Path) -> None:
        limit = self.cfg.save_total_limit
        if not limit:
            return
        best = self.best().get("checkpoint")
        for old in checkpoints_of(self.cfg.output_dir)[:-limit]:
            if old.name not in (newest.name, best):
                doomed = old.with_name(f".{old.name}.{os.getpid()}.old")
                os.replace(old, doomed)  # half-deleted folders are not offered for resume
                shutil.rmtree(doomed)

    # --- the best one ---------------------------------------------------------------------------------------

    def best(self) -> dict:
        """{"metric", "value", "checkpoint"} of the best checkpoint so far; empty before there is one."""
        path = self.folder / BEST_NAME
        found = read_json(path) if path.is_file() else {}
        return found if (self.folder / found.get("checkpoint", "none")).is_dir() else {}

    def consider(self, step: int, values: dict) -> None:
        """Link `best` to the checkpoint of `step` if `--save_best` improved; `values` are as in metrics.jsonl."""
        name = self.cfg.save_best
        target = get_step_checkpoint_dir(self.cfg.output_dir, self.cfg.steps, step)
        if not self.writes or not name or name not in values:
            return
        self.wait(final=step == self.cfg.steps)
        value, best = float(values[name]), self.best()
        sign = 1 if any(word in name for word in LARGER_IS_BETTER) else -1
        known = best.get("metric") == name
        if target.is_dir() and (not known or sign * value > sign * best["value"]):
            write_json({"metric": name, "value": value, "checkpoint": target.name}, self.folder / BEST_NAME)
            replace_link(self.folder / BEST_LINK, target.name)
            logging.info("Best %s so far: %.4g at step %d.", name, value, step)


def remove_leftovers(folder: Path) -> None:
    """Delete what interrupted writes left: hidden temporary files and folders (the lock says no other run is alive)."""
    for partial in [*folder.glob(".*.part"), *folder.glob(".*.old")]:
        if partial.is_dir() and not partial.is_symlink():
            shutil.rmtree(partial)
        else:
            partial.unlink()


def lock_output(folder: Path):
    """Take the output folder for this process until the returned file is closed; the lock dies with the process.

    Raises OSError when the folder cannot be written or another run is writing there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_NAME).open("w")
    except OSError as e:
        raise OSError(
            f"The output folder {folder} cannot be written ({e.strerror}); choose another --output_dir."
        ) from e
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        file.close()
        raise OSError(f"Another run is writing to {folder}; stop it or choose another --output_dir.") from e
    except OSError as e:  # some network file systems have no locks
        logging.warning("%s cannot be locked (%s): see that no second run writes there.", folder, e.strerror)
    return file


def number_of_checkpoints(cfg) -> int:
    """How many a run writes: one every `save_freq` steps, and one at its end."""
    return -(-cfg.steps // cfg.save_freq) if cfg.save_freq else 1


def checkpoint_bytes(cfg, policy) -> int:
    """About what a checkpoint takes: weights, their average if there is one, and the two moments of AdamW."""
    weights = sum(t.numel() * t.element_size() for t in policy.state_dict().values())
    moments = sum(2 * 4 * p.numel() for p in policy.parameters() if p.requires_grad)
    return weights * (2 if cfg.ema_decay else 1) + moments
