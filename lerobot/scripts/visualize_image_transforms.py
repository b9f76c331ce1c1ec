"""Write pictures of a dataset's augmentation: as training draws it, and each transform at its bounds.

python lerobot/scripts/visualize_image_transforms.py --repo_id=me/grasps --root=my_grasps --image_transforms.enable=true
"""

from dataclasses import replace
from pathlib import Path

import torch

from lerobot.common.datasets.image_writer import write_image
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.transforms import ImageTransforms, ImageTransformsConfig, make_transform_from_config
from lerobot.common.utils.utils import init_logging, run_command
from lerobot.configs import parser
from lerobot.configs.default import DatasetConfig

OUTPUT_DIR = Path("outputs/image_transforms")


def save_all_transforms(
    cfg: ImageTransformsConfig, original_frame: torch.Tensor, output_dir: Path, n_examples: int
) -> None:
    """Write `all/<i>.png`: the frame (3, H, W) in [0, 1] as training changes it."""
    transform = ImageTransforms(cfg)
    for number in range(1, n_examples + 1):
        write_image(transform(original_frame).clamp(0, 1).numpy(), Path(output_dir) / "all" / f"{number}.png")


def save_each_transform(
    cfg: ImageTransformsConfig, original_frame: torch.Tensor, output_dir: Path, n_examples: int
) -> None:
    """Write `<name>/<i>.png`, and `min.png`, `max.png`, `mean.png` with both bounds and the centre of its range."""
    for name, one in cfg.tfs.items():
        pictures = {str(i + 1): make_transform_from_config(one) for i in range(n_examples)}
        for bound, kwargs in _bounds(one.kwargs).items():
            pictures[bound] = make_transform_from_config(replace(one, kwargs=kwargs))
        for picture, transform in pictures.items():
            changed = transform(original_frame).clamp(0, 1)
            write_image(changed.numpy(), Path(output_dir) / name / f"{picture}.png")


def _bounds(kwargs: dict) -> dict[str, dict]:
    """The arguments with every range (low, high) narrowed to one value."""
    ranges = {key: value for key, value in kwargs.items() if isinstance(value, list | tuple) and len(value) == 2}
    chosen = {"min": lambda a, b: a, "max": lambda a, b: b, "mean": lambda a, b: (a + b) / 2}
    return {
        name: {**kwargs, **{key: (pick(*pair), pick(*pair)) for key, pair in ranges.items()}}
        for name, pick in chosen.items()
    }


def visualize_image_transforms(cfg: DatasetConfig, output_dir: Path = OUTPUT_DIR, n_examples: int = 5) -> Path:
    """Write the pictures for the first camera of frame 0 to `output_dir/<name of the dataset>`; returns that folder.

    Only `original_frame.png` without `--image_transforms.enable=true`. Raises ValueError for a dataset without cameras.
    """
    dataset = LeRobotDataset(cfg.repo_id, root=cfg.root, episodes=cfg.episodes, revision=cfg.revision)
    if not dataset.meta.camera_keys:
        raise ValueError(f"'{dataset.root}' has no cameras; there is nothing to show.")
    frame = dataset[0][dataset.meta.camera_keys[0]]
    folder = Path(output_dir) / (cfg.repo_id or dataset.root.name).split("/")[-1]
    write_image(frame.numpy(), folder / "original_frame.png")
    if cfg.image_transforms.enable:
        save_all_transforms(cfg.image_transforms, frame, folder, n_examples)
        save_each_transform(cfg.image_transforms, frame, folder, n_examples)
    return folder


@parser.wrap()
def visualize_image_transforms_cli(cfg: DatasetConfig) -> None:
    """The command, with the configuration from the command line."""
    print(f"Wrote '{visualize_image_transforms(cfg)}'.")


def main() -> None:
    """The command."""
    init_logging()
    run_command(visualize_image_transforms_cli)


if __name__ == "__main__":
    main()
