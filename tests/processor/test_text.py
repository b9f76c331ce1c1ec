"""The task sentence: newline, tokens, pi0.5's prompt."""

import shutil

import pytest
import torch

from lerobot.common.processor import (
    DataProcessorPipeline,
    NewLineTaskProcessorStep,
    Pi0NewLineProcessor,
    Pi05PrepareStateTokenizerProcessorStep,
    ProcessorStepRegistry,
    TokenizerProcessorStep,
    create_transition,
)
from lerobot.configs.types import FeatureType, PipelineFeatureType, PolicyFeature

TOKENS, MASK = "observation.language.tokens", "observation.language.attention_mask"


def with_task(task):
    return create_transition({"observation.state": torch.zeros(1, 2)}, complementary_data={"task": task})


@pytest.fixture
def tokenize(tokenizer_folder):
    def make(**kwargs):
        return TokenizerProcessorStep(str(tokenizer_folder), **kwargs)

    return make


@pytest.mark.parametrize("step_class", [NewLineTaskProcessorStep, Pi0NewLineProcessor])
def test_tasks_end_in_one_newline(step_class):
    for before, after in (
        ("lift", "lift\n"),
        ("lift\n", "lift\n"),
        ("", "\n"),
        (["a", "b\n"], ["a\n", "b\n"]),
        (["a", 3], ["a", 3]),
        (None, None),
        (7, 7),
    ):
        assert step_class()(with_task(before))["complementary_data"]["task"] == after
    assert step_class()(create_transition())["complementary_data"] == {}
    assert ProcessorStepRegistry.get("smolvla_new_line_processor") is NewLineTaskProcessorStep


def test_tokens_are_padded_to_the_longest_or_to_the_maximum(tokenize):
    longest = tokenize(max_length=8, padding="longest")(with_task(["lift the cube\n", "lift"]))["observation"]
    assert longest[TOKENS].tolist() == [[2, 3, 4, 5], [2, 0, 0, 0]]
    assert longest[TOKENS].dtype is torch.int64 and longest[MASK].dtype is torch.bool
    assert longest[MASK].tolist() == [[True] * 4, [True, False, False, False]]
    fixed = tokenize(max_length=6, padding_side="left")(with_task("lift"))["observation"]
    assert fixed[TOKENS].tolist() == [[0, 0, 0, 0, 0, 2]]
    assert "observation.state" in fixed


def test_long_tasks_are_cut_on_the_side_of_the_tokenizer(tokenize):
    out = tokenize(max_length=2)(with_task("lift the cube"))["observation"]
    assert out[TOKENS].tolist() == [[3, 4]], "this tokenizer, as SmolVLM2's, cuts on the left"


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        (None, ValueError, "Complementary data is None"),
        ({"index": 1}, KeyError, "reads a sentence"),
        ({"task": None}, ValueError, "Task extracted from Complementary data is None"),
        ({"task": [1, 2]}, ValueError, "Task cannot be None"),
    ],
)
def test_a_missing_task_is_an_error(tokenize, data, error, match):
    transition = {**create_transition({"observation.state": torch.zeros(1, 2)}), "complementary_data": data}
    with pytest.raises(error, match=match):
        tokenize()(transition)


def test_features_gain_the_language(tokenize):
    state = PolicyFeature(FeatureType.STATE, (2,))
    out = tokenize(max_length=9).transform_features({PipelineFeatureType.OBSERVATION: {"observation.state": state}})
    assert out[PipelineFeatureType.OBSERVATION] == {
        "observation.state": state,
        TOKENS: PolicyFeature(FeatureType.LANGUAGE, (9,)),
        MASK: PolicyFeature(FeatureType.LANGUAGE, (9,)),
    }


def test_the_name_is_saved_but_not_the_object(tokenizer_folder, tokenize):
    assert tokenize(max_length=9, padding="longest").get_config() == {
        "max_length": 9,
        "task_key": "task",
        "padding_side": "right",
        "padding": "longest",
        "truncation": True,
        "tokenizer_name": str(tokenizer_folder),
    }
    given = TokenizerProcessorStep(tokenizer=tokenize().input_tokenizer)
    assert "tokenizer_name" not in given.get_config()
    with pytest.raises(ValueError, match="Either 'tokenizer' or 'tokenizer_name'"):
        TokenizerProcessorStep()


