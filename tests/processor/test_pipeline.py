"""Pipelines: running, hooks, parts, saving and loading, and what goes wrong."""

import json
from dataclasses import dataclass

import pytest
import torch

from lerobot.common.processor import (
    ActionProcessorStep,
    DataProcessorPipeline,
    IdentityProcessorStep,
    ObservationProcessorStep,
    PolicyActionProcessorStep,
    PolicyProcessorPipeline,
    ProcessorMigrationError,
    ProcessorStep,
    ProcessorStepRegistry,
    RewardProcessorStep,
    create_transition,
    identity_transition,
    make_default_pre_post_processors,
    make_default_processors,
    policy_action_to_transition,
    transition_to_policy_action,
)
from lerobot.configs.types import FeatureType, PipelineFeatureType, PolicyFeature

ACTIONS = {"to_transition": policy_action_to_transition, "to_output": transition_to_policy_action}


@ProcessorStepRegistry.register("test_scale_reward")
@dataclass
class ScaleReward(RewardProcessorStep):
    factor: float = 2.0
    seen: int = 0

    def reward(self, reward):
        self.seen += 1
        return reward * self.factor

    def get_config(self):
        return {"factor": self.factor}

    def state_dict(self):
        return {"seen": torch.tensor(self.seen)}

    def load_state_dict(self, state):
        self.seen = int(state["seen"])

    def reset(self):
        self.seen = 0

    def transform_features(self, features):
        return features


class DropImages(ObservationProcessorStep):
    def observation(self, observation):
        return {k: v for k, v in observation.items() if "image" not in k}

    def transform_features(self, features):
        features[PipelineFeatureType.OBSERVATION].pop("observation.image")
        return features


def rewards(*steps, **kwargs):
    return DataProcessorPipeline([*steps], to_transition=identity_transition, to_output=lambda t: t["reward"], **kwargs)


def test_steps_run_in_order_between_the_converters():
    assert rewards(ScaleReward(2), ScaleReward(5))(create_transition(reward=1.0)) == 10
    assert [
        t["reward"] for t in rewards(ScaleReward(2), ScaleReward(5)).step_through(create_transition(reward=1.0))
    ] == [
        1,
        2,
        10,
    ]


def test_the_input_transition_is_not_changed():
    transition = create_transition({"observation.image": 1, "observation.state": 2})
    out = DropImages()(transition)
    assert "observation.image" in transition["observation"] and "observation.image" not in out["observation"]


def test_hooks_see_every_step_and_can_be_removed():
    pipeline, seen = rewards(ScaleReward(2), ScaleReward(5)), []

    def before(i, t):
        seen.append(("before", i, t["reward"]))

    def after(i, t):
        seen.append(("after", i, t["reward"]))
        return create_transition()  # ignored

    pipeline.register_before_step_hook(before)
    pipeline.register_after_step_hook(after)
    assert pipeline(create_transition(reward=1.0)) == 10
    assert seen == [("before", 0, 1), ("after", 0, 2), ("before", 1, 2), ("after", 1, 10)]
    pipeline.unregister_before_step_hook(before)
    pipeline.unregister_after_step_hook(after)
    pipeline(create_transition(reward=1.0))
    assert len(seen) == 4
    with pytest.raises(ValueError, match="not found in before_step_hooks|not found in after_step_hooks"):
        pipeline.unregister_before_step_hook(before)


def test_parts_are_processed_alone():
    pipeline = rewards(ScaleReward(3))
    assert pipeline.process_reward(2.0) == 6
    assert pipeline.process_info({"a": 1}) == {"a": 1}
    assert pipeline.process_complementary_data({"task": "x"}) == {"task": "x"}
    assert pipeline.process_done(True) is True and pipeline.process_truncated(True) is True
    with pytest.raises(ValueError, match="observation"):
        DataProcessorPipeline([DropImages()]).process_action(torch.zeros(1))


