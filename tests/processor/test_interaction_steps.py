"""Teleoperators, motor currents and subtasks in a transition."""

from types import SimpleNamespace

import pytest
import torch

from lerobot.common.constants import OBS_STATE
from lerobot.common.processor import (
    AddTeleopActionAsComplimentaryDataStep,
    AddTeleopEventsAsInfoStep,
    DataProcessorPipeline,
    InterventionActionProcessorStep,
    MotorCurrentProcessorStep,
    TeleopEvents,
    TokenizerProcessorStep,
    create_transition,
    identity_transition,
)
from lerobot.common.processor import tokenizer as tokenizer_module
from lerobot.configs.types import FeatureType, PipelineFeatureType, PolicyFeature


class Leader:
    def get_action(self):
        return {"delta_x": 1.0, "delta_y": 2.0, "delta_z": 3.0}

    def get_teleop_events(self):
        return {TeleopEvents.IS_INTERVENTION: True, TeleopEvents.SUCCESS: True}


def test_a_teleoperator_takes_over_and_its_flags_are_found_by_name_and_by_member(tmp_path):
    leader = Leader()
    steps = [AddTeleopActionAsComplimentaryDataStep(leader), AddTeleopEventsAsInfoStep(leader)]
    pipeline = DataProcessorPipeline(
        [*steps, InterventionActionProcessorStep()],
        name="hil",
        to_transition=identity_transition,
        to_output=identity_transition,
    )
    out = pipeline(create_transition(action=torch.zeros(1, 3)))
    assert out["action"].tolist() == [1, 2, 3] and out["done"] and out["reward"] == 1.0
    info = out["info"]
    assert info["is_intervention"] is info[TeleopEvents.IS_INTERVENTION] is True and not info["rerecord_episode"]
    pipeline.save_pretrained(tmp_path)
    devices = {f"add_teleop_action_as_{where}": {"teleop_device": leader} for where in ("complementary_data", "info")}
    assert len(DataProcessorPipeline.from_pretrained(tmp_path, "hil.json", overrides=devices)) == 3
    with pytest.raises(ValueError, match="teleop_device"):
        DataProcessorPipeline.from_pretrained(tmp_path, "hil.json")


def test_motor_currents_stand_behind_the_state_in_the_order_of_the_bus():
    bus = SimpleNamespace(motors={"pan": 1, "lift": 2}, sync_read=lambda name: {"lift": 20, "pan": 10})
    step = MotorCurrentProcessorStep(SimpleNamespace(bus=bus))
    out = step(create_transition({OBS_STATE: torch.zeros(1, 2)}))
    assert out["observation"][OBS_STATE].tolist() == [[0, 0, 10, 20]]
    features = {PipelineFeatureType.OBSERVATION: {OBS_STATE: PolicyFeature(FeatureType.STATE, (2,))}}
    assert step.transform_features(features)[PipelineFeatureType.OBSERVATION][OBS_STATE].shape == (4,)
    with pytest.raises(ValueError, match="no robot"):
        MotorCurrentProcessorStep()(create_transition({OBS_STATE: torch.zeros(1, 2)}))


class Letters:
    """One token per letter."""

    def __call__(self, texts, max_length, **_):
        ids = [[ord(c) for c in text.ljust(max_length)[:max_length]] for text in texts]
        return {"input_ids": torch.tensor(ids), "attention_mask": (torch.tensor(ids) != 32).long()}


def test_a_subtask_is_tokenized_beside_the_task():
    step = TokenizerProcessorStep(tokenizer=Letters(), max_length=5)
    data = {"task": ["pick"], "subtask": ["hold"]}
    seen = step(create_transition({OBS_STATE: torch.zeros(1, 2)}, complementary_data=data))["observation"]
    assert seen["observation.subtask.tokens"][0, 0] == ord("h") and seen["observation.language.tokens"][0, 0] == ord(
        "p"
    )
    assert seen["observation.subtask.attention_mask"].tolist() == [[True] * 4 + [False]]


def test_the_class_that_loads_tokenizers_can_be_replaced(monkeypatch):
    """Scripts for LeRobot 0.4 put their own class where the step's module keeps `AutoTokenizer`."""
    from lerobot.processor import tokenizer_processor

    class Auto:
        @staticmethod
        def from_pretrained(name, **_):
            assert name == "somebody/tokenizer"
            return Letters()

    monkeypatch.setattr(tokenizer_processor, "AutoTokenizer", Auto, raising=False)
    assert tokenizer_processor is tokenizer_module
    assert isinstance(TokenizerProcessorStep(tokenizer_name="somebody/tokenizer").input_tokenizer, Letters)


class Sees:
    """A classifier that gives the same answer to everything and keeps what it was shown."""

    def __init__(self, answer):
        self.answer, self.shown = answer, []

    def predict_reward(self, pictures, threshold):
        self.shown.append((sorted(pictures), threshold))
        return self.answer


def test_a_classifier_of_success_sets_reward_and_end():
    from lerobot.common.processor import RewardClassifierProcessorStep

    pictures = {"observation.images.a": torch.zeros(1, 3, 2, 2), "observation.state": torch.zeros(1, 2)}
    transition = create_transition(pictures, torch.zeros(2), reward=0.25, info={"x": 1})
    sees = Sees(torch.tensor([1.0]))
    step = RewardClassifierProcessorStep(reward_classifier=sees, success_threshold=0.7, success_reward=2.0)
    after = step(transition)
    assert (after["reward"], after["done"], after["info"]["x"]) == (2.0, True, 1)
    assert after["info"]["reward_classifier_frequency"] > 0 and sees.shown == [(["observation.images.a"], 0.7)]
    step.terminate_on_success = False
    assert step(transition)["done"] is False
    step.reward_classifier = Sees(0.0)
    assert step(transition)["reward"] == 0.25
    again = RewardClassifierProcessorStep(**step.get_config())
    assert again.success_reward == 2.0 and again(transition) is transition
    with pytest.raises(ValueError, match="reward_classifier"):
        RewardClassifierProcessorStep(pretrained_path="somewhere")


def test_gym_hil_puts_the_teleoperators_action_into_info():
    from lerobot.common.processor import GymHILAdapterProcessorStep

    info = {"teleop_action": [1, 2], "is_intervention": True}
    after = GymHILAdapterProcessorStep()(create_transition(None, None, info=info, complementary_data={"k": 1}))
    assert after["complementary_data"] == {"k": 1, "teleop_action": [1, 2]} and after["info"]["is_intervention"]
