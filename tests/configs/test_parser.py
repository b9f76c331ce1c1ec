"""The command line: layers, spellings, and the messages for what is wrong."""

import json

import pytest

from lerobot.common.robot_devices.control_configs import ControlPipelineConfig
from lerobot.configs.flags import flags_of, help_text
from lerobot.configs.parser import parse, read_value, split_arguments
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.train import TrainPipelineConfig

DATA = "--dataset.root=somewhere"


def test_flags_override_the_defaults_by_leaf():
    cfg = parse(TrainPipelineConfig, [DATA, "--policy.type=act", "--policy.chunk_size=7", "--policy.n_action_steps=3"])
    assert (cfg.policy.type, cfg.policy.chunk_size, cfg.policy.n_action_steps) == ("act", 7, 3)
    assert cfg.policy.dim_model == 512 and cfg.batch_size == 8


@pytest.mark.parametrize("word", ["true", "True", "yes"])
def test_booleans_are_read_as_people_type_them(word):
    assert parse(TrainPipelineConfig, [DATA, "--policy.type=act", f"--policy.pre_norm={word}"]).policy.pre_norm is True


def test_both_forms_of_a_flag_and_numbers_with_underscores():
    cfg = parse(
        TrainPipelineConfig,
        [DATA, "--policy.type", "act", "--steps", "10_000", "--policy.optimizer_lr=1e-4", "--smoke"],
    )
    assert (cfg.steps, cfg.policy.optimizer_lr, cfg.smoke) == (10_000, 1e-4, True)


def test_any_repo_id_is_taken_as_it_stands():
    assert parse(TrainPipelineConfig, [DATA, "--dataset.repo_id=None"]).dataset.repo_id == "None"
    assert parse(TrainPipelineConfig, [DATA, "--dataset.repo_id=null"]).dataset.repo_id is None


def test_an_unknown_flag_names_the_nearest_one():
    with pytest.raises(ValueError, match=r"Unknown flag --batchsize.*--batch_size"):
        parse(TrainPipelineConfig, [DATA, "--batchsize=4"])
    with pytest.raises(ValueError, match=r"Unknown flag --policy.chunksize.*--policy.chunk_size"):
        parse(TrainPipelineConfig, [DATA, "--policy.chunksize=4"])


def test_a_flag_of_another_policy_is_refused():
    with pytest.raises(ValueError, match="num_steps"):
        parse(TrainPipelineConfig, [DATA, "--policy.type=act", "--policy.num_steps=4"])


def test_a_wrong_value_names_its_field():
    with pytest.raises(ValueError, match="steps"):
        parse(TrainPipelineConfig, [DATA, "--steps=many"])


def test_no_dataset_names_the_flag():
    with pytest.raises(ValueError, match="dataset"):
        parse(TrainPipelineConfig, ["--policy.type=act"])
    with pytest.raises(ValueError, match="--dataset.root"):
        parse(TrainPipelineConfig, ["--policy.type=act", "--dataset.eval_split=0.1"])


def test_an_absent_device_is_refused_when_it_was_typed():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="--policy.device"):
        parse(TrainPipelineConfig, [DATA, "--policy.type=act", "--policy.device=cuda"])


def test_a_preset_lies_below_the_flags():
    cfg = parse(TrainPipelineConfig, [DATA, "--preset=act_mini", "--batch_size=3"])
    assert cfg.policy.type == "act" and cfg.batch_size == 3 and cfg.policy.image_size is not None
    with pytest.raises(FileNotFoundError, match="act_mini"):
        parse(TrainPipelineConfig, [DATA, "--preset=nothing"])
    with pytest.raises(ValueError, match="smolvla"):
        parse(TrainPipelineConfig, [DATA, "--preset=act_mini", "--policy.type=smolvla"])


def test_a_checkpoint_brings_its_configuration_and_flags_override_it(tmp_path):
    from lerobot.common.policies import ACTConfig

    ACTConfig(chunk_size=11, n_action_steps=5, image_size=(32, 48)).save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert next(iter(stored)) == "type" and "image_size" not in stored
    assert json.loads((tmp_path / "extras.json").read_text()) == {"image_size": [32, 48]}
    cfg = parse(TrainPipelineConfig, [DATA, f"--policy.path={tmp_path}", "--policy.n_action_steps=2"])
    assert (cfg.policy.chunk_size, cfg.policy.n_action_steps, cfg.policy.image_size) == (11, 2, (32, 48))
    assert cfg.policy.pretrained_path == str(tmp_path)
    with pytest.raises(ValueError, match="not both"):
        parse(TrainPipelineConfig, [DATA, f"--policy.path={tmp_path}", "--policy.type=act"])


def test_unknown_fields_of_a_checkpoint_are_ignored_with_one_warning(tmp_path, caplog):
    from lerobot.common.policies import ACTConfig

    ACTConfig().save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**raw, "from_the_future": 1, "another": 2}))
    assert PreTrainedConfig.from_pretrained(tmp_path).type == "act"
    assert sum("another, from_the_future" in r.message for r in caplog.records) == 1


