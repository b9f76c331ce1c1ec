"""Rename, batch axis, device, pictures, gym observations, actions, interaction."""

import numpy as np
import pytest
import torch

from lerobot.common.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    GripperPenaltyProcessorStep,
    ImageCropResizeProcessorStep,
    InterventionActionProcessorStep,
    JointVelocityProcessorStep,
    MapDeltaActionToRobotActionStep,
    MapTensorToDeltaActionDictStep,
    Numpy2TorchActionProcessorStep,
    PolicyActionToRobotActionProcessorStep,
    RenameObservationsProcessorStep,
    RobotActionToPolicyActionProcessorStep,
    TimeLimitProcessorStep,
    Torch2NumpyActionProcessorStep,
    VanillaObservationProcessorStep,
    create_transition,
    images_to_float,
    make_default_pre_post_processors,
    rename_stats,
)
from lerobot.configs.types import FeatureType, PipelineFeatureType, PolicyFeature

SEEN, DONE = PipelineFeatureType.OBSERVATION, PipelineFeatureType.ACTION


def observe(step, observation):
    return step(create_transition(observation))["observation"]


def act(step, action):
    return step(create_transition(action=action))["action"]


def test_renaming_keeps_order_and_renames_features():
    step = RenameObservationsProcessorStep({"observation.images.laptop": "observation.images.camera1"})
    observation = {"observation.images.laptop": 1, "observation.state": 2}
    assert list(observe(step, observation).items()) == [
        ("observation.images.camera1", 1),
        ("observation.state", 2),
    ]
    assert list(step.transform_features({SEEN: observation})[SEEN]) == [
        "observation.images.camera1",
        "observation.state",
    ]
    assert step.get_config() == {"rename_map": step.rename_map}


def test_renamed_statistics_are_copies():
    stats = {"a": {"mean": np.zeros(1)}, "b": None}
    renamed = rename_stats(stats, {"a": "x"})
    renamed["x"]["mean"] += 1
    assert stats["a"]["mean"] == 0 and renamed["b"] == {} and rename_stats({}, {"a": "x"}) == {}


def test_a_frame_becomes_a_batch_of_one_and_a_batch_stays():
    frame = create_transition(
        {
            "observation.state": torch.zeros(3),
            "observation.environment_state": torch.zeros(2),
            "observation.image": torch.zeros(3, 4, 5),
            "observation.images.top": torch.zeros(3, 4, 5),
            "observation.other": torch.zeros(3),
            "observation.images.array": np.zeros((3, 4, 5)),
        },
        action=torch.zeros(6),
        complementary_data={
            "task": "lift",
            "index": torch.tensor(4),
            "task_index": torch.tensor(1),
            "x": torch.tensor(1),
        },
    )
    once = AddBatchDimensionProcessorStep()(frame)
    shapes = {k.removeprefix("observation."): tuple(v.shape) for k, v in once["observation"].items()}
    assert shapes == {
        "state": (1, 3),
        "environment_state": (1, 2),
        "image": (1, 3, 4, 5),
        "images.top": (1, 3, 4, 5),
        "other": (3,),
        "images.array": (3, 4, 5),
    }
    data = once["complementary_data"]
    assert once["action"].shape == (1, 6) and data["task"] == ["lift"]
    assert (data["index"].shape, data["task_index"].shape, data["x"].shape) == ((1,), (1,), ())
    twice = AddBatchDimensionProcessorStep()(once)
    assert twice["observation"]["observation.state"] is once["observation"]["observation.state"]
    assert AddBatchDimensionProcessorStep()(create_transition(reward=1.0))["reward"] == 1.0


