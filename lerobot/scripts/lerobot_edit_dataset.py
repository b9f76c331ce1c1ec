"""Edit a dataset with the flags of LeRobot 0.4's `lerobot-edit-dataset`; see also `edit_dataset.py`.

The dataset is `<root>/<repo_id>` (root: $HF_LEROBOT_HOME). Without `--new_repo_id` the edited one takes its place and
the original is moved to `<name>_old`.

lerobot-edit-dataset --repo_id=me/grasps --operation.type=delete_episodes --operation.episode_indices="[3, 17]"
lerobot-edit-dataset --repo_id=me/grasps --operation.type=split --operation.splits='{"train": 0.9, "val": 0.1}'
lerobot-edit-dataset --repo_id=me/all --operation.type=merge --operation.repo_ids='["me/monday", "me/tuesday"]'
lerobot-edit-dataset --repo_id=me/grasps --operation.type=remove_feature --operation.feature_names='["next.reward"]'
lerobot-edit-dataset --repo_id=me/grasps --operation.type=modify_tasks --operation.new_task="Grasp a lego block."
lerobot-edit-dataset --repo_id=me/grasps --operation.type=info --operation.show_features=true
"""

import abc
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import draccus

from lerobot.common.constants import HF_LEROBOT_HOME
from lerobot.common.datasets import dataset_tools
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.utils.utils import init_logging, run_command
from lerobot.configs import parser


@dataclass
class OperationConfig(draccus.ChoiceRegistry, abc.ABC):
    """What is done to the dataset."""

    @property
    def type(self) -> str:
        """The registered name, for example `split`."""
        return self.get_choice_name(type(self))


@OperationConfig.register_subclass("delete_episodes")
@dataclass
class DeleteEpisodesConfig(OperationConfig):
    """Leave episodes out."""

    episode_indices: list[int] | None = None


@OperationConfig.register_subclass("split")
@dataclass
class SplitConfig(OperationConfig):
    """Datasets `<repo_id>_<name>`, of fractions of the episodes or of listed ones."""

    splits: dict[str, float | list[int]] | None = None


@OperationConfig.register_subclass("merge")
@dataclass
class MergeConfig(OperationConfig):
    """One dataset `repo_id` of several."""

    repo_ids: list[str] | None = None


@OperationConfig.register_subclass("remove_feature")
@dataclass
class RemoveFeatureConfig(OperationConfig):
    """Leave features out."""

    feature_names: list[str] | None = None


@OperationConfig.register_subclass("modify_tasks")
@dataclass
class ModifyTasksConfig(OperationConfig):
    """Change task texts in place: one for all episodes, or by episode number."""

    new_task: str | None = None
    episode_tasks: dict[str, str] | None = None


@OperationConfig.register_subclass("info")
@dataclass
class InfoConfig(OperationConfig):
    """Print what the dataset is."""

    show_features: bool = False


@dataclass
class EditDatasetConfig:
    """The command line."""

    repo_id: str
    operation: OperationConfig = field(default_factory=InfoConfig)
    root: str | None = None  # folder above the dataset's; empty: HF_LEROBOT_HOME
    new_repo_id: str | None = None  # name of the edited dataset; empty: it takes the original's place
    push_to_hub: bool = False


def dataset_folder(repo_id: str, root: str | Path | None) -> Path:
    """Where a dataset stands."""
    return Path(root or HF_LEROBOT_HOME) / repo_id


def get_output_path(repo_id: str, new_repo_id: str | None, root: str | Path | None) -> tuple[str, Path]:
    """(name, folder) of the edited dataset; an original of that name is moved to `<name>_old`."""
    name = new_repo_id or repo_id
    folder = dataset_folder(name, root)
    if name == repo_id and folder.exists():
        old = folder.with_name(f"{folder.name}_old")
        if old.exists():
            shutil.rmtree(old)
        folder.rename(old)
    return name, folder


def _open(cfg: EditDatasetConfig, repo_id: str | None = None) -> LeRobotDataset:
    repo_id = repo_id or cfg.repo_id
    return LeRobotDataset(repo_id, root=dataset_folder(repo_id, cfg.root))