def test_length_index_slice_and_reset():
    pipeline = rewards(ScaleReward(2), IdentityProcessorStep(), ScaleReward(5), name="mine")
    pipeline.register_before_step_hook(print)
    part = pipeline[1:]
    assert len(pipeline) == 3 and pipeline[2].factor == 5
    assert isinstance(part, DataProcessorPipeline) and len(part) == 2 and part.name == "mine"
    part.before_step_hooks.clear()
    assert pipeline.before_step_hooks == [print]
    pipeline.process_reward(1.0)
    pipeline.reset()
    assert pipeline[0].seen == 0


def test_features_go_through_every_step_and_the_input_stays():
    features = {PipelineFeatureType.OBSERVATION: {"observation.image": PolicyFeature(FeatureType.VISUAL, (3, 1, 1))}}
    out = DataProcessorPipeline([DropImages(), IdentityProcessorStep()]).transform_features(features)
    assert out[PipelineFeatureType.OBSERVATION] == {} and features[PipelineFeatureType.OBSERVATION] != {}


def test_only_steps_are_accepted_and_bases_check_their_part():
    with pytest.raises(TypeError, match="Step 1"):
        DataProcessorPipeline([IdentityProcessorStep(), print])
    with pytest.raises(ValueError, match="Transition is not set"):
        _ = IdentityProcessorStep().transition

    class Action(PolicyActionProcessorStep):
        def action(self, action):
            return action

        def transform_features(self, features):
            return features

    step = Action()
    for wrong in (None, {"a": 1}):
        with pytest.raises(ValueError, match="should be a PolicyAction"):
            step(create_transition(action=wrong))
    step(create_transition(action=torch.zeros(2)))
    assert step.transition["action"].shape == (2,)
    assert issubclass(PolicyActionProcessorStep, ActionProcessorStep)


def test_the_registry_refuses_a_name_twice_and_lists_what_it_knows():
    with pytest.raises(ValueError, match="already registered"):
        ProcessorStepRegistry.register("test_scale_reward")(DropImages)
    with pytest.raises(KeyError, match="normalizer_processor"):
        ProcessorStepRegistry.get("nothing")
    ProcessorStepRegistry.register("test_gone")(type("Gone", (IdentityProcessorStep,), {}))
    ProcessorStepRegistry.unregister("test_gone")
    assert "test_gone" not in ProcessorStepRegistry.list()


def test_generic_aliases_are_one_class():
    assert PolicyProcessorPipeline[dict, dict](steps=[]).steps == []
    assert PolicyProcessorPipeline is DataProcessorPipeline


# On disk


def test_a_saved_pair_is_loaded_and_computes_the_same(tmp_path, config, stats, frame):
    pre, post = make_default_pre_post_processors(config, stats)
    pre.save_pretrained(tmp_path)
    post.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "policy_postprocessor.json",
        "policy_postprocessor_step_0_unnormalizer_processor.safetensors",
        "policy_preprocessor.json",
        "policy_preprocessor_step_3_normalizer_processor.safetensors",
    ]
    pre2 = DataProcessorPipeline.from_pretrained(tmp_path, "policy_preprocessor.json")
    post2 = DataProcessorPipeline.from_pretrained(tmp_path, config_filename="policy_postprocessor.json", **ACTIONS)
    ours, theirs = pre(frame), pre2(frame)
    for key in config.input_features:
        assert ours[key].shape[0] == 1 and torch.equal(ours[key], theirs[key])
    assert ours["observation.state"].tolist() == [[-0.5, 0.0]] and ours["task"] == ["lift the cube"]
    assert post2(torch.ones(1, 2)).tolist() == [[3.0, 6.0]] == post(torch.ones(1, 2)).tolist()


def test_the_json_is_the_one_that_lerobot_0_4_4_writes(tmp_path, config, stats):
    make_default_pre_post_processors(config, stats)[1].save_pretrained(tmp_path)
    assert (
        (tmp_path / "policy_postprocessor.json").read_text()
        == """{
  "name": "policy_postprocessor",
  "steps": [
    {
      "registry_name": "unnormalizer_processor",
      "config": {
        "eps": 1e-08,
        "features": {
          "action": {
            "type": "ACTION",
            "shape": [
              2
            ]
          }
        },
        "norm_map": {
          "VISUAL": "MEAN_STD",
          "STATE": "MIN_MAX",
          "ACTION": "MEAN_STD"
        }
      },
      "state_file": "policy_postprocessor_step_0_unnormalizer_processor.safetensors"
    },
    {
      "registry_name": "device_processor",
      "config": {
        "device": "cpu",
        "float_dtype": null
      }
    }
  ]
}"""
    )


