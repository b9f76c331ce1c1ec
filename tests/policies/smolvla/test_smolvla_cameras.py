"""A dataset's cameras in the places of a checkpoint that has others."""

import pytest

from lerobot.common.policies.cameras import camera_table, match_cameras
from lerobot.common.policies.factory import set_features
from lerobot.configs.types import FeatureType, PolicyFeature

from .conftest import tiny_config, tiny_policy

IMAGES = "observation.images."


def dataset_features(*cameras, state=6, size=(48, 64)) -> dict:
    pictures = {IMAGES + c: PolicyFeature(FeatureType.VISUAL, (3, *size)) for c in cameras}
    return {
        "action": PolicyFeature(FeatureType.ACTION, (state,)),
        "observation.state": PolicyFeature(FeatureType.STATE, (state,)),
        **pictures,
    }


@pytest.fixture
def config(tmp_path):
    """Of a checkpoint with three cameras, as published for fine-tuning."""
    tiny_policy(cameras=("camera1", "camera2", "camera3")).save_pretrained(tmp_path)
    return tiny_config(cameras=("camera1", "camera2", "camera3"), pretrained_path=str(tmp_path))


def short(renaming: dict) -> dict:
    return {k.removeprefix(IMAGES): v.removeprefix(IMAGES) for k, v in renaming.items()}


def full(**renaming) -> dict:
    return {IMAGES + k: IMAGES + v for k, v in renaming.items()}


def test_cameras_take_the_places_in_the_order_of_the_dataset(config):
    features = dataset_features("laptop", "phone")
    found = match_cameras(config, features)
    assert short(found) == {"laptop": "camera1", "phone": "camera2"}
    rows = [line.split() for line in camera_table(config, features, found).splitlines()[1:4]]
    assert rows == [
        [f"{IMAGES}camera1", "<-", f"{IMAGES}laptop"],
        [f"{IMAGES}camera2", "<-", f"{IMAGES}phone"],
        [f"{IMAGES}camera3", "<-", "(empty)"],
    ]


def test_the_policy_gets_the_datasets_shapes_and_an_empty_camera(config):
    features = dataset_features("laptop", "phone", state=7)
    set_features(config, features, match_cameras(config, features))
    config.validate_features()
    assert list(config.image_features) == [IMAGES + n for n in ("camera1", "camera2", "empty_camera_0")]
    assert config.empty_cameras == 1
    assert config.image_features[IMAGES + "camera1"].shape == (3, 48, 64)
    assert config.robot_state_feature.shape == config.action_feature.shape == (7,)


def test_a_rename_map_decides_and_the_rest_follows_in_order(config):
    features = dataset_features("laptop", "phone", "top")
    found = match_cameras(config, features, full(laptop="camera2"))
    assert short(found) == {"laptop": "camera2", "phone": "camera1", "top": "camera3"}
    set_features(config, features, found)
    assert list(config.image_features) == [IMAGES + f"camera{i}" for i in (1, 2, 3)]
    assert config.empty_cameras == 0


def test_equal_names_stay_and_nothing_is_shown(config):
    features = dataset_features("camera3", "camera1", "camera2")
    assert match_cameras(config, features) == {}
    assert camera_table(config, features, {}) is None
    set_features(config, features)
    assert list(config.image_features) == [IMAGES + f"camera{i}" for i in (1, 2, 3)]  # the checkpoint's order


def test_more_cameras_than_the_checkpoint_stop_and_can_be_chosen_from(config):
    features = dataset_features("a", "b", "c", "d")
    with pytest.raises(ValueError, match=r"4 cameras.*reads 3.*--policy.cameras=\[a,b,c\]"):
        match_cameras(config, features)
    config.cameras = ["b", "d"]
    found = match_cameras(config, features)
    assert short(found) == {"b": "camera1", "d": "camera2"}
    set_features(config, features, found)
    assert list(config.image_features) == [IMAGES + "camera1", IMAGES + "camera2"]


@pytest.mark.parametrize(
    ("renaming", "message"),
    [
        (full(side="camera1"), "side, the dataset has"),
        (full(laptop="camera9"), "leads to .*camera9; the cameras of .*camera1"),
        (full(laptop="camera1", phone="camera1"), "several cameras to one name"),
    ],
)
def test_wrong_names_are_refused(config, renaming, message):
    with pytest.raises(ValueError, match=message):
        match_cameras(config, dataset_features("laptop", "phone"), renaming)


def test_from_zero_nothing_is_renamed(config):
    config.pretrained_path = None
    assert match_cameras(config, dataset_features("laptop")) == {}
