"""Image augmentation: LeRobot's names, defaults and sampling, in plain torch on (..., 3, H, W) pictures.

The colour formulas are those of torchvision's documented adjust_* functions. Every draw comes from the
generator that is passed, or from torch's global one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


def _uniform(low: float, high: float, generator: torch.Generator | None) -> float:
    return torch.empty(1).uniform_(low, high, generator=generator).item()


def _blend(image: torch.Tensor, other: torch.Tensor | float, factor: float) -> torch.Tensor:
    """factor 1: the image; 0: the other; beyond 1: away from the other."""
    return (image * factor + other * (1.0 - factor)).clamp(0.0, 1.0)


def rgb_to_grayscale(image: torch.Tensor) -> torch.Tensor:
    """(..., 3, H, W) -> luma (..., 1, H, W), ITU-R 601 weights."""
    r, g, b = image.unbind(dim=-3)
    return (0.2989 * r + 0.587 * g + 0.114 * b).unsqueeze(-3)


def adjust_brightness(image: torch.Tensor, factor: float) -> torch.Tensor:
    """Blend with black."""
    return _blend(image, 0.0, factor)


def adjust_contrast(image: torch.Tensor, factor: float) -> torch.Tensor:
    """Blend with the mean luma of each picture."""
    return _blend(image, rgb_to_grayscale(image).mean(dim=(-3, -2, -1), keepdim=True), factor)


def adjust_saturation(image: torch.Tensor, factor: float) -> torch.Tensor:
    """Blend with the luma."""
    return _blend(image, rgb_to_grayscale(image), factor)


def adjust_hue(image: torch.Tensor, shift: float) -> torch.Tensor:
    """Turn the hue by `shift` (0.5: half a turn); value and saturation stay (HSV hexagon model)."""
    value, low = image.amax(dim=-3), image.amin(dim=-3)
    spread = value - low
    safe = spread.clamp(min=1e-12)
    r, g, b = image.unbind(dim=-3)
    sector = torch.where(r == value, (g - b) / safe, torch.where(g == value, 2 + (b - r) / safe, 4 + (r - g) / safe))
    # Channel n of HSV -> RGB: value - spread * clamp(min(k, 4 - k), 0, 1) with k = (n + hue) mod 6.
    k = torch.tensor([5.0, 3.0, 1.0]).view(3, 1, 1).to(image) + (sector + 6.0 * shift).unsqueeze(-3)
    k = k - (k / 6).floor_().mul_(6)
    return value.unsqueeze(-3) - spread.unsqueeze(-3) * (k - 2).abs_().neg_().add_(2).clamp_(0, 1)


def adjust_sharpness(image: torch.Tensor, factor: float) -> torch.Tensor:
    """Blend with a 3x3 blur (weights 1, centre 5, sum 13); the outermost pixels stay."""
    if min(image.shape[-2:]) <= 2:
        return image
    rows = image[..., :-2, :] + image[..., 1:-1, :] + image[..., 2:, :]
    window = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    blurred = image.clone()
    blurred[..., 1:-1, 1:-1] = (window + 4 * image[..., 1:-1, 1:-1]) / 13
    return _blend(image, blurred, factor)


def affine(image: torch.Tensor, angle: float, shift: tuple[int, int]) -> torch.Tensor:
    """Turn clockwise by `angle` degrees, then shift by (right, down) pixels; nearest, black outside."""
    height, width = image.shape[-2:]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    x = (torch.arange(width, device=image.device) - (width - 1) / 2 - shift[0])[None, :]
    y = (torch.arange(height, device=image.device) - (height - 1) / 2 - shift[1])[:, None]
    source_x = (cos * x + sin * y + (width - 1) / 2).round().long()
    source_y = (cos * y - sin * x + (height - 1) / 2).round().long()
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    moved = image[..., source_y.clamp(0, height - 1), source_x.clamp(0, width - 1)]
    return moved * inside


class Identity:
    """No change."""

    seedable = True

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        return image


class ColorJitter:
    """Brightness, contrast, saturation, hue, each drawn uniformly from its range, applied in random order.

    A number x means (max(0, 1 - x), 1 + x), for hue (-x, x); ValueError for ranges outside of what exists.
    """

    seedable = True

    def __init__(self, brightness=None, contrast=None, saturation=None, hue=None):
        named = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        self.ranges = {name: _range(name, value) for name, value in named.items()}
        self.ranges["hue"] = _range("hue", hue, center=0.0, bound=(-0.5, 0.5))

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        order = torch.randperm(4, generator=generator).tolist()
        factors = [_uniform(*r, generator) if r else None for r in self.ranges.values()]
        adjust = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
        for position in order:
            if factors[position] is not None:
                image = adjust[position](image, factors[position])
        return image


class SharpnessJitter:
    """Sharpness drawn uniformly: a number s means (max(0, 1 - s), 1 + s), a pair is taken as it is."""

    seedable = True

    def __init__(self, sharpness: float | Sequence[float]):
        self.sharpness = _range("sharpness", sharpness)

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        return adjust_sharpness(image, _uniform(*self.sharpness, generator))


class RandomAffine:
    """Rotation by degrees from a range, and a shift by up to a fraction (x, y) of the size."""

    seedable = True

    def __init__(self, degrees: float | Sequence[float], translate: Sequence[float] | None = None):
        self.degrees = _range("degrees", degrees, center=0.0, bound=(-math.inf, math.inf))
        self.translate = translate

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        angle, shift = _uniform(*self.degrees, generator), (0, 0)
        if self.translate is not None:
            reach = self.translate[0] * image.shape[-1], self.translate[1] * image.shape[-2]
            shift = tuple(round(_uniform(-r, r, generator)) for r in reach)
        return affine(image, angle, shift)


def _range(name: str, value, center: float = 1.0, bound=(0.0, math.inf)) -> tuple[float, float] | None:
    if value is None:
        return None
    if isinstance(value, int | float):
        if value < 0:
            raise ValueError(f"{name}={value}: expected a number >= 0 or a pair.")
        value = (max(center - value, bound[0]), center + value)
    elif not isinstance(value, Sequence) or len(value) != 2:
        raise TypeError(f"{name}={value!r}: expected a number or a pair.")
    if not bound[0] <= value[0] <= value[1] <= bound[1]:
        raise ValueError(f"{name}={tuple(value)}: expected an ascending pair within {bound}.")
    return float(value[0]), float(value[1])


class RandomSubsetApply:
    """Apply `n_subset` of the transforms, drawn without replacement with probabilities in proportion to `p`.

    They keep their order unless `random_order`. ValueError for a wrong number of weights or of transforms,
    TypeError for wrong types.
    """

    seedable = True

    def __init__(
        self,
        transforms: Sequence[Callable],
        p: Sequence[float] | None = None,
        n_subset: int | None = None,
        random_order: bool = False,
    ):
        if not isinstance(transforms, Sequence):
            raise TypeError(f"transforms must be a sequence; found {type(transforms).__name__}.")
        p = [1.0] * len(transforms) if p is None else list(p)
        n_subset = len(transforms) if n_subset is None else n_subset
        if len(p) != len(transforms):
            raise ValueError(f"{len(p)} weights for {len(transforms)} transforms.")
        if not isinstance(n_subset, int):
            raise TypeError(f"n_subset must be an int; found {type(n_subset).__name__}.")
        if not 1 <= n_subset <= len(transforms):
            raise ValueError(f"n_subset={n_subset}: expected 1 to {len(transforms)}.")
        self.transforms, self.n_subset, self.random_order = transforms, n_subset, random_order
        self.p = [weight / sum(p) for weight in p]

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        chosen = torch.multinomial(torch.tensor(self.p), self.n_subset, generator=generator)
        if not self.random_order:
            chosen = chosen.sort().values
        for position in chosen.tolist():
            image = self.transforms[position](image, generator)
        return image


@dataclass
class ImageTransformConfig:
    """One augmentation: how often it is chosen, its class, its arguments."""

    weight: float = 1.0
    type: str = "Identity"
    kwargs: dict[str, Any] = field(default_factory=dict)


def _default_transforms() -> dict[str, ImageTransformConfig]:
    def color(**kwargs) -> ImageTransformConfig:
        return ImageTransformConfig(type="ColorJitter", kwargs=kwargs)

    return {
        "brightness": color(brightness=(0.8, 1.2)),
        "contrast": color(contrast=(0.8, 1.2)),
        "saturation": color(saturation=(0.5, 1.5)),
        "hue": color(hue=(-0.05, 0.05)),
        "sharpness": ImageTransformConfig(type="SharpnessJitter", kwargs={"sharpness": (0.5, 1.5)}),
        "affine": ImageTransformConfig(type="RandomAffine", kwargs={"degrees": (-5.0, 5.0), "translate": (0.05, 0.05)}),
    }


@dataclass
class ImageTransformsConfig:
    """Augmentation of the cameras' pictures."""

    enable: bool = False  # augment pictures while training
    max_num_transforms: int = 3  # how many of them are applied to a picture
    random_order: bool = False  # apply them in random order instead of the order below
    tfs: dict[str, ImageTransformConfig] = field(default_factory=_default_transforms)


