"""The commands of LeRobot 0.4 that look at datasets, edit them, and describe the installation."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from lerobot.scripts.lerobot_dataset_viz import EpisodeSampler, to_hwc_uint8_numpy, visualize_dataset
from lerobot.scripts.lerobot_imgtransform_viz import visualize_image_transforms
from lerobot.scripts.lerobot_info import format_dict_for_markdown, get_sys_info

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.configs.default import DatasetConfig
from lerobot.scripts import lerobot_edit_dataset as edit
from tests.datasets.conftest import features, record


@pytest.fixture(scope="module")
def recorded_root(tmp_path_factory):
    """A dataset with one camera."""
    return record(tmp_path_factory.mktemp("recorded") / "set").root


@pytest.fixture
def home(tmp_path):
    """A folder with the dataset me/set: state and action, episodes of 4, 3 and 5 frames."""
    record(tmp_path / "me" / "set", (4, 3, 5), feature_set=features(video=0))
    return tmp_path


def run(home, operation, **options) -> None:
    edit.edit_dataset(edit.EditDatasetConfig("me/set", operation, root=str(home), **options))


def lengths(home, name: str) -> list[int]:
    meta = LeRobotDataset(f"me/{name}", root=home / "me" / name).meta
    return [meta.episodes[i]["length"] for i in range(meta.total_episodes)]


def test_an_edited_dataset_takes_the_place_of_the_original(home):
    run(home, edit.DeleteEpisodesConfig([0]))
    assert lengths(home, "set") == [3, 5] and lengths(home, "set_old") == [4, 3, 5]
    run(home, edit.DeleteEpisodesConfig([0]), new_repo_id="me/last")
    assert lengths(home, "last") == [5] and lengths(home, "set") == [3, 5]
    assert sorted(path.name for path in (home / "me").iterdir()) == ["last", "set", "set_old"]


def test_split_merge_and_features(home):
    run(home, edit.SplitConfig({"a": [2], "b": [0, 1]}))
    assert lengths(home, "set_a") == [5] and lengths(home, "set_b") == [4, 3]
    run(home, edit.MergeConfig(["me/set_a", "me/set_b"]), new_repo_id="me/all")
    assert lengths(home, "all") == [5, 4, 3]
    run(home, edit.RemoveFeatureConfig(["observation.state"]), new_repo_id="me/actions")
    assert "observation.state" not in LeRobotDataset("me/actions", root=home / "me/actions").features
    run(home, edit.ModifyTasksConfig("push", {"1": "pull"}))
    dataset = LeRobotDataset("me/set", root=home / "me/set")
    assert [dataset[i]["task"] for i in (0, 4)] == ["push", "pull"]


def test_what_is_missing_is_named_before_anything_is_written(home):
    with pytest.raises(ValueError, match="--operation.episode_indices"):
        run(home, edit.DeleteEpisodesConfig())
    with pytest.raises(ValueError, match="All episodes"):
        run(home, edit.DeleteEpisodesConfig([0, 1, 2]))
    assert lengths(home, "set") == [4, 3, 5] and [path.name for path in (home / "me").iterdir()] == ["set"]


def test_the_command_line(home):
    flags = ["--repo_id=me/set", f"--root={home}", "--operation.type=info", "--operation.show_features=true"]
    command = [sys.executable, "-m", "lerobot.scripts.lerobot_edit_dataset", *flags]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert "total_frames: 12" in shown.stdout and "action: float32 (6,)" in shown.stdout, shown.stderr
    command[-2:] = ["--operation.type=delete_episodes", "--operation.episode_indices=[0, 2]"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "1 episodes, 3 frames" in done.stdout and lengths(home, "set") == [3], done.stderr


def test_pictures_of_the_augmentation(tmp_path, recorded_root):
    cfg = DatasetConfig("me/set", str(recorded_root))
    assert [p.name for p in visualize_image_transforms(cfg, tmp_path / "off").iterdir()] == ["original_frame.png"]
    cfg.image_transforms.enable = True
    folder = visualize_image_transforms(cfg, tmp_path / "on", n_examples=1)
    assert folder == tmp_path / "on" / "set"
    assert {p.name for p in folder.iterdir()} == {"original_frame.png", "all", *cfg.image_transforms.tfs}
    assert {p.name for p in (folder / "brightness").iterdir()} == {"1.png", "min.png", "max.png", "mean.png"}
    darkest, brightest = ((folder / f"brightness/{name}.png").read_bytes() for name in ("min", "max"))
    assert darkest != brightest


def test_the_description_of_the_installation():
    info = get_sys_info()
    assert info["PyTorch version"] == torch.__version__ and "N/A" not in info["FFmpeg version"]
    assert format_dict_for_markdown({"a": "b", "c": "d"}) == "- a: b\n- c: d"


def test_an_episode_in_the_viewer(tmp_path, recorded_root):
    dataset = LeRobotDataset("me/set", root=recorded_root)
    assert list(EpisodeSampler(dataset, 1)) == list(range(5, 13)) and len(EpisodeSampler(dataset, 2)) == 6
    picture = to_hwc_uint8_numpy(torch.full((3, 2, 4), 0.5))
    assert picture.shape == (2, 4, 3) and picture.dtype == np.uint8 and picture[0, 0, 0] == 127
    pytest.importorskip("rerun")
    path = visualize_dataset(dataset, 1, save=True, output_dir=tmp_path)
    assert path == tmp_path / "me_set_episode_1.rrd" and path.stat().st_size > 1000
