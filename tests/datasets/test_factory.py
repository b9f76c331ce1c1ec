"""From a training configuration to its dataset."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

from lerobot.common.datasets import frame_store
from lerobot.common.datasets.factory import IMAGENET_STATS, make_dataset, resolve_delta_timestamps
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.common.datasets.transforms import ImageTransformsConfig
from lerobot.common.datasets.utils import dataset_to_policy_features
from lerobot.configs.types import FeatureType
from tests.datasets.conftest import features

CAMERA = "observation.images.cam0"


@dataclass
class Policy:
    observation_delta_indices: list | None = None
    action_delta_indices: list | None = field(default_factory=lambda: [0, 1, 2])
    reward_delta_indices: list | None = None
    image_size: tuple | None = (24, 36)


def config(root, policy=None, **options):
    defaults = {
        "repo_id": None,
        "root": str(root),
        "episodes": None,
        "image_transforms": ImageTransformsConfig(),
        "revision": None,
        "use_imagenet_stats": True,
        "video_backend": "pyav",
        "frame_store": False,
    }
    return SimpleNamespace(
        dataset=SimpleNamespace(**{**defaults, **options}), policy=policy or Policy(), tolerance_s=1e-4
    )


def test_windows_are_the_policys_indices_in_seconds(recorded_root):
    meta = LeRobotDatasetMetadata(root=recorded_root)
    assert resolve_delta_timestamps(Policy(), meta) == {"action": [0.0, 0.1, 0.2]}
    both = resolve_delta_timestamps(Policy(observation_delta_indices=[-1, 0]), meta)
    assert both == {"observation.state": [-0.1, 0.0], "action": [0.0, 0.1, 0.2], CAMERA: [-0.1, 0.0]}
    assert resolve_delta_timestamps(Policy(action_delta_indices=None), meta) is None


def test_cameras_get_imagenet_statistics_unless_refused(recorded_root):
    dataset = make_dataset(config(recorded_root))
    stats = dataset.meta.stats[CAMERA]
    assert (
        stats["mean"].dtype == torch.float32 and stats["mean"].tolist() == torch.tensor(IMAGENET_STATS["mean"]).tolist()
    )
    assert stats["std"].shape == (3, 1, 1) and stats["count"].tolist() == [19]
    own = make_dataset(config(recorded_root, use_imagenet_stats=False)).meta.stats[CAMERA]
    assert own["mean"][0] != pytest.approx(0.485)
    assert dataset.meta.episodes_stats[0][CAMERA]["mean"][0] != pytest.approx(0.485)


def test_a_camera_without_statistics_is_named(own_root):
    path = own_root / "meta" / "episodes_stats.jsonl"
    path.write_text(path.read_text().replace(CAMERA, "observation.images.old"))
    with pytest.raises(KeyError, match=f"'{CAMERA}' has no statistics"):
        make_dataset(config(own_root))


def test_episodes_and_uint8_are_passed_on(recorded_root):
    dataset = make_dataset(config(recorded_root, episodes=[0]), episodes=[1, 2], return_uint8=True)
    assert dataset.episodes == [1, 2] and dataset[0]["action"].shape == (3, 6)
    assert dataset[0][CAMERA].dtype == torch.uint8
    assert make_dataset(config(recorded_root, episodes=[0])).num_episodes == 1


def test_pictures_from_the_frame_store(recorded_root, tmp_path, monkeypatch):
    monkeypatch.setattr(frame_store, "HF_LEROBOT_HOME", tmp_path)
    dataset = make_dataset(config(recorded_root, frame_store=True))
    assert dataset[0][CAMERA].shape == (3, 24, 36)


def test_augmentation_only_when_enabled(recorded_root):
    assert make_dataset(config(recorded_root)).image_transforms is None
    dataset = make_dataset(config(recorded_root, image_transforms=ImageTransformsConfig(enable=True)))
    plain = make_dataset(config(recorded_root))
    assert not torch.equal(dataset[0][CAMERA], plain[0][CAMERA])


def test_one_dataset_only(recorded_root):
    with pytest.raises(NotImplementedError, match="one dataset"):
        make_dataset(config(recorded_root, repo_id=["a/b", "c/d"]))


def test_policy_features_are_channel_first_and_in_order(tmp_path):
    extra = {
        "observation.environment_state": {"dtype": "float32", "shape": (4,), "names": None},
        "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
        "observation.first": {
            "dtype": "image",
            "shape": (3, 48, 64),
            "names": ["channels", "height", "width"],
        },
        "observation.old": {"dtype": "video", "shape": [48, 64, 3], "names": ["height", "width", "channel"]},
        "observation.bare": {"dtype": "video", "shape": (48, 64, 3), "names": None},
    }
    result = dataset_to_policy_features(features(**extra))
    assert {key: (feature.type, feature.shape) for key, feature in result.items()} == {
        "observation.state": (FeatureType.STATE, (6,)),
        "action": (FeatureType.ACTION, (6,)),
        CAMERA: (FeatureType.VISUAL, (3, 64, 96)),
        "observation.environment_state": (FeatureType.ENV, (4,)),
        "observation.first": (FeatureType.VISUAL, (3, 48, 64)),
        "observation.old": (FeatureType.VISUAL, (3, 48, 64)),
        "observation.bare": (FeatureType.VISUAL, (3, 48, 64)),
    }
    with pytest.raises(ValueError, match="three dimensions"):
        dataset_to_policy_features({"observation.flat": {"dtype": "image", "shape": (48, 64), "names": None}})


def test_string_observations_get_windows_too(tmp_path):
    extra = {"observation.note": {"dtype": "string", "shape": (1,), "names": None}}
    meta = record_with_note(tmp_path / "set", extra)
    assert "observation.note" in resolve_delta_timestamps(Policy(observation_delta_indices=[0]), meta)


def record_with_note(root, extra):
    from lerobot.common.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset.create(None, 10, root=root, features=features(video=0, **extra)).meta


def test_a_dataset_without_episodes_is_said_first(tmp_path):
    LeRobotDataset.create(None, 10, root=tmp_path / "empty", features=features())
    with pytest.raises(ValueError, match="has no episodes to train on"):
        make_dataset(config(tmp_path / "empty"))
