"""Steps of LeRobot 0.4.4 and 0.6: relative actions, action tokens, LIBERO, IsaacLab Arena."""

import pytest
import torch

from lerobot.common.processor import (
    AbsoluteActionsProcessorStep,
    ActionTokenizerProcessorStep,
    IsaaclabArenaProcessorStep,
    LiberoProcessorStep,
    PolicyProcessorPipeline,
    RelativeActionsProcessorStep,
    create_transition,
    make_default_policy_processor_steps,
    make_policy_processor_pipelines,
    policy_action_to_transition,
    to_absolute_actions,
    to_relative_actions,
    transition_to_policy_action,
)
from lerobot.common.processor.env_steps import rotation_vector
from lerobot.configs.types import FeatureType, PipelineFeatureType, PolicyFeature

STATE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


# --- relative actions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 2), (2, 5, 2)])
def test_relative_actions_differ_from_the_state_where_the_mask_says(shape):
    actions = torch.full(shape, 10.0)
    relative = to_relative_actions(actions, STATE, [True, False])
    assert relative[0].view(-1, 2)[0].tolist() == [9.0, 10.0] and relative[1].view(-1, 2)[-1].tolist() == [7.0, 10.0]
    assert torch.equal(to_absolute_actions(relative, STATE, [True, False]), actions)


def test_a_shorter_mask_leaves_later_dimensions_and_the_latest_state_counts():
    state = torch.stack([STATE, STATE + 1], 1)  # (B, T, S)
    assert to_relative_actions(torch.zeros(2, 3, 4), state, [True])[0, 2].tolist() == [-2.0, 0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="mask of 3 joints"):
        to_relative_actions(torch.zeros(2, 4), STATE, [True] * 3)


def relative_pair(**settings):
    relative = RelativeActionsProcessorStep(enabled=True, **settings)
    return make_policy_processor_pipelines([relative], [AbsoluteActionsProcessorStep(enabled=True)])


def test_what_the_preprocessor_made_relative_the_postprocessor_makes_absolute_again(tmp_path):
    names = {"exclude_joints": ["Gripper"], "action_names": ["shoulder.pos", "main_gripper.pos"]}
    pre, post = relative_pair(**names)
    batch = pre({"observation.state": STATE, "action": torch.zeros(2, 3, 2)})
    assert batch["action"][1, 0].tolist() == [-3.0, 0.0]
    assert torch.equal(post(batch["action"][:, 0]), torch.zeros(2, 2))
    pre({"observation.state": STATE + 1})  # on the robot there is no action
    assert post(torch.zeros(2, 2)).tolist() == [[2.0, 0.0], [4.0, 0.0]]
    pre.save_pretrained(tmp_path)
    again = PolicyProcessorPipeline.from_pretrained(tmp_path, config_filename="policy_preprocessor.json")
    assert again.steps[0].get_config() == {"enabled": True, **names}


def test_disabled_steps_change_nothing_and_half_a_pair_is_refused():
    pre, post = make_policy_processor_pipelines([RelativeActionsProcessorStep()], [AbsoluteActionsProcessorStep()])
    assert torch.equal(pre({"observation.state": STATE, "action": STATE})["action"], STATE)
    assert torch.equal(post(STATE), STATE)
    with pytest.raises(ValueError, match="absolute_actions_processor is off"):
        make_policy_processor_pipelines([RelativeActionsProcessorStep(enabled=True)], [AbsoluteActionsProcessorStep()])


def test_relative_actions_say_what_they_lack():
    pre, post = relative_pair(exclude_joints=["gripper"])
    with pytest.raises(ValueError, match="call the preprocessor first"):
        post(STATE)
    with pytest.raises(ValueError, match="needs action_names"):
        pre({"observation.state": STATE, "action": STATE})
    with pytest.raises(ValueError, match="'observation.state'"):
        pre({"observation.images.top": torch.zeros(1, 3, 4, 4), "action": STATE})
    with pytest.raises(ValueError, match="not connected"):
        AbsoluteActionsProcessorStep(enabled=True)(policy_action_to_transition(STATE))
    with pytest.raises(ValueError, match="3 action_names for 2"):
        RelativeActionsProcessorStep(True, [], ["a", "b", "c"]).mask(2)


