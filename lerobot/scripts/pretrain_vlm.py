#!/usr/bin/env python
"""A head start for the small SmolVLA's vision-language model: it learns which thing in a picture a sentence names.

    python lerobot/scripts/pretrain_vlm.py --output_dir=outputs/words
    python lerobot/scripts/train.py --preset=smolvla_mini_words --policy.path=outputs/words --dataset.root=DATASET

The published SmolVLA begins with a vision-language model that knows words and colours from millions of pictures; the
small one begins with random weights. This stands in for it, for the cubes of the simulated arm: on pictures of layouts
that no recording and no evaluation uses, picture tokens first learn to be like the word for the cube that they show,
then, through the language model, to tell whether a whole sentence means them. No action is shown; the expert stays
random. About five minutes of one CPU core.
"""

import argparse
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lerobot.common.constants import ACTION, OBS_IMAGES, OBS_STATE
from lerobot.common.envs.koch_sim.pointing import PointingSet, make_pointing_set
from lerobot.common.optim.clipping import clip_gradients
from lerobot.common.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.common.policies.smolvla.grounding import Grounding, pointing_loss
from lerobot.common.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.common.utils.device import mixed_precision
from lerobot.common.utils.io_utils import read_json
from lerobot.common.utils.utils import init_logging, run_command
from lerobot.configs.types import FeatureType, PolicyFeature

PRESET = Path(__file__).parents[1] / "configs" / "presets" / "smolvla_mini_words.json"
CAMERAS = ("laptop", "phone")
SEED0, HELD_OUT_SEED0 = 50_000, 49_000  # of the layouts
HELD_OUT = 40  # layouts that the answers are tried on
MOST_SHIFT = 12  # pixels to a side; three quarters of it up and down
LOG_FREQ = 50
VISION_RATE = 0.3  # of the learning rate, once the language model learns

Scores = Callable[[list[Tensor], Tensor, list[int]], list[Tensor]]  # of pictures, row of each question, questions


@dataclass(frozen=True)
class Stage:
    """How one of the two things is learned: steps and those of the warm-up, moments per step, questions about each."""

    name: str
    steps: int
    warmup: int
    moments: int
    questions: int | None = None  # at most, drawn; None: about every cube


def make_policy() -> SmolVLAPolicy:
    """The policy of the preset, with random weights, for the simulated arm."""
    fields = {key: value for key, value in read_json(PRESET)["policy"].items() if key != "type"}
    cameras = {f"{OBS_IMAGES}.{c}": PolicyFeature(FeatureType.VISUAL, (3, 480, 640)) for c in CAMERAS}
    inputs = {OBS_STATE: PolicyFeature(FeatureType.STATE, (6,)), **cameras}
    outputs = {ACTION: PolicyFeature(FeatureType.ACTION, (6,))}
    size = tuple(fields.pop("image_size"))
    config = SmolVLAConfig(**fields, image_size=size, device="cpu", input_features=inputs, output_features=outputs)
    return SmolVLAPolicy(config)


def batches(data: PointingSet, size: int, most: int | None) -> Iterator[list[int]]:
    """Endless: the questions about `size` moments, at most `most` of each (drawn); every moment once per round."""
    asked: list[list[int]] = [[] for _ in range(len(data.pictures[CAMERAS[0]]))]
    for question, moment in enumerate(data.moments.tolist()):
        asked[moment].append(question)
    order: list[int] = []
    while True:
        if len(order) < min(size, len(asked)):
            order = torch.randperm(len(asked)).tolist()
        chosen = []
        for moment in order[:size]:
            few = asked[moment]
            chosen += few if most is None else [few[i] for i in torch.randperm(len(few))[:most].tolist()]
        order = order[size:]
        yield chosen


def batch_of(data: PointingSet, questions: list[int]) -> tuple[list[Tensor], Tensor, Tensor]:
    """(pictures per camera in [-1, 1], row of each question, places); each moment once."""
    rows, which = data.moments[questions].unique(return_inverse=True)
    pictures = [p[rows].float() / 255 * 2 - 1 for p in data.pictures.values()]
    return pictures, which, data.places[questions].clone()


def augment(pictures: list[Tensor], places: Tensor) -> None:
    """Shift every camera's pictures, and mirror all of them or none, with the places in them; in place."""
    mirror = torch.rand(()) < 0.5
    for camera, picture in enumerate(pictures):
        height, width = picture.shape[-2:]
        across, down = MOST_SHIFT, MOST_SHIFT * 3 // 4
        dx, dy = int(torch.randint(-across, across + 1, ())), int(torch.randint(-down, down + 1, ()))
        padded = F.pad(picture, (across, across, down, down), mode="replicate")
        moved = padded[:, :, down - dy : down - dy + height, across - dx : across - dx + width]
        places[:, camera, 0] += round(100 * dx / width)
        places[:, camera, 1] += round(100 * dy / height)
        if mirror:
            moved = moved.flip(-1)
            places[:, camera, 0] = 99 - places[:, camera, 0]
        pictures[camera] = moved.contiguous()
    places.clamp_(0, 99)