def saved(tmp_path, tokenizer_folder, name):
    """A checkpoint whose tokenizer step names `name`."""
    step = TokenizerProcessorStep(str(tokenizer_folder), max_length=5)
    step.tokenizer_name = name
    DataProcessorPipeline([step], name="p").save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint", step


def load(folder, **overrides):
    overrides = {"tokenizer_processor": overrides} if overrides else {}
    return DataProcessorPipeline.from_pretrained(folder, "p.json", overrides=overrides)


def test_a_relative_folder_is_found_inside_the_checkpoint(tmp_path, tokenizer_folder, monkeypatch):
    checkpoint, _ = saved(tmp_path, tokenizer_folder, "words")
    shutil.copytree(tokenizer_folder, checkpoint / "words")
    monkeypatch.chdir(tmp_path)
    pipeline = load(checkpoint)
    assert pipeline({"observation.state": torch.zeros(1, 2), "task": "the cube"})[TOKENS].tolist() == [[3, 4, 0, 0, 0]]
    assert pipeline[0].get_config()["tokenizer_name"] == "words"


def test_a_relative_folder_is_found_in_the_working_directory(tmp_path, tokenizer_folder, monkeypatch):
    checkpoint, _ = saved(tmp_path, tokenizer_folder, "words")
    monkeypatch.chdir(tokenizer_folder.parent)
    assert load(checkpoint)[0].input_tokenizer is not None


def test_the_checkpoints_own_copy_serves_a_hub_name_without_network(tmp_path, tokenizer_folder, monkeypatch):
    checkpoint, step = saved(tmp_path, tokenizer_folder, "somebody/tokenizer-that-is-nowhere")
    step.save_tokenizer(checkpoint)
    loaded = load(checkpoint)[0]
    assert loaded.input_tokenizer("lift").input_ids == [2]
    assert loaded.get_config()["tokenizer_name"] == "somebody/tokenizer-that-is-nowhere"


def test_overrides_choose_the_tokenizer(tmp_path, tokenizer_folder):
    checkpoint, step = saved(tmp_path, tokenizer_folder, "nowhere")
    assert load(checkpoint, tokenizer_name=str(tokenizer_folder))[0].input_tokenizer("lift").input_ids == [2]
    assert load(checkpoint, tokenizer=step.input_tokenizer)[0].input_tokenizer is step.input_tokenizer


def test_a_tokenizer_that_is_nowhere_gives_one_error_with_the_ways_out(tmp_path, tokenizer_folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    checkpoint, _ = saved(tmp_path, tokenizer_folder, "somebody/tokenizer-that-is-nowhere")
    with pytest.raises(ValueError, match="Failed to instantiate processor step 'tokenizer_processor'") as e:
        load(checkpoint)
    for word in (
        "somebody/tokenizer-that-is-nowhere",
        "not in the cache",
        "--policy.vlm_model_name",
        "tokenizer_name",
    ):
        assert word in str(e.value)
    (checkpoint / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no usable tokenizer"):
        load(checkpoint, tokenizer_name="empty")


def test_a_relative_name_does_not_lead_out_of_the_checkpoint(tmp_path, tokenizer_folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    shutil.copytree(tokenizer_folder, tmp_path / "words")
    checkpoint, _ = saved(tmp_path, tokenizer_folder, "../words")
    (tmp_path / "elsewhere" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere" / "deeper")
    with pytest.raises(ValueError, match="no such folder"):
        load(checkpoint)


def test_pi05_writes_the_state_into_the_prompt():
    step = Pi05PrepareStateTokenizerProcessorStep(max_state_dim=4)
    state = torch.tensor([[-1.0, 0.0, 1.0]])
    out = step(create_transition({"observation.state": state}, complementary_data={"task": [" lift_the\ncube "]}))
    assert out["complementary_data"]["task"] == ["Task: lift the cube, State: 0 128 255 128;\nAction: "]
    for transition in (
        create_transition(complementary_data={"task": "x"}),
        create_transition({"observation.state": state}),
    ):
        with pytest.raises(ValueError, match="pi0.5"):
            step(transition)
