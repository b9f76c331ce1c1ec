"""The episodes of one recording: each is recorded, reviewed, saved, and taken back when the operator wants it again."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lerobot.common.robot_devices.coach import EpisodeReport, review_episode
from lerobot.common.robot_devices.control_configs import RecordControlConfig
from lerobot.common.robot_devices.control_utils import PolicyRunner, record_episode, reset_environment, warmup_record
from lerobot.common.robot_devices.pace import Pace
from lerobot.common.robot_devices.preflight import sentence
from lerobot.common.robot_devices.speech import log_say
from lerobot.common.utils.io_utils import write_text

REPORT_NAME = "control_report.jsonl"  # beside the dataset's folder: one line per episode
CHOICE = "Left arrow (r): record it again. Right arrow (n): go on."
CHOICE_S = 15.0  # where nothing has to be put back, the longest wait for a key after the advice to record again
POLL_S = 0.05


@dataclass
class Recording:
    """Records episodes of an energised robot into `dataset`, moved by its leader unless there is a `policy`."""

    robot: Any
    cfg: RecordControlConfig
    dataset: Any
    policy: PolicyRunner | None
    fps: float
    events: dict[str, bool]  # set by key presses
    has_keys: bool
    viewer: Any = None
    outcomes: list[bool] = field(default_factory=list)  # of each saved episode, if a simulator tells
    starts: list[np.ndarray] = field(default_factory=list)  # start pose of each saved episode

    @property
    def simulated(self) -> bool:
        """Whether the scene puts itself back."""
        return hasattr(self.robot, "reset_scene")

    def run(self) -> None:
        """Record until there are enough episodes, or Escape."""
        cfg, events = self.cfg, self.events
        log_say("Warmup record", cfg.play_sounds)
        shown = self.viewer or False
        if cfg.warmup_time_s > 0:
            warmup_record(self.robot, events, self.policy is None, cfg.warmup_time_s, shown, self.fps)
        recorded, seed = 0, self.robot.seed if self.simulated else None
        while recorded < cfg.num_episodes:
            if self.simulated:
                self.robot.reset_scene(seed)
            report, saved = self._record_one(seed)
            if not events["stop_recording"]:
                self._between(report, saved, last=recorded + 1 == cfg.num_episodes)
            if events["rerecord_episode"]:
                log_say("Re-record episode", cfg.play_sounds)
                events["rerecord_episode"] = events["exit_early"] = False
                if saved:
                    self._take_back()
                continue
            recorded += 1
            seed = seed + 1 if self.simulated else None
            if events["stop_recording"]:
                return

    def _record_one(self, seed: int | None) -> tuple[EpisodeReport, bool]:
        """Record an episode, print what the coach says and save it, unless it is wanted again: (report, saved)."""
        robot, cfg, dataset, policy = self.robot, self.cfg, self.dataset, self.policy
        log_say(f"Recording episode {dataset.meta.total_episodes}", cfg.play_sounds)
        pace, drops = Pace(self.fps), {name: camera.drops for name, camera in robot.cameras.items()}
        record_episode(
            robot,
            dataset,
            self.events,
            cfg.episode_time_s,
            self.viewer or False,
            policy,
            self.fps,
            sentence(robot, cfg.single_task),
            pace=pace,
            stop_when=(lambda: robot.success) if self.simulated else None,
        )
        success = robot.success if self.simulated else None  # before the arm moves on
        report = self._review(pace, drops)
        print("\n".join([str(report), *(policy.lines() if policy else [])]), flush=True)
        if self.simulated:
            print(f"Outcome: {'success' if success else 'no success'} (seed {seed})", flush=True)
        if self.events["rerecord_episode"]:
            dataset.clear_episode_buffer()
            return report, False
        self.starts.append(np.array(dataset.episode_buffer["observation.state"][0]))
        dataset.save_episode()  # before the time to reset, so that a kill then does not lose it
        outcome = {"seed": seed, "success": success} if self.simulated else {}
        self.outcomes += [success] if self.simulated else []
        self._write_report(pace, report, outcome | (policy.report() if policy else {}))
        return report, True

    def _between(self, report: EpisodeReport, saved: bool, last: bool) -> None:
        """Time to put things back and, whatever the coach said, to want the episode again."""
        advised = saved and self.has_keys and report.advice == "redo"
        if self.simulated:
            if advised:
                print(f"  {CHOICE} Within {min(CHOICE_S, self.cfg.reset_time_s):.0f} s; else it is kept.", flush=True)
                wait_for_key(self.events, min(CHOICE_S, self.cfg.reset_time_s))
        elif (not last or not saved or advised) and self.cfg.reset_time_s > 0:
            log_say("Reset the environment", self.cfg.play_sounds)
            if self.has_keys:
                logging.info(CHOICE)
            reset_environment(self.robot, self.events, self.cfg.reset_time_s, self.fps)

    def _take_back(self) -> None:
        """Remove the episode that was saved last, and what is known of it."""
        dataset = self.dataset
        if dataset.meta.is_v30:  # episodes share files
            number = dataset.meta.total_episodes - 1
            logging.warning(
                "Episode %d stays for now; leave it out afterwards: python lerobot/scripts/edit_dataset.py --root=%s "
                "--output=FOLDER --delete='[%d]'",
                *(number, dataset.root, number),
            )
            return
        path = self._report_path
        write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), path)
        dataset.drop_last_episode()
        self.starts.pop()
        del self.outcomes[-1:]

    def _review(self, pace: Pace, drops_before: dict[str, int]) -> EpisodeReport:
        robot = self.robot
        envelopes = robot.envelopes.values()
        return review_episode(
            self.dataset.episode_buffer,
            self.fps,
            pace,
            robot.motor_features["action"]["names"],
            np.concatenate([e.limits.low for e in envelopes]),
            np.concatenate([e.limits.high for e in envelopes]),
            self.starts,
            {name: camera.drops - drops_before[name] for name, camera in robot.cameras.items()},
        )

    def _write_report(self, pace: Pace, report: EpisodeReport, outcome: dict) -> None:
        """Add a line on the saved episode to the file beside the dataset."""
        robot = self.robot
        line = {
            "episode": self.dataset.meta.total_episodes - 1,
            **report.numbers,
            **pace.summary(),
            **outcome,
            "safety": {name: envelope.interventions() for name, envelope in robot.envelopes.items()},
            "bus": {name: bus.counters.to_dict() for name, bus in robot.follower_arms.items()},
            "findings": [finding.to_dict() for finding in report.findings],
        }
        with open(self._report_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    @property
    def _report_path(self) -> Path:
        return self.dataset.root.parent / f"{self.dataset.root.name}.{REPORT_NAME}"


def wait_for_key(events: dict[str, bool], seconds: float) -> None:
    """Until a key ends the phase, or the time is over; the arm holds by itself meanwhile."""
    end = time.monotonic() + seconds
    while not events["exit_early"] and time.monotonic() < end:
        time.sleep(POLL_S)
    events["exit_early"] = False
