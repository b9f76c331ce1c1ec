"""Pictures of the twin with questions about them: where in each camera's picture is the cube that a sentence names?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lerobot.common.envs.koch_sim.expert import KochExpert
from lerobot.common.envs.koch_sim.scene import TASK
from lerobot.common.envs.koch_sim.world import KochWorld
from lerobot.common.utils.images import pictures_as_float, resize_images

APPROACH_FRAMES = 60  # of an episode, in which the cubes still lie where they lay


@dataclass
class PointingSet:
    """N moments of the twin, each with one or more questions.

    pictures: per camera uint8 `(N, 3, H, W)`. Of question q: words[q], the colour; sentences[q]; moments `(Q,)`, the
    row of `pictures`; places int64 `(Q, cameras, 2)` in hundredths of the picture's width and height, 0 to 99 (what
    lies beyond an edge is on it).
    """

    pictures: dict[str, Tensor]
    words: list[str]
    sentences: list[str]
    moments: Tensor
    places: Tensor


def make_pointing_set(
    layouts: int, per_layout: int, size: tuple[int, int], seed0: int, scene: str = "B", cameras=("laptop", "phone")
) -> PointingSet:
    """`per_layout` moments of each of the layouts of seeds `seed0`, ...: the start, and some while the arm approaches.

    size: (height, width) of the pictures. Every cube on the table is asked for. Raises RuntimeError without OpenGL.
    """
    world, rng = KochWorld(scene), np.random.default_rng([seed0, 7])
    pictures, words, moments, places = {camera: [] for camera in cameras}, [], [], []
    for seed in range(seed0, seed0 + layouts):
        for _ in _moments(world, seed, per_layout, rng):
            for index, colour in enumerate(world.layout.colours):
                words.append(colour)
                moments.append(len(pictures[cameras[0]]))
                places.append([place_in_picture(world, camera, world.cube_pose(index)[:3]) for camera in cameras])
            for camera in cameras:
                drawn = torch.from_numpy(world.render(camera).copy()).permute(2, 0, 1)
                small = resize_images(pictures_as_float(drawn)[None], size)[0]
                pictures[camera].append((small * 255).round().to(torch.uint8))
    world.close()
    stacked = {camera: torch.stack(some) for camera, some in pictures.items()}
    sentences = [TASK.format(colour=colour) for colour in words]
    return PointingSet(stacked, words, sentences, torch.tensor(moments), torch.tensor(np.array(places)))


def _moments(world: KochWorld, seed: int, count: int, rng: np.random.Generator):
    """Lets the expert begin the episode of `seed`, and stops at its start and `count` - 1 later frames."""
    world.reset(seed)
    expert = KochExpert()
    expert.reset(world)
    stops = {0, *rng.choice(np.arange(1, APPROACH_FRAMES), count - 1, replace=False).tolist()}
    for frame in range(max(stops) + 1):
        if frame in stops:
            yield frame
        world.step(expert.act(world))


def place_in_picture(world: KochWorld, camera: str, point) -> tuple[int, int]:
    """Where a camera sees a point (3,), in hundredths of its picture from the left and from the top, 0 to 99."""
    which = world.model.camera(camera).id
    rotation = world.data.cam_xmat[which].reshape(3, 3)
    right, up, back = rotation.T @ (np.asarray(point) - world.data.cam_xpos[which])
    depth = max(-back, 1e-3)
    half = np.tan(np.deg2rad(world.model.cam_fovy[which]) / 2)  # of the picture's height, at depth 1
    across = 0.5 + right / depth / (2 * half * world.width / world.height)
    down = 0.5 - up / depth / (2 * half)
    return tuple(int(np.clip(np.floor(100 * value), 0, 99)) for value in (across, down))
