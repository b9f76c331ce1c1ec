"""Whole episodes in processes of their own: the fastest way to evaluate a policy on a CPU.

A worker holds its own environment and its own copy of the policy and uses one core; nobody waits for
anybody's step. It talks in JSON lines over its standard input and output: first the arguments of a loader,
then one line per episode.
"""

from __future__ import annotations

import builtins
import importlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

LOADER = "lerobot.common.evaluation.evaluate:load_for_worker"
READY = {"ready": True}
PATIENCE_S = 3600.0  # for one answer, a policy that loads or an episode; a process that takes longer hangs
END_S = 30.0  # that a killed process may take to be gone


class EpisodeWorkers:
    """Processes that each run one episode after the other; a context manager.

    `loader` is `module:function`; called in each worker with the JSON arguments of `load`, it returns
    (vector environment of one copy, policy, preprocessor, postprocessor). A process that gives no answer within
    `patience_s` is killed and raises TimeoutError.
    """

    def __init__(self, n_workers: int, loader: str = LOADER, patience_s: float = PATIENCE_S):
        self._patience_s = patience_s
        # One thread each: more gain nothing for small policies, and would make results depend on the machine.
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", __name__, loader],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **threads, "PYTHONPATH": path},
            )
            for _ in range(n_workers)
        ]

    def __enter__(self) -> EpisodeWorkers:
        return self

    def __exit__(self, *_) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait(END_S)
            process.stdout.close()
            with suppress(BrokenPipeError):  # a question that it did not read any more
                process.stdin.close()

    def load(self, **arguments: Any) -> None:
        """Give every worker an environment and a policy; raises what the loader raises."""
        self._each(lambda process: self._ask(process, {"load": arguments}))

    def run(
        self, jobs: Sequence[dict[str, Any]], on_result: Callable[[dict], None] | None = None
    ) -> list[dict[str, Any]]:
        """Run episodes and return their rows in the order of `jobs`.

        A job holds `episode_ix`, `seed` and `videos_dir` (null: no video). `on_result` is called, from any
        thread, as episodes end. Raises what a worker raises, and RuntimeError when one dies.
        """
        waiting: queue.SimpleQueue = queue.SimpleQueue()
        for number, job in enumerate(jobs):
            waiting.put((number, job))
        rows: list[Any] = [None] * len(jobs)

        def serve(process: subprocess.Popen) -> None:
            while True:
                try:
                    number, job = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    rows[number] = self._ask(process, {"run": job})
                except Exception:
                    with suppress(queue.Empty):  # the others stop after their present episode
                        while True:
                            waiting.get_nowait()
                    raise
                if on_result is not None:
                    on_result(rows[number])

        self._each(serve)
        return rows

    def _each(self, ask: Callable[[subprocess.Popen], Any]) -> None:
        with ThreadPoolExecutor(len(self._processes)) as pool:
            answers = [pool.submit(ask, process) for process in self._processes]
            try:
                for answer in answers:
                    answer.result()
            except (KeyboardInterrupt, SystemExit):  # not after the episodes that are left
                for process in self._processes:
                    process.kill()
                raise

    def _ask(self, process: subprocess.Popen, message: dict[str, Any]) -> dict[str, Any]:
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self._patience_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if late.is_set():
            raise TimeoutError(f"An evaluation process gave no answer for {self._patience_s:.0f} s and was ended.")
        if not line:
            raise RuntimeError(
                f"An evaluation process ended with code {process.wait(END_S)}; if memory ran out, lower "
                "--eval.batch_size (the number of processes) or set --eval.use_async_envs=false."
            )
        answer = json.loads(line)
        if "error" in answer:
            raise getattr(builtins, answer["kind"])(answer["error"])
        return answer


# --- inside a worker ---------------------------------------------------------------------------------------


def main() -> None:
    """Answer every line of standard input with one line, until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not be taken for an answer
    import torch

    torch.set_num_threads(1)
    module, _, function = sys.argv[1].partition(":")
    parts: tuple = ()
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if "load" in message:
                parts = getattr(importlib.import_module(module), function)(**message["load"])
                answer = READY
            else:
                answer = _run_episode(parts, **message["run"])
        except Exception as e:
            answer = _error(e)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _run_episode(parts: tuple, episode_ix: int, seed: int | None, videos_dir: str | None) -> dict[str, Any]:
    from lerobot.common.evaluation.rollout import episode_rows, run_filmed

    seeds = None if seed is None else [seed]
    result, videos = run_filmed(*parts, seeds, episode_ix, int(videos_dir is not None), videos_dir)
    return episode_rows(result, seeds, episode_ix, videos)[0]


def _error(error: Exception) -> dict[str, str]:
    from lerobot.common.utils.user_errors import USER_ERRORS

    if not isinstance(error, USER_ERRORS):
        logging.exception("An evaluation process failed")
        return {"kind": "RuntimeError", "error": f"{type(error).__name__}: {error}"}
    kind = next(c.__name__ for c in type(error).__mro__ if c.__module__ == "builtins")
    return {"kind": kind, "error": str(error)}


if __name__ == "__main__":
    main()
