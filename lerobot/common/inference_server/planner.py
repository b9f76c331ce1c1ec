"""A checkpoint on the server: from observations to a chunk in the robot's units, without a state of its own.

Nothing is kept between two requests, so clients cannot disturb each other: a policy that looks at several observations
gets all of them with each request.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from lerobot.common.checks.finding import Finding
from lerobot.common.inference_server.handshake import compare, is_picture
from lerobot.common.player.noise import TickNoise, noise_options
from lerobot.common.utils.device import mixed_precision


@dataclass
class Plan:
    """Actions float32 (T, A) in the robot's units, `planned` float32 (1, T, A) as the policy gave them, None where it
    cannot continue a chunk, and milliseconds by stage.
    """

    actions: np.ndarray
    planned: np.ndarray | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)


class Planner(Protocol):
    """What a server serves."""

    policy: str  # type
    inputs: dict[str, tuple[int, ...]]  # feature -> shape; pictures (H, W, 3)
    history: int  # observations that one plan looks at
    actions: int  # width of a chunk
    steps: int  # actions played of each chunk, as trained
    rtc: bool  # whether it can continue a chunk

    def check(self, robot: dict, task: str) -> list[Finding]:
        """Whether a robot, as its hello describes it, and this checkpoint belong together."""

    def plan(self, observation: dict[str, np.ndarray], task: str, robot_type: str, options: dict) -> Plan:
        """The chunk for observations (history, ...); `options` may have the fields of `wire.CONTINUED`, and `noise`
        with those of `wire.NOISE`.
        """


class CheckpointPlanner:
    """`config` is that of a checkpoint, with `pretrained_path`; ValueError lists what is wrong with the files."""

    def __init__(self, config):
        from lerobot.common.checks.checkpoint import check_checkpoint
        from lerobot.common.policies.common.fast_inference import use_inference_mode
        from lerobot.common.policies.factory import get_policy_class, make_pre_post_processors

        path = config.pretrained_path
        checked = check_checkpoint(path)
        errors = [finding.message for finding in checked.findings if finding.severity == "error"]
        if errors:
            raise ValueError(" ".join(errors))
        self.config, self.facts, self.policy = config, checked.facts, config.type
        self._policy = get_policy_class(config.type).from_pretrained(path, config=config)
        use_inference_mode(self._policy)
        self._preprocess, self._postprocess = make_pre_post_processors(config, path)
        self._lock = threading.Lock()
        self.inputs = {
            key: (*feature.shape[1:], 3) if is_picture(key) else tuple(feature.shape)
            for key, feature in config.input_features.items()
            if "empty_camera" not in key
        }
        self.history = getattr(config, "n_obs_steps", 1)
        self.actions = config.action_feature.shape[0]
        self.steps = getattr(config, "n_action_steps", 1)
        self.rtc = self._policy.supports_rtc()

    def check(self, robot: dict, task: str) -> list[Finding]:
        """The doctor's checks of robot and checkpoint."""
        return compare(robot, self.config, self.facts, task)

    def plan(self, observation: dict[str, np.ndarray], task: str, robot_type: str, options: dict) -> Plan:
        """One chunk; states float32 (O, S), pictures uint8 (O, H, W, 3)."""
        device = torch.device(self.config.device)
        with self._lock, torch.inference_mode(), mixed_precision(device, self.config.use_amp):
            times = [time.perf_counter()]
            batch = {key: _tensor(key, value).to(device) for key, value in observation.items()}
            batch = self._preprocess({**batch, "task": [task] * self.history, "robot_type": robot_type})
            if self.history > 1:  # the frames of one observation, not a batch of several
                tensors = {key: batch[key].unsqueeze(0) for key in observation}
                batch = {**batch, **tensors}
            options = self._on_device(options, device)
            times.append(time.perf_counter())
            chunk = self._policy.predict_action_chunk(batch, **options)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter())
            planned = chunk.float()
            actions = torch.cat([self._postprocess(step).float().cpu() for step in planned.unbind(dim=1)]).numpy()
            times.append(time.perf_counter())
        stages = zip(("preprocess", "model", "postprocess"), np.diff(times) * 1e3, strict=True)
        spent = {stage: float(milliseconds) for stage, milliseconds in stages}
        return Plan(actions, planned.cpu().numpy() if self.rtc else None, spent)

    def _on_device(self, options: dict, device: torch.device) -> dict:
        noise = noise_options(self._policy, TickNoise(**options["noise"]), 1) if "noise" in options else {}
        options = {name: value for name, value in options.items() if name != "noise"}
        if "prev_chunk_left_over" in options:
            left_over = torch.from_numpy(options["prev_chunk_left_over"].copy()).to(device)
            options["prev_chunk_left_over"] = left_over
        return {**options, **noise}


def _tensor(key: str, value: np.ndarray) -> torch.Tensor:
    tensor = torch.from_numpy(value.copy())  # what came over the network is read-only
    return tensor.permute(0, 3, 1, 2).contiguous().float() / 255 if is_picture(key) else tensor