def test_a_train_config_is_read_back_without_unknown_fields(tmp_path, caplog):
    cfg = parse(TrainPipelineConfig, [DATA, "--policy.type=act", "--env.type=koch", "--steps=7"])
    cfg.save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "train_config.json").read_text())
    raw |= {"job": {"target": None}, "env_eval_freq": 5}
    raw["dataset"] |= {"streaming": False, "return_uint8": False, "depth_output_unit": "mm", "repo_type": "dataset"}
    raw.pop("eval_freq")
    (tmp_path / "train_config.json").write_text(json.dumps(raw))
    again = parse(TrainPipelineConfig, [f"--config_path={tmp_path}", "--batch_size=2"])
    assert (again.steps, again.batch_size, again.policy.type, again.env.type) == (7, 2, "act", "koch")
    assert again.eval_freq == 5 and any("job" in r.message for r in caplog.records)


@pytest.mark.parametrize("text", ["[laptop,phone]", "[laptop, phone]", '["laptop", "phone"]'])
def test_lists_of_words_need_no_quotes(text):
    cfg = parse(TrainPipelineConfig, [DATA, "--policy.type=act", f"--policy.cameras={text}"])
    assert cfg.policy.cameras == ["laptop", "phone"]


def test_help_lists_every_flag_with_its_comment():
    text = help_text(TrainPipelineConfig)
    assert "--dataset.root" in text and "folder of the dataset" in text
    listed = {word.split("=")[0][2:] for word in text.split() if word.startswith("--")}
    flags = {f for f in flags_of(TrainPipelineConfig) if not f.endswith(".path")}
    groups = {f.rpartition(".")[0] for f in flags}
    assert {f for f in flags - groups if f.startswith("policy.") and "type" not in f} <= listed


def test_arguments_that_are_no_flags_are_refused():
    with pytest.raises(ValueError, match="--name=value"):
        split_arguments(["steps=3"])


def test_flags_of_newer_releases_are_taken_at_their_defaults():
    flags = ["--policy.type=act", "--dataset.streaming=False", "--dataset.repo_type=dataset", "--use_rabc=false"]
    flags += ["--wandb.add_tags=true", "--job.target=local", "--policy.pretrained_revision=null", "--env_eval_freq=5"]
    assert parse(TrainPipelineConfig, [DATA, *flags]).eval_freq == 5
    with pytest.raises(ValueError, match="dataset.streaming=true.*StreamingLeRobotDataset"):
        parse(TrainPipelineConfig, [DATA, "--policy.type=act", "--dataset.streaming=true"])
    with pytest.raises(ValueError, match="--use_rabc=true is not done here"):
        parse(TrainPipelineConfig, [DATA, "--policy.type=act", "--use_rabc=true"])


@pytest.mark.parametrize("flag", ["--policy", "--policy=CHECKPOINT", "--dataset=data"])
def test_a_group_of_flags_takes_no_value(flag):
    with pytest.raises(ValueError, match=f"{flag}.*group of flags.*--group.name=value"):
        parse(TrainPipelineConfig, [DATA, flag])


@pytest.mark.parametrize("flag", ["--policy.cameras=laptop", "--policy.image_size=96", "--dataset.episodes=0,1"])
def test_a_list_stands_in_brackets(flag):
    with pytest.raises(ValueError, match=f"{flag}: expected a list in brackets"):
        parse(TrainPipelineConfig, [DATA, "--policy.type=act", flag])


@pytest.mark.parametrize("flag", ["--steps", "--policy.optimizer_lr=true"])
def test_true_is_no_number(flag):
    with pytest.raises(ValueError, match=f"{flag[2:].split('=')[0]}=true is no number"):
        parse(TrainPipelineConfig, [DATA, "--policy.type=act", flag])


def test_the_help_lists_environments_that_run_here():
    text = help_text(TrainPipelineConfig)
    assert "koch|aloha" in text and "libero" not in text


@pytest.mark.parametrize(
    "text", ['{"top": {"index": 1, "mock": true}}', "{top: {index: 1, mock: true}}", "{ top: {index: 1, mock: true} }"]
)
def test_names_and_values_need_no_quotes(text):
    assert read_value(text, {dict[str, int]}) == {"top": {"index": 1, "mock": True}}


@pytest.mark.parametrize("text", ["{top: {index: 1}", "[1, 2", "top", "3"])
def test_what_is_no_dict_where_only_a_dict_can_be_is_one_message(text):
    with pytest.raises(ValueError, match="expected"):
        read_value(text, {dict})


@pytest.mark.parametrize(
    "camera, message",
    [
        ("{type: webcam}", r"robot.cameras.top.type=webcam.*expected one of intelrealsense, opencv, sim"),
        ("{type: opencv, camera_index: 0, zoom: 2}", r"robot.cameras.top.zoom is not a field of OpenCVCameraConfig"),
        ("{type: opencv, camera_index: 0, fps: fast}", r"robot.cameras.top.fps='fast' cannot be read"),
    ],
)
def test_a_wrong_camera_is_named_with_what_was_expected(camera, message):
    with pytest.raises(ValueError, match=message):
        cameras = f"--robot.cameras={{top: {camera}}}"
        parse(ControlPipelineConfig, ["--robot.type=koch", "--control.type=teleoperate", cameras])