def test_the_device_step_casts_floats_only_and_leaves_info():
    step = DeviceProcessorStep("cpu", float_dtype="bfloat16")
    info = {"x": torch.zeros(1)}
    out = step(
        create_transition(
            {
                "observation.state": torch.zeros(1),
                "observation.n": torch.zeros(1, dtype=torch.int64),
                "text": "a",
            },
            action=torch.zeros(1),
            reward=torch.zeros(1),
            done=torch.zeros(1, dtype=torch.bool),
            info=info,
            complementary_data={"index": torch.zeros(1), "task": "x"},
        )
    )
    assert out["observation"]["observation.state"].dtype is torch.bfloat16
    assert out["observation"]["observation.n"].dtype is torch.int64 and out["observation"]["text"] == "a"
    assert out["action"].dtype is out["reward"].dtype is out["complementary_data"]["index"].dtype is torch.bfloat16
    assert out["done"].dtype is torch.bool and out["info"]["x"].dtype is torch.float32
    assert step.get_config() == {"device": "cpu", "float_dtype": "bfloat16"}


def test_the_device_step_copies_nothing_that_is_there_already():
    picture = torch.zeros(1, 3, 4, 4)
    assert observe(DeviceProcessorStep("cpu"), {"observation.image": picture})["observation.image"] is picture
    for bad in ({"device": "cpu", "float_dtype": "int8"}, {"device": "toaster"}):
        with pytest.raises(ValueError, match="float_dtype|toaster"):
            DeviceProcessorStep(**bad)
    with pytest.raises(ValueError, match="should be a PolicyAction"):
        act(DeviceProcessorStep("cpu"), {"a": 1})


@pytest.mark.gpu
def test_tensors_on_another_cuda_device_stay_there():
    step = DeviceProcessorStep("cuda:0")
    moved = observe(step, {"observation.state": torch.zeros(1)})["observation.state"]
    assert moved.is_cuda and step.get_config()["device"] == "cuda"
    assert observe(step, {"observation.state": moved})["observation.state"] is moved


def test_bytes_become_floats_and_nothing_else_is_touched():
    picture = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    state = torch.zeros(1, dtype=torch.uint8)
    batch = {"observation.images.top": picture, "observation.state": state, "task": ["a"]}
    out = images_to_float(batch)
    assert out["observation.images.top"].dtype is torch.float32
    assert out["observation.images.top"].flatten().tolist() == [0, 1]
    assert out["observation.state"] is state and out["task"] is batch["task"]
    assert batch["observation.images.top"] is picture


def test_pictures_are_cropped_and_resized_and_masks_left_alone():
    step = ImageCropResizeProcessorStep({"observation.images.top": [1, 2, 4, 6]}, [8, 12])
    picture = torch.rand(2, 3, 10, 20)
    mask = torch.ones(2, 1, dtype=torch.bool)
    ready = torch.rand(2, 1, 3, 8, 12)
    out = observe(
        step,
        {
            "observation.images.top": picture,
            "observation.images.top_is_pad": mask,
            "observation.image": ready,
        },
    )
    assert out["observation.images.top"].shape == (2, 3, 8, 12) and out["observation.images.top_is_pad"] is mask
    assert out["observation.image"] is ready, "a picture of the right size must not be copied"
    only_crop = ImageCropResizeProcessorStep({"observation.images.top": (1, 2, 4, 6)})
    assert torch.equal(
        observe(only_crop, {"observation.images.top": picture})["observation.images.top"],
        picture[..., 1:5, 2:8],
    )
    with pytest.raises(ValueError, match="does not fit into the 3x3"):
        observe(only_crop, {"observation.images.top": torch.zeros(3, 3, 3)})
    assert step.get_config() == {
        "crop_params_dict": {"observation.images.top": [1, 2, 4, 6]},
        "resize_size": [8, 12],
    }
    features = {SEEN: {"observation.images.top": PolicyFeature(FeatureType.VISUAL, (3, 10, 20))}}
    assert step.transform_features(features)[SEEN]["observation.images.top"].shape == (3, 8, 12)
    assert only_crop.transform_features(features)[SEEN]["observation.images.top"].shape == (3, 4, 6)


