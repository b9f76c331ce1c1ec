"""Demonstrations to clone a policy from: the expert on a disturbed arm, with clean labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lerobot.common.envs.koch_sim.arm import MOTOR_NAMES
from lerobot.common.envs.koch_sim.expert import KochExpert, Style
from lerobot.common.envs.koch_sim.world import KochWorld

EVALUATION_SEEDS = range(10_000, 10_100)
MAX_FRAMES = 450
NOISE = 0.03  # radians
NOISE_MEMORY = 0.9  # of the previous frame's disturbance, what remains in this one
ATTEMPTS = 20


def demonstrate(world: KochWorld, seed: int, noise: float = NOISE, attempt: int = 0) -> Iterator[np.ndarray]:
    """Plays the episode of `seed`; yields the expert's six targets in degrees before each frame.

    What the arm executes is the target plus first-order autoregressive noise (standard deviation `noise`
    radians per joint), so that the demonstrations show the way back from small errors. Ends on success or
    after 450 frames. `attempt` draws another tempo and another disturbance for the same layout.
    """
    world.reset(seed)
    rng = np.random.default_rng([seed, attempt, 1])
    expert = KochExpert()
    expert.reset(world, Style.draw(rng))
    spread = np.rad2deg(noise) * np.sqrt(1 - NOISE_MEMORY**2)
    disturbance = np.zeros(6)
    while not world.success and world.frame < MAX_FRAMES:
        target = expert.act(world)
        yield target
        disturbance = NOISE_MEMORY * disturbance + rng.normal(0, spread, 6)
        world.step(target + disturbance)


def successful_attempt(world: KochWorld, seed: int, noise: float = NOISE) -> int:
    """The first attempt at `seed` that succeeds; nothing is drawn. Raises RuntimeError after 20."""
    for attempt in range(ATTEMPTS):
        for _ in demonstrate(world, seed, noise, attempt):
            pass
        if world.success:
            return attempt
    raise RuntimeError(f"the expert failed {ATTEMPTS} times on seed {seed} with --noise={noise}; lower --noise")


def record_episode(dataset, world: KochWorld, seed: int, noise: float = NOISE) -> int:
    """Adds the episode of `seed` to a LeRobotDataset that has `dataset_features`; returns its length."""
    attempt = successful_attempt(world, seed, noise)
    for target in demonstrate(world, seed, noise, attempt):
        dataset.add_frame(
            {
                "action": target.astype(np.float32),
                "observation.state": world.joint_angles().astype(np.float32),
                "observation.images.laptop": world.render("laptop"),
                "observation.images.phone": world.render("phone"),
                "task": world.task,
            }
        )
    dataset.save_episode()
    return world.frame


def dataset_features(world: KochWorld) -> dict[str, dict]:
    """The features of a recorded set, named as a real Koch set of the legacy layout names them."""
    motors = {"dtype": "float32", "shape": (6,), "names": list(MOTOR_NAMES)}
    shape = (world.height, world.width, 3)
    camera = {"dtype": "video", "shape": shape, "names": ["height", "width", "channels"]}
    return {
        "action": dict(motors),
        "observation.state": dict(motors),
        "observation.images.laptop": dict(camera),
        "observation.images.phone": dict(camera),
    }