def test_loading_and_saving_again_gives_the_same_bytes(tmp_path, config, stats):
    make_default_pre_post_processors(config, stats)[0].save_pretrained(tmp_path / "a")
    DataProcessorPipeline.from_pretrained(tmp_path / "a", "policy_preprocessor.json").save_pretrained(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_names_are_sanitized_and_unregistered_steps_saved_by_class(tmp_path, monkeypatch):
    pipeline = rewards(DropImages(), ScaleReward(3), IdentityProcessorStep(), name="My Pipe-1")
    pipeline.save_pretrained(tmp_path)
    entries = json.loads((tmp_path / "my_pipe_1.json").read_text())["steps"]
    assert entries[0] == {"class": f"{__name__}.DropImages", "config": {}}
    assert entries[1]["state_file"] == "my_pipe_1_step_1_test_scale_reward.safetensors"
    assert entries[2]["class"] == "lerobot.processor.pipeline.IdentityProcessorStep"
    loaded = DataProcessorPipeline.from_pretrained(tmp_path / "my_pipe_1.json", "ignored.json")
    assert isinstance(loaded[0], DropImages) and loaded[1].factor == 3 and loaded.name == "My Pipe-1"
    monkeypatch.setattr("lerobot.common.processor.pipeline.HF_LEROBOT_HOME", tmp_path)
    pipeline.save_pretrained(config_filename="other.json")
    assert (tmp_path / "processors" / "my_pipe_1" / "other.json").is_file()


def test_the_json_is_followed_where_the_state_stands_at_another_index(tmp_path, config, stats):
    post = make_default_pre_post_processors(config, stats)[1]
    swapped = DataProcessorPipeline([post[1], post[0]], name=post.name, **ACTIONS)
    swapped.save_pretrained(tmp_path)
    assert (tmp_path / "policy_postprocessor_step_1_unnormalizer_processor.safetensors").is_file()
    loaded = DataProcessorPipeline.from_pretrained(tmp_path, "policy_postprocessor.json", **ACTIONS)
    assert loaded(torch.ones(1, 2)).tolist() == [[3.0, 6.0]]


def test_overrides_reach_every_step_of_a_name_and_win_over_the_state_file(tmp_path, config, stats):
    pre, post = make_default_pre_post_processors(config, stats)
    DataProcessorPipeline([*post, *post], name="twice").save_pretrained(tmp_path)
    other = {"action": {"mean": [7.0], "std": [1.0]}}
    twice = DataProcessorPipeline.from_pretrained(
        tmp_path, "twice.json", overrides={"unnormalizer_processor": {"stats": other}}, **ACTIONS
    )
    assert twice(torch.zeros(1, 2)).tolist() == [[14.0, 14.0]]
    with pytest.raises(KeyError, match="normalizer_processor.*do not match any step.*unnormalizer_processor"):
        DataProcessorPipeline.from_pretrained(tmp_path, "twice.json", overrides={"normalizer_processor": {}})


def test_config_and_states_in_memory_build_the_same_pipeline():
    pipeline = rewards(ScaleReward(3, seen=4), name="p")
    states = pipeline.state_dict()
    assert list(states) == ["p_step_0_test_scale_reward"]
    again = DataProcessorPipeline.from_config(pipeline.get_config(), states)
    assert again[0] == pipeline[0]
    again[0].reset()
    again.load_state_dict(states)
    assert again[0].seen == 4
    for wrong in ({}, {**states, "p_step_9_x": {}}):
        with pytest.raises(KeyError, match="missing|unknown"):
            again.load_state_dict(wrong)


def test_a_postprocessor_loaded_without_converters_says_so(tmp_path, config, stats):
    make_default_pre_post_processors(config, stats)[1].save_pretrained(tmp_path)
    post = DataProcessorPipeline.from_pretrained(tmp_path, "policy_postprocessor.json")
    with pytest.raises(ValueError, match="must be a dictionary, got .*Tensor"):
        post(torch.ones(1, 2))


def write(folder, name, content):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        ([1], ValueError, "it holds a list"),
        ({"a": 1}, ValueError, "only the keys"),
        ({"steps": [{"config": {}}]}, ValueError, "step 0 has neither"),
        ("{not json", ValueError, "not valid JSON"),
        ({"steps": [{"registry_name": "unknown_step"}]}, ImportError, "unknown_step.*Available steps:"),
        ({"steps": [{"class": "no.such.Module"}]}, ImportError, "no.such.Module"),
        ({"steps": [{"class": "pathlib.Path"}]}, ImportError, "not a ProcessorStep"),
        (
            {"steps": [{"registry_name": "device_processor", "config": {"x": 1}}]},
            ValueError,
            "Failed to instantiate",
        ),
        (
            {"steps": [{"registry_name": "device_processor", "state_file": "gone.safetensors"}]},
            FileNotFoundError,
            "gone.safetensors",
        ),
        (
            {"steps": [{"registry_name": "device_processor", "state_file": "../x.safetensors"}]},
            ValueError,
            "plain name",
        ),
    ],
)
def test_damaged_files_are_named(tmp_path, content, error, match):
    write(tmp_path, "other.json", {"steps": []})
    write(tmp_path, "p.json", content)
    with pytest.raises(error, match=match):
        DataProcessorPipeline.from_pretrained(tmp_path, "p.json")