TRANSFORMS = {
    "Identity": Identity,
    "ColorJitter": ColorJitter,
    "SharpnessJitter": SharpnessJitter,
    "RandomAffine": RandomAffine,
}


def make_transform_from_config(cfg: ImageTransformConfig) -> Callable:
    """The transform that a config names; ValueError for an unknown type."""
    if cfg.type not in TRANSFORMS:
        raise ValueError(f"Unknown image transform type '{cfg.type}'; expected one of {list(TRANSFORMS)}.")
    return TRANSFORMS[cfg.type](**cfg.kwargs)


class ImageTransforms:
    """The augmentation that a config describes, for float pictures in [0, 1] or uint8, (..., 3, H, W).

    All pictures of one call share one draw (a camera's time steps). uint8 pictures stay uint8.
    """

    seedable = True

    def __init__(self, cfg: ImageTransformsConfig):
        chosen = [tf for tf in cfg.tfs.values() if tf.weight > 0] if cfg.enable else []
        n_subset = min(len(chosen), cfg.max_num_transforms)
        if n_subset == 0:
            self.tf = Identity()
        else:
            transforms = [make_transform_from_config(tf) for tf in chosen]
            weights = [tf.weight for tf in chosen]
            self.tf = RandomSubsetApply(transforms, weights, n_subset, cfg.random_order)

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        if image.dtype != torch.uint8:
            return self.tf(image, generator)
        return (self.tf(image.float().div_(255), generator) * 255).round_().to(torch.uint8)


def transform_batch(
    transforms: Callable, batch: dict[str, Any], keys: Sequence[str], seeds: Sequence[int | None]
) -> dict[str, torch.Tensor]:
    """The pictures `batch[key]` (B, ..., 3, H, W) transformed frame by frame on the device where they are.

    A frame's draws, for one key after the other, come from a generator with its seed; None: from torch's global one.
    """
    changed: dict[str, list[torch.Tensor]] = {key: [] for key in keys}
    for position, seed in enumerate(seeds):
        options = {} if seed is None else {"generator": torch.Generator().manual_seed(seed)}
        for key, frames in changed.items():
            frames.append(transforms(batch[key][position], **options))
    return {key: torch.stack(frames) for key, frames in changed.items()}
