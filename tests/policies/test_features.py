"""Which features of a dataset a policy is given."""

import pytest

from lerobot.common.policies import ACTConfig
from lerobot.common.policies.factory import set_features
from lerobot.configs.types import FeatureType, PolicyFeature

FEATURES = {
    "action": PolicyFeature(FeatureType.ACTION, (6,)),
    "observation.state": PolicyFeature(FeatureType.STATE, (6,)),
    "observation.images.laptop": PolicyFeature(FeatureType.VISUAL, (3, 48, 64)),
    "observation.images.phone": PolicyFeature(FeatureType.VISUAL, (3, 48, 64)),
}


@pytest.mark.parametrize("name", ["phone", "observation.images.phone"])
def test_cameras_are_chosen_by_key_or_by_its_last_part(name):
    config = ACTConfig(device="cpu", cameras=[name])
    set_features(config, FEATURES)
    assert list(config.input_features) == ["observation.state", "observation.images.phone"]


def test_without_a_choice_all_cameras_are_used():
    config = ACTConfig(device="cpu")
    set_features(config, FEATURES)
    assert list(config.image_features) == ["observation.images.laptop", "observation.images.phone"]


def test_an_unknown_camera_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match="wrist; there are: observation.images.laptop, observation.images.phone"):
        set_features(ACTConfig(device="cpu", cameras=["wrist"]), FEATURES)


def test_pictures_reach_the_network_in_the_size_they_are_resized_to():
    config = ACTConfig(device="cpu", image_size=(32, 40))
    set_features(config, FEATURES)
    assert set(config.image_shapes.values()) == {(3, 32, 40)}


@pytest.mark.parametrize("size", [(0, 96), (96,), (3, 96, 96)])
def test_a_size_that_no_picture_has_is_refused(size):
    with pytest.raises(ValueError, match="--policy.image_size=.*height,width"):
        ACTConfig(device="cpu", image_size=size)
