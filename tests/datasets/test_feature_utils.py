"""Features of a dataset from the parts of a robot, and frames from its values."""

import numpy as np
import pytest
import torch

from lerobot.common.datasets.feature_utils import (
    aggregate_pipeline_dataset_features,
    build_dataset_frame,
    combine_feature_dicts,
    create_initial_features,
    hw_to_dataset_features,
    validate_feature_dtype_and_shape,
    validate_features_presence,
)
from lerobot.common.policies.act.configuration_act import ACTConfig
from lerobot.common.policies.robot_frames import (
    build_inference_frame,
    make_robot_action,
    validate_visual_features_consistency,
)
from lerobot.common.processor import DataProcessorPipeline, IdentityProcessorStep
from lerobot.configs.types import FeatureType, PolicyFeature

PARTS = {"a.pos": float, "b.pos": float, "front": (48, 64, 3)}
NUMBERS = {"a.pos": float, "b.pos": float}
VALUES = {"a.pos": 1.0, "b.pos": 2, "front": np.full((48, 64, 3), 255, np.uint8)}


@pytest.fixture
def features():
    return {**hw_to_dataset_features(PARTS, "observation"), **hw_to_dataset_features(NUMBERS, "action")}


def test_numbers_become_one_vector_and_pictures_a_feature_each(features):
    assert features["action"] == {"dtype": "float32", "shape": (2,), "names": ["a.pos", "b.pos"]}
    assert list(features) == ["observation.state", "observation.images.front", "action"]
    assert features["observation.images.front"]["dtype"] == "video"
    assert hw_to_dataset_features(PARTS, "observation", use_video=False)["observation.images.front"]["dtype"] == "image"


def test_a_frame_takes_each_value_by_its_name(features):
    frame = build_dataset_frame(features, VALUES, "observation")
    assert frame["observation.state"].tolist() == [1, 2] and frame["observation.state"].dtype == np.float32
    assert frame["observation.images.front"] is VALUES["front"]
    with pytest.raises(KeyError, match="b.pos"):
        build_dataset_frame(features, {"a.pos": 1.0}, "action")


def test_a_robot_sees_and_acts_through_the_names_of_the_dataset(features):
    batch = build_inference_frame(VALUES, "cpu", features, task="wave")
    assert batch["observation.images.front"].shape == (1, 3, 48, 64) and batch["observation.images.front"].max() == 1
    assert batch["observation.state"].tolist() == [[1, 2]] and batch["task"] == "wave" and batch["robot_type"] == ""
    assert make_robot_action(torch.tensor([[3.0, 4.0]]), features) == {"a.pos": 3.0, "b.pos": 4.0}
    with pytest.raises(ValueError, match="1 values.*2"):
        make_robot_action(torch.tensor([3.0]), features)


def test_vectors_are_joined_by_name():
    def vector(names, dtype="float32"):
        return {"dtype": dtype, "shape": (len(names),), "names": list(names)}

    joined = combine_feature_dicts({"action": vector("ab")}, {"action": vector("bc")})
    assert joined["action"] == vector("abc")
    with pytest.raises(ValueError, match="dtype mismatch for 'action'"):
        combine_feature_dicts({"action": vector("a")}, {"action": vector("b", "int64")})
    picture = {"dtype": "video", "shape": (1, 2, 3), "names": None}
    assert combine_feature_dicts({"i": picture}, {"i": {**picture, "shape": (4, 5, 3)}})["i"]["shape"] == (4, 5, 3)


def test_a_pipeline_says_which_features_it_gives():
    pipeline = DataProcessorPipeline([IdentityProcessorStep()])
    parts = create_initial_features(action={"a.pos": float, "ee.x": float}, observation={"a.pos": float, **PARTS})
    features = aggregate_pipeline_dataset_features(pipeline, parts, patterns=[r"ee\.", "a.pos"])
    assert features["action"]["names"] == ["a.pos", "ee.x"] and features["observation.state"]["names"] == ["a.pos"]
    assert "observation.images.front" in features, "pictures are chosen by use_videos alone"
    assert "observation.images.front" not in aggregate_pipeline_dataset_features(pipeline, parts, use_videos=False)


def test_what_is_wrong_is_said_in_words():
    assert validate_features_presence({"a"}, {"a"}) == ""
    assert "Missing features: {'b'}" in validate_features_presence({"a"}, {"a", "b"})
    assert "Extra features: {'c'}" in validate_features_presence({"a", "c"}, {"a"})
    vector = {"dtype": "float32", "shape": (2,)}
    assert validate_feature_dtype_and_shape("x", vector, np.zeros(2, np.float32)) == ""
    assert "float64" in validate_feature_dtype_and_shape("x", vector, np.zeros(2))
    with pytest.raises(NotImplementedError):
        validate_feature_dtype_and_shape("x", {"dtype": "thing", "shape": (2,)}, np.zeros(2))


def test_cameras_of_policy_and_data_must_fit():
    def pictures(*names):
        return {f"observation.images.{n}": PolicyFeature(FeatureType.VISUAL, (3, 4, 4)) for n in names}

    config = ACTConfig(device="cpu", input_features=pictures("a"))
    validate_visual_features_consistency(config, pictures("a", "b"))
    with pytest.raises(ValueError, match="observation.images.b"):
        validate_visual_features_consistency(config, pictures("b"))


def test_an_episode_buffer_is_the_next_episode_with_every_feature():
    from lerobot.datasets.utils import validate_episode_buffer

    good = {"size": 1, "task": ["x"], "episode_index": 0, "a": [1]}
    validate_episode_buffer(good, 0, {"a": {}, "episode_index": {}})
    wrong = [({"size": 0}, 0, "at least one"), ({"b": [1]}, 0, "Extra"), ({"a": None}, 1, "next episode is 1")]
    for change, total, message in wrong:
        with pytest.raises((ValueError, NotImplementedError), match=message):
            validate_episode_buffer({**good, **change}, total, {"a": {}, "episode_index": {}})
    with pytest.raises(ValueError, match="lacks"):
        validate_episode_buffer({"size": 1}, 0, {})