def test_the_default_steps_make_the_default_pipelines(config, stats, frame):
    steps = make_default_policy_processor_steps(config, stats)
    pre, post = make_policy_processor_pipelines(
        [steps.rename, steps.add_batch_dimension, steps.device, steps.normalizer], [steps.unnormalizer, steps.to_cpu]
    )
    assert pre.name == "policy_preprocessor" and post.name == "policy_postprocessor"
    assert pre({**frame})["observation.state"].tolist() == [[-0.5, 0.0]]
    assert post(torch.ones(1, 2)).tolist() == [[3.0, 6.0]]


# --- action tokens ---------------------------------------------------------------------------------------------------


class Counting:
    """Tokens of a chunk: its first numbers."""

    def __call__(self, chunk: torch.Tensor) -> list[list[int]]:
        assert chunk.ndim in (2, 3) and len(chunk) == 1
        return [chunk.flatten()[:3].tolist()]


@pytest.fixture
def pi0_tokenizer():
    pytest.importorskip("transformers")
    from lerobot.common.policies.pi0.tokenizer_source import SHIPPED

    return str(SHIPPED / "pi0_mini")


def action_tokenizer(folder, **settings):
    tokenizer = {"action_tokenizer_input_object": Counting(), "paligemma_tokenizer_name": folder}
    return ActionTokenizerProcessorStep(**{**tokenizer, "max_action_tokens": 16, **settings})


def test_action_tokens_stand_at_the_end_of_the_text_vocabulary(pi0_tokenizer):
    """As LeRobot 0.4.4 gives them for this tokenizer (573 ids)."""
    chunk = torch.tensor([1.0, 2.0, 3.0]).expand(2, 4, 3)
    out = action_tokenizer(pi0_tokenizer)(create_transition(action=chunk, complementary_data={"task": "x"}))
    data, before, after = out["complementary_data"], [2, 36, 568, 76, 373, 29, 224], [2, 95]
    assert torch.equal(out["action"], chunk) and data["task"] == "x"
    assert data["action.tokens"].tolist() == [[*before, 443, 442, 441, *after, 0, 0, 0, 0]] * 2
    assert data["action.token_mask"].tolist() == [[True] * 12 + [False] * 4] * 2
    assert data["action.tokens"].dtype == torch.int64
    single = action_tokenizer(pi0_tokenizer, fast_skip_tokens=0)(create_transition(action=chunk[0, 0]))
    assert single["complementary_data"]["action.tokens"][7:10].tolist() == [571, 570, 569]


def test_too_many_action_tokens_are_cut_with_a_warning(pi0_tokenizer, caplog):
    step = action_tokenizer(pi0_tokenizer, max_action_tokens=8)
    data = step(create_transition(action=torch.zeros(1, 4, 3)))["complementary_data"]
    assert data["action.tokens"].shape == (1, 8) and data["action.token_mask"].all()
    assert "12 action tokens, 8 are kept" in caplog.text
    assert step(create_transition())["complementary_data"] == {}


def test_an_action_tokenizer_is_named_or_given(pi0_tokenizer, tmp_path):
    with pytest.raises(ValueError, match="action_tokenizer_name"):
        ActionTokenizerProcessorStep()
    with pytest.raises(FileNotFoundError, match="trust_remote_code"):
        ActionTokenizerProcessorStep(action_tokenizer_name=str(tmp_path), paligemma_tokenizer_name=pi0_tokenizer)
    step = action_tokenizer(pi0_tokenizer)
    assert step.get_config() == {
        "trust_remote_code": True,
        "max_action_tokens": 16,
        "paligemma_tokenizer_name": pi0_tokenizer,
    }
    again = ActionTokenizerProcessorStep.from_saved(
        step.get_config(), {"action_tokenizer_input_object": Counting()}, None
    )
    assert not again.trust_remote_code  # a checkpoint's file cannot ask for code to be run