def test_bytes_and_floats_of_a_picture_resize_alike():
    step = ImageCropResizeProcessorStep(resize_size=(5, 7))
    picture = torch.randint(0, 256, (1, 3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    small = observe(step, {"observation.image": picture})["observation.image"]
    assert small.dtype is torch.uint8 and small.shape == (1, 3, 5, 7)
    floats = observe(step, images_to_float({"observation.image": picture}))["observation.image"]
    assert torch.equal(floats, small / 255)


def test_a_configured_image_size_adds_a_resize_step(config, stats, frame):
    config.image_size = (2, 3)
    pre, _ = make_default_pre_post_processors(config, stats)
    assert isinstance(pre[2], ImageCropResizeProcessorStep) and len(pre) == 5
    assert pre(frame)["observation.images.wrist_left"].shape == (1, 3, 2, 3)
    pre, _ = make_default_pre_post_processors(
        config, stats, extra_steps_before_device=[TimeLimitProcessorStep(3)], image_size=(4, 4)
    )
    assert [type(s).__name__ for s in pre][2:4] == ["ImageCropResizeProcessorStep", "TimeLimitProcessorStep"]
    assert pre[2].resize_size == (4, 4)


def test_gym_observations_get_our_names_and_layout():
    step = VanillaObservationProcessorStep()
    pixels = np.full((6, 8, 3), 51, np.uint8)
    out = observe(
        step,
        {
            "pixels": {"top": pixels, "wrist": pixels[None].repeat(2, 0)},
            "agent_pos": np.zeros(3),
            "environment_state": np.zeros((2, 4)),
            "extra": 1,
        },
    )
    assert out["observation.images.top"].shape == (1, 3, 6, 8)
    assert out["observation.images.wrist"].shape == (2, 3, 6, 8)
    assert out["observation.images.top"].unique().tolist() == pytest.approx([0.2])
    assert out["observation.state"].shape == (1, 3) and out["observation.state"].dtype is torch.float32
    assert out["observation.environment_state"].shape == (2, 4) and out["extra"] == 1
    assert "observation.image" in observe(step, {"pixels": pixels})
    for wrong in (pixels.astype(np.float32), pixels.transpose(2, 0, 1), pixels[0]):
        with pytest.raises(ValueError, match="observation.image"):
            observe(step, {"pixels": wrong})
    features = step.transform_features({SEEN: {"pixels.top": 1, "agent_pos": 2, "x": 3}})
    assert features[SEEN] == {"observation.images.top": 1, "observation.state": 2, "x": 3}


def test_tensor_actions_become_delta_dicts_and_robot_targets():
    deltas = act(MapTensorToDeltaActionDictStep(), torch.tensor([[0.5, 0.0, -1.0, 2.0]]))
    assert deltas == {"delta_x": 0.5, "delta_y": 0.0, "delta_z": -1.0, "gripper": 2.0}
    assert set(act(MapTensorToDeltaActionDictStep(use_gripper=False), torch.zeros(3))) == {
        "delta_x",
        "delta_y",
        "delta_z",
    }
    target = act(MapDeltaActionToRobotActionStep(position_scale=2.0), deltas)
    assert target == {
        "enabled": True,
        "target_x": 1.0,
        "target_y": 0.0,
        "target_z": -2.0,
        "target_wx": 0.0,
        "target_wy": 0.0,
        "target_wz": 0.0,
        "gripper_vel": 2.0,
    }
    still = {"delta_x": 5e-4, "delta_y": 0.0, "delta_z": 0.0, "gripper": 0.0}
    assert act(MapDeltaActionToRobotActionStep(), still)["enabled"] is False


def test_actions_between_torch_numpy_and_motors():
    assert act(Torch2NumpyActionProcessorStep(), torch.zeros(1, 3)).shape == (3,)
    assert act(Torch2NumpyActionProcessorStep(squeeze_batch_dim=False), torch.zeros(1, 3)).shape == (1, 3)
    assert act(Torch2NumpyActionProcessorStep(), torch.zeros(1)).shape == (1,)
    assert act(Numpy2TorchActionProcessorStep(), np.zeros(2, np.float64)).dtype is torch.float64
    assert act(Numpy2TorchActionProcessorStep(), None) is None
    for step, wrong in (
        (Torch2NumpyActionProcessorStep(), np.zeros(1)),
        (Numpy2TorchActionProcessorStep(), torch.zeros(1)),
    ):
        with pytest.raises(TypeError):
            act(step, wrong)
    motors = ["pan", "lift"]
    tensor = act(RobotActionToPolicyActionProcessorStep(motors), {"lift.pos": 2.0, "pan.pos": 1.0})
    assert tensor.tolist() == [1, 2]
    assert act(PolicyActionToRobotActionProcessorStep(motors), tensor) == {"pan.pos": 1.0, "lift.pos": 2.0}
    with pytest.raises(ValueError, match="pan"):
        act(RobotActionToPolicyActionProcessorStep(motors), {"pan.pos": 1.0})
    with pytest.raises(ValueError, match="pan"):
        act(PolicyActionToRobotActionProcessorStep(motors), torch.zeros(3))


def test_the_time_limit_truncates_and_starts_again_after_reset():
    step = TimeLimitProcessorStep(2)
    assert [step(create_transition())["truncated"] for _ in range(3)] == [False, True, True]
    step.reset()
    assert step(create_transition())["truncated"] is False
    assert step.get_config() == {"max_episode_steps": 2}


def test_joint_velocities_are_appended():
    step = JointVelocityProcessorStep(dt=0.5)
    first = observe(step, {"observation.state": torch.tensor([[1.0, 2.0]])})["observation.state"]
    second = observe(step, {"observation.state": torch.tensor([[2.0, 2.0]])})["observation.state"]
    assert first.tolist() == [[1, 2, 0, 0]] and second.tolist() == [[2, 2, 2, 0]]
    step.reset()
    assert observe(step, {"observation.state": torch.zeros(1, 2)})["observation.state"].tolist() == [[0, 0, 0, 0]]
    with pytest.raises(ValueError, match="observation.state"):
        observe(step, {})
    features = {SEEN: {"observation.state": PolicyFeature(FeatureType.STATE, (2,))}}
    assert step.transform_features(features)[SEEN]["observation.state"].shape == (4,)


@pytest.mark.parametrize(("position", "wanted", "penalty"), [(5, 20, -0.5), (25, 5, -0.5), (20, 5, 0), (5, 10, 0)])
def test_the_gripper_penalty_punishes_reversals(position, wanted, penalty):
    step = GripperPenaltyProcessorStep(penalty=-0.5)
    data = {"raw_joint_positions": {"gripper": position}}
    out = step(create_transition(action=torch.tensor([0.0, wanted]), complementary_data=data))
    assert out["complementary_data"]["discrete_penalty"] == penalty
    assert "discrete_penalty" not in step(create_transition(complementary_data={"task": "x"}))["complementary_data"]


def test_an_intervention_replaces_the_action_and_ends_on_success():
    step = InterventionActionProcessorStep(use_gripper=True)
    teleop = {"delta_x": 1.0, "delta_y": 2.0, "delta_z": 3.0}
    out = step(
        create_transition(
            action=torch.zeros(4),
            info={"is_intervention": True, "success": True},
            complementary_data={"teleop_action": teleop},
        )
    )
    assert out["action"].tolist() == [1, 2, 3, 1] and out["done"] is True and out["reward"] == 1.0
    assert out["complementary_data"]["teleop_action"] is out["action"]
    calm = step(create_transition(action=torch.zeros(4), complementary_data={"teleop_action": teleop}))
    assert calm["action"].sum() == 0 and calm["done"] is False and calm["info"]["is_intervention"] is False
