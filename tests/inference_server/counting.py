"""A planner that needs no model, and a robot's description."""

from __future__ import annotations

import numpy as np

from lerobot.common.checks.finding import Finding
from lerobot.common.inference_server.planner import Plan

JOINTS = [f"main_{i}" for i in range(6)]
CAMERA = "observation.images.laptop"


class Counting:
    """Plans ten actions: the state plus 0, 1, 2, ... tenths of a degree."""

    policy, actions, steps, rtc = "counting", 6, 10, False

    def __init__(self, picture: tuple[int, ...] | None = None, history: int = 1):
        self.inputs = {"observation.state": (6,), **({CAMERA: picture} if picture else {})}
        self.history, self.seen = history, []

    def check(self, robot, task):
        size = robot["cameras"].get(CAMERA)
        if CAMERA in self.inputs and size != list(self.inputs[CAMERA]):
            return [Finding("robot.policy.picture_size", "error", f"{CAMERA} is {size}.", fix="other camera")]
        return []

    def plan(self, observation, task, robot_type, continues):
        self.seen.append((observation, task))
        steps = np.arange(10, dtype=np.float32)[:, None] / 10
        return Plan(observation["observation.state"][-1] + steps, None, {"model": 0.1})


def describe(**changes) -> dict:
    robot = {"type": "koch", "cameras": {}, "joints": JOINTS, "low": [-90.0] * 6, "high": [90.0] * 6}
    return {**robot, "fps": 30.0, "units": "legacy", **changes}