def test_a_truncated_state_file_is_named(tmp_path, config, stats):
    make_default_pre_post_processors(config, stats)[1].save_pretrained(tmp_path)
    state = tmp_path / "policy_postprocessor_step_0_unnormalizer_processor.safetensors"
    state.write_bytes(state.read_bytes()[:-8])
    with pytest.raises(ValueError, match="step_0_unnormalizer_processor.safetensors is truncated"):
        DataProcessorPipeline.from_pretrained(tmp_path, "policy_postprocessor.json")


def test_missing_files_and_legacy_checkpoints_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="'p.json' not found in directory"):
        DataProcessorPipeline.from_pretrained(tmp_path, "p.json")
    write(tmp_path, "config.json", {"type": "act"})
    write(tmp_path, "broken.json", "{")
    with pytest.raises(ProcessorMigrationError, match="--pretrained-path") as e:
        DataProcessorPipeline.from_pretrained(tmp_path, "p.json")
    assert e.value.model_path == tmp_path and "missing" in e.value.original_error
    with pytest.raises(ProcessorMigrationError, match="not a pipeline"):
        DataProcessorPipeline.from_pretrained(tmp_path, "config.json")
    write(tmp_path, "q.json", {"steps": []})
    with pytest.raises(FileNotFoundError):
        DataProcessorPipeline.from_pretrained(tmp_path, "p.json")
    with pytest.raises(FileNotFoundError, match="Could not find 'p.json' on the HuggingFace Hub at 'no/such'"):
        DataProcessorPipeline.from_pretrained("no/such", "p.json")


def test_a_device_that_is_not_here_names_the_override(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    write(tmp_path, "p.json", {"steps": [{"registry_name": "device_processor", "config": {"device": "cuda"}}]})
    with pytest.raises(ValueError, match="'cuda' is not available.*device_processor"):
        DataProcessorPipeline.from_pretrained(tmp_path, "p.json")
    loaded = DataProcessorPipeline.from_pretrained(
        tmp_path, "p.json", overrides={"device_processor": {"device": "cpu"}}
    )
    assert loaded[0].device == "cpu"


def test_default_robot_pipelines_pass_their_part_through():
    teleop, robot, observe = make_default_processors()
    assert teleop(({"a.pos": 1.0}, None)) == {"a.pos": 1.0} == robot(({"a.pos": 1.0}, {}))
    assert observe({"x": 1}) == {"x": 1}
    assert all(isinstance(step, ProcessorStep) for p in (teleop, robot, observe) for step in p)