def _needed(cfg: EditDatasetConfig, name: str):
    """An operation's setting; ValueError naming its flag if it is not given."""
    if not (value := getattr(cfg.operation, name)):
        raise ValueError(f"--operation.type={cfg.operation.type} needs --operation.{name}.")
    return value


def _edited(cfg: EditDatasetConfig, edit) -> LeRobotDataset:
    """What `edit(dataset, output_dir=..., repo_id=...)` writes, in its final place."""
    name = cfg.new_repo_id or cfg.repo_id
    work = dataset_folder(name, cfg.root).with_name(f".{Path(name).name}.edited")
    edit(_open(cfg), output_dir=work, repo_id=name)
    name, folder = get_output_path(cfg.repo_id, cfg.new_repo_id, cfg.root)
    work.rename(folder)
    return LeRobotDataset(name, root=folder)


def handle_delete_episodes(cfg: EditDatasetConfig) -> list[LeRobotDataset]:
    """Write the other episodes."""
    chosen = _needed(cfg, "episode_indices")
    return [_edited(cfg, lambda dataset, **place: dataset_tools.delete_episodes(dataset, chosen, **place))]


def handle_remove_feature(cfg: EditDatasetConfig) -> list[LeRobotDataset]:
    """Write the other features."""
    names = _needed(cfg, "feature_names")
    return [_edited(cfg, lambda dataset, **place: dataset_tools.remove_feature(dataset, names, **place))]


def handle_split(cfg: EditDatasetConfig) -> list[LeRobotDataset]:
    """Write `<repo_id>_<name>` beside the dataset, one for each name."""
    splits, dataset = _needed(cfg, "splits"), _open(cfg)
    work = dataset.root.with_name(f".{dataset.root.name}.splits")
    parts = dataset_tools.split_dataset(dataset, splits, output_dir=work)
    for name, part in parts.items():
        part.root.rename(dataset.root.with_name(f"{dataset.root.name}_{name}"))
    work.rmdir()
    return [_open(cfg, f"{cfg.repo_id}_{name}") for name in parts]


def handle_merge(cfg: EditDatasetConfig) -> list[LeRobotDataset]:
    """Write the datasets one after the other as `repo_id`."""
    datasets = [_open(cfg, repo_id) for repo_id in _needed(cfg, "repo_ids")]
    name = cfg.new_repo_id or cfg.repo_id
    return [dataset_tools.merge_datasets(datasets, name, output_dir=dataset_folder(name, cfg.root))]


def handle_modify_tasks(cfg: EditDatasetConfig) -> list[LeRobotDataset]:
    """Change the texts in place."""
    by_episode = {int(index): text for index, text in (cfg.operation.episode_tasks or {}).items()}
    return [dataset_tools.modify_tasks(_open(cfg), cfg.operation.new_task, by_episode)]


def handle_info(cfg: EditDatasetConfig) -> list[LeRobotDataset]:
    """Print the numbers of the dataset, and its features if asked for."""
    meta = _open(cfg).meta
    for name in ("codebase_version", "robot_type", "fps", "total_episodes", "total_frames", "total_tasks"):
        print(f"{name}: {meta.info[name]}")
    if cfg.operation.show_features:
        for key, feature in meta.features.items():
            print(f"  {key}: {feature['dtype']} {tuple(feature['shape'])}")
    return []


HANDLERS = {
    "delete_episodes": handle_delete_episodes,
    "remove_feature": handle_remove_feature,
    "split": handle_split,
    "merge": handle_merge,
    "modify_tasks": handle_modify_tasks,
    "info": handle_info,
}


@parser.wrap()
def edit_dataset(cfg: EditDatasetConfig) -> None:
    """Do the operation, say what was written, and push it if asked to."""
    for dataset in HANDLERS[cfg.operation.type](cfg):
        print(f"Wrote '{dataset.root}': {dataset.num_episodes} episodes, {dataset.num_frames} frames.")
        if cfg.push_to_hub:
            print(f"Pushed to {dataset.push_to_hub()}.")


def main() -> None:
    """The command."""
    init_logging()
    run_command(edit_dataset)


if __name__ == "__main__":
    main()