def learn(stage: Stage, scores_of: Callable[[PointingSet], Scores], groups: list[dict], sets, grid, args) -> float:
    """Train `groups` of parameters by `pointing_loss`; returns the share of held-out answers that are right.

    sets: to learn from, held out.
    """
    data, held_out = sets
    parameters = [p for group in groups for p in group["params"]]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(stage, step))
    stream, scores, losses, right = batches(data, stage.moments, stage.questions), scores_of(data), [], 0.0
    for step in range(1, stage.steps + 1):
        questions = next(stream)
        pictures, which, places = batch_of(data, questions)
        augment(pictures, places)
        with mixed_precision("cpu", True):
            loss, _ = pointing_loss(scores(pictures, which, questions), places, grid)
        loss.backward()
        clip_gradients(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
        if step % LOG_FREQ == 0 or step == stage.steps:
            right = share_right(scores_of(held_out), held_out, grid)
            mean, losses = sum(losses) / len(losses), []
            logging.info("%s step:%d loss:%.3f held-out right:%.0f %%", stage.name, step, mean, 100 * right)
    return right


def rate(stage: Stage, step: int) -> float:
    """Factor on the learning rate: up, then a cosine."""
    return min((step + 1) / stage.warmup, 0.5 * (1 + math.cos(math.pi * step / stage.steps)) + 0.01)


@torch.no_grad()
def share_right(scores: Scores, data: PointingSet, grid: tuple[int, int]) -> float:
    """Share of the answers that are right."""
    right = []
    for questions in torch.arange(len(data.words)).split(64):
        pictures, which, places = batch_of(data, questions.tolist())
        with mixed_precision("cpu", True):
            right.append(pointing_loss(scores(pictures, which, questions.tolist()), places, grid)[1])
    return float(torch.cat(right).float().mean())


def pretrain(args: argparse.Namespace) -> float:
    """Draw the pictures, train, write the policy; returns the share of held-out sentences that it understands.

    Raises FileExistsError for an output folder that is there, RenderingError without OpenGL.
    """
    if args.output_dir.exists():
        raise FileExistsError(f"--output_dir={args.output_dir} exists already. Choose another folder.")
    torch.manual_seed(args.seed)
    policy, start = make_policy().train(), time.process_time()
    size = policy.config.image_size
    sets = (
        make_pointing_set(args.layouts, 3, size, SEED0, cameras=CAMERAS),
        make_pointing_set(HELD_OUT, 2, size, HELD_OUT_SEED0, cameras=CAMERAS),
    )
    logging.info("%d questions on %d moments.", len(sets[0].words), len(sets[0].pictures[CAMERAS[0]]))
    ground = Grounding(policy)

    def words(data: PointingSet) -> Scores:
        return lambda pictures, which, asked: ground.match(pictures, which, [data.words[q] for q in asked])

    def sentences(data: PointingSet) -> Scores:
        return lambda pictures, which, asked: ground.named(pictures, which, [data.sentences[q] for q in asked])

    learn(Stage("words", args.word_steps, 50, 32), words, [{"params": ground.towers()}], sets, ground.grid, args)
    torch.manual_seed(args.seed)
    ground.balance()
    vision, rest = ground.split_parameters()
    groups = [{"params": rest}, {"params": vision, "lr": VISION_RATE * args.lr}]
    right = learn(Stage("sentences", args.sentence_steps, 40, 16, 2), sentences, groups, sets, ground.grid, args)
    policy.save_pretrained(args.output_dir)
    logging.info("Written: %s (%.0f CPU s).", args.output_dir, time.process_time() - start)
    return right


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the policy, to start train.py from")
    parser.add_argument("--layouts", type=int, default=1000, help="with three pictures of each camera")
    parser.add_argument("--word_steps", type=int, default=400)
    parser.add_argument("--sentence_steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1000)
    args = parser.parse_args(arguments)
    for name in ("layouts", "word_steps", "sentence_steps"):
        if getattr(args, name) < 1:
            parser.error(f"--{name}={getattr(args, name)}: expected at least 1")
    return args


def main() -> None:
    """The command."""
    init_logging()
    run_command(lambda: pretrain(parse()))


if __name__ == "__main__":
    main()
