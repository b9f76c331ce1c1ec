"""The camera ghost: is every camera where it was when the training data was recorded?

A checkpoint keeps one reference picture per camera (`camera_reference/<name>.png`). Before a run each live picture is
laid over its reference, scored against all references, and the overlay is saved.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lerobot.common.checks.finding import Finding, Where
from lerobot.common.datasets.image_writer import write_image

REFERENCE_DIR = "camera_reference"
SMALL = (160, 120)  # width, height at which pictures are compared
ALIKE = 0.25  # correlation of the edges below which a view is another one
BETTER = 0.15  # by how much another view or the mirror image must be more alike
MOVED = 0.02  # of the picture's width
BRIGHTER = 0.15  # of the full scale
EDGE_BLUR = 1.5


@dataclass(frozen=True)
class View:
    """How a live picture compares with its reference: edge correlation, shift in shares of width and height, light."""

    alike: float
    shift: tuple[float, float]
    brighter: float


def save_references(pictures: dict[str, np.ndarray], checkpoint: str | Path) -> None:
    """Keep pictures {camera: uint8 (H, W, 3) RGB} with a checkpoint."""
    for name, picture in pictures.items():
        write_image(picture, Path(checkpoint) / REFERENCE_DIR / f"{name}.png")


def load_references(checkpoint: str | Path) -> dict[str, np.ndarray]:
    """The reference pictures of a checkpoint by camera, uint8 (H, W, 3) RGB; empty if it has none."""
    paths = sorted((Path(checkpoint) / REFERENCE_DIR).glob("*.png"))
    return {path.stem: cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths}


def references_of_dataset(meta) -> dict[str, np.ndarray]:
    """The first picture of each camera of the dataset with this metadata, uint8 (H, W, 3) RGB."""
    from lerobot.common.datasets.lerobot_dataset import LeRobotDataset

    if not meta.camera_keys or not meta.total_episodes:
        return {}
    first = next(iter(meta.episodes))
    frame = LeRobotDataset(meta.repo_id, root=meta.root, episodes=[first], return_uint8=True)[0]
    return {
        key.rsplit(".", 1)[-1]: np.ascontiguousarray(frame[key].numpy().transpose(1, 2, 0)) for key in meta.camera_keys
    }


def compare(live: np.ndarray, reference: np.ndarray) -> View:
    """Score two pictures, uint8 (H, W, 3)."""
    first, second = _edges(reference), _edges(live)
    (dx, dy), _ = cv2.phaseCorrelate(first, second, cv2.createHanningWindow(SMALL, cv2.CV_64F))
    light = (_grey(live).mean() - _grey(reference).mean()) / 255
    return View(_correlation(first, second), (dx / SMALL[0], dy / SMALL[1]), float(light))


def check_cameras(live: dict[str, np.ndarray], references: dict[str, np.ndarray]) -> list[Finding]:
    """Cameras that were moved, swapped, mirrored, or see another light."""
    found = []
    for name, picture in live.items():
        if name not in references:
            continue
        view = compare(picture, references[name])
        evidence = {"alike": round(view.alike, 3), "shift": [round(s, 4) for s in view.shift]}
        evidence["brighter"] = round(view.brighter, 3)
        found += [
            Finding(code, severity, text, Where(feature=name), evidence)
            for code, severity, text in _verdicts(name, picture, view, references)
        ]
    return found


def _verdicts(name: str, picture: np.ndarray, view: View, references: dict[str, np.ndarray]):
    name_of = {other: compare(picture, image).alike for other, image in references.items() if other != name}
    nearest = max(name_of, key=name_of.get, default=None)
    guesses = {  # what else could have happened -> how alike the pictures would be then
        "camera.mirrored": compare(picture[:, ::-1], references[name]).alike,
        "camera.upside_down": compare(picture[::-1, ::-1], references[name]).alike,
        "camera.swapped": name_of.get(nearest, -1.0),
    }
    texts = {
        "camera.mirrored": f"camera '{name}' is mirrored: switch its mirror image off.",
        "camera.upside_down": f"camera '{name}' is upside down: turn it, or set its rotation to 180.",
        "camera.swapped": f"camera '{name}' shows what '{nearest}' showed: swap their indices.",
    }
    shift = np.hypot(*view.shift)
    best = max(guesses, key=guesses.get)
    if guesses[best] > max(view.alike, ALIKE) + BETTER:
        yield best, "error", texts[best]
    elif view.alike < ALIKE and shift < MOVED:
        yield "camera.other_view", "warning", f"camera '{name}' sees another scene than in training."
    elif shift >= MOVED:
        text = f"camera '{name}' was moved: the view is shifted by {view.shift[0]:+.0%}, {view.shift[1]:+.0%}."
        yield "camera.moved", "warning", text
    if abs(view.brighter) > BRIGHTER:
        kind = "brighter" if view.brighter > 0 else "darker"
        yield f"camera.{kind}", "warning", f"camera '{name}' is {kind} than in training by {abs(view.brighter):.0%}."


def save_overlays(live: dict[str, np.ndarray], references: dict[str, np.ndarray], folder: str | Path) -> list[Path]:
    """Per camera a picture with the reference laid over the live view, half and half; their paths."""
    paths = []
    for name, picture in live.items():
        if name in references:
            reference = cv2.resize(references[name], (picture.shape[1], picture.shape[0]))
            path = Path(folder) / f"ghost_{name}.png"
            write_image(cv2.addWeighted(np.ascontiguousarray(picture), 0.5, reference, 0.5, 0), path)
            paths.append(path)
    return paths


def _grey(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(
        cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY), SMALL, interpolation=cv2.INTER_AREA
    )


def _edges(picture: np.ndarray) -> np.ndarray:
    """Edge strength, independent of brightness, float64 (height, width)."""
    grey = _grey(picture).astype(np.float64)
    strength = np.hypot(cv2.Sobel(grey, cv2.CV_64F, 1, 0), cv2.Sobel(grey, cv2.CV_64F, 0, 1))
    strength = cv2.GaussianBlur(strength, (0, 0), EDGE_BLUR)
    return strength / (strength.mean() + 1e-6)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])