# --- environments ----------------------------------------------------------------------------------------------------


def test_libero_observations_become_eight_numbers_and_upright_pictures():
    """Numbers of LeRobot 0.4.4 for the same observation."""
    robot = {
        "eef": {"pos": torch.tensor([[1.0, 2.0, 3.0]]), "quat": torch.tensor([[0.3, 0.1, 0.2, 0.9]])},
        "gripper": {"qpos": torch.tensor([[0.1, 0.2]])},
    }
    picture = torch.arange(18.0).view(1, 3, 2, 3)
    seen = LiberoProcessorStep()(
        create_transition({"observation.robot_state": robot, "observation.images.image": picture, "x": 1})
    )["observation"]
    assert set(seen) == {"observation.state", "observation.images.image", "x"}
    expected = [1.0, 2.0, 3.0, 0.6208359, 0.20694529, 0.41389057, 0.1, 0.2]
    assert seen["observation.state"][0].tolist() == pytest.approx(expected, abs=1e-6)
    assert seen["observation.images.image"][0, 0].tolist() == [[5.0, 4.0, 3.0], [2.0, 1.0, 0.0]]


@pytest.mark.parametrize(("quaternion", "vector"), [([0, 0, 0, 1], 0.0), ([0.5, 0.5, 0.5, 0.5], 1.2091995)])
def test_rotation_vectors(quaternion, vector):
    assert rotation_vector(torch.tensor([quaternion]).float())[0].tolist() == pytest.approx([vector] * 3, abs=1e-6)
    with pytest.raises(ValueError, match=r"\(B, 4\)"):
        rotation_vector(torch.zeros(4))


def test_features_of_libero_are_the_flat_state():
    state = {"observation.state.eef_pos": PolicyFeature(FeatureType.STATE, (3,))}
    picture = {"observation.images.image": PolicyFeature(FeatureType.VISUAL, (3, 8, 8))}
    out = LiberoProcessorStep().transform_features({PipelineFeatureType.OBSERVATION: {**state, **picture}})
    flat = {"observation.state": PolicyFeature(FeatureType.STATE, (8,))}
    assert out == {PipelineFeatureType.OBSERVATION: {**picture, **flat}}


def test_isaaclab_observations_are_picked_in_the_order_of_the_keys():
    observation = {
        "observation.policy": {"a": torch.ones(2, 3), "b": torch.zeros(2, 2, 2), "c": torch.ones(2, 1)},
        "observation.camera_obs": {"cam": torch.full((2, 4, 5, 3), 255, dtype=torch.uint8)},
        "observation.other": torch.zeros(1),
    }
    step = IsaaclabArenaProcessorStep(state_keys=("b", "absent", "a"), camera_keys=("cam",))
    seen = step(create_transition(observation))["observation"]
    assert seen["observation.state"].tolist() == [[0.0] * 4 + [1.0] * 3] * 2
    assert seen["observation.images.cam"].shape == (2, 3, 4, 5) and seen["observation.images.cam"].max() == 1.0
    assert set(seen) == {"observation.state", "observation.images.cam"}
    assert IsaaclabArenaProcessorStep.from_saved(step.get_config(), {}, None).state_keys == ["b", "absent", "a"]


def test_relative_actions_act_before_the_normalizer_and_after_the_unnormalizer(config, stats):
    """The order of LeRobot 0.6: the difference is what is normalized."""
    steps = make_default_policy_processor_steps(config, stats)
    relative, absolute = RelativeActionsProcessorStep(enabled=True), AbsoluteActionsProcessorStep(enabled=True)
    pre, post = make_policy_processor_pipelines([relative, steps.normalizer], [steps.unnormalizer, absolute])
    batch = pre({"observation.state": STATE, "action": torch.tensor([[2.0, 4.0], [6.0, 10.0]])})
    assert torch.allclose(batch["action"], torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    assert post(batch["action"]).tolist() == [[2.0, 4.0], [6.0, 10.0]]
    assert transition_to_policy_action(policy_action_to_transition(STATE)) is STATE
