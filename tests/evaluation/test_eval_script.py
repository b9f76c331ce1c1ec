"""`eval.py` with a small ACT on the simulated arm, observed without pictures."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

pytest.importorskip("mujoco")

from lerobot.common.envs.configs import KochEnv
from lerobot.common.envs.utils import env_to_policy_features
from lerobot.common.policies.factory import (
    get_policy_class,
    make_policy_config,
    make_pre_post_processors,
    set_features,
)
from lerobot.configs import parser
from lerobot.configs.eval import EvalPipelineConfig
from lerobot.scripts import eval as script
from lerobot.scripts.eval import eval_main

SIZES = {"dim_model": 16, "n_heads": 2, "dim_feedforward": 16, "n_encoder_layers": 1, "chunk_size": 5}
FLAGS = ["--env.type=koch", "--env.task=KochPickPlaceState-v0", "--env.episode_length=12", "--n_videos=0"]


def stats_of(features):
    return {k: {"mean": torch.zeros(f.shape), "std": torch.full(f.shape, 30.0)} for k, f in features.items()}


def state_policy():
    """A small random ACT for the simulated arm without pictures, and its processors."""
    options = {"n_action_steps": 5, "use_vae": False, "pretrained_backbone_weights": None, "device": "cpu"}
    config = make_policy_config("act", **SIZES, **options)
    set_features(config, env_to_policy_features(KochEnv(task="KochPickPlaceState-v0")))
    torch.manual_seed(0)
    policy = get_policy_class("act")(config)
    stats = stats_of({**config.input_features, **config.output_features})
    return (policy, *make_pre_post_processors(config, dataset_stats=stats))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "pretrained_model"
    for part in state_policy():
        part.save_pretrained(folder)
    return folder


def evaluate(checkpoint, output_dir, *more):
    flags = [f"--policy.path={checkpoint}", f"--output_dir={output_dir}", *FLAGS, *more]
    return eval_main(parser.parse(EvalPipelineConfig, flags))


def test_eval_writes_what_it_prints_and_the_same_with_processes(checkpoint, tmp_path, capsys):
    result = evaluate(checkpoint, tmp_path / "one", "--eval.n_episodes=3")
    printed = capsys.readouterr().out
    assert "0.0 %   (0 of 3" in printed and "10000-10002" in printed
    assert json.loads((tmp_path / "one/eval_info.json").read_text()) == result
    assert [row["n_steps"] for row in result["per_episode"]] == [12] * 3

    flags = ["--eval.n_episodes=3", "--eval.use_async_envs=true", "--eval.batch_size=2"]
    again = evaluate(checkpoint, tmp_path / "two", *flags)
    assert again["per_episode"] == result["per_episode"]


def test_a_checkpoint_for_another_environment_is_refused_before_the_first_step(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="'observation.environment_state' is missing"):
        evaluate(checkpoint, tmp_path, "--env.task=KochPickPlace-v0")
    assert not (tmp_path / "eval_info.json").exists()


def test_the_default_seed_of_the_arm_is_the_first_held_out_one():
    config = parser.parse(EvalPipelineConfig, ["--env.type=koch"])
    assert config.first_seed == 10_000
    assert parser.parse(EvalPipelineConfig, ["--env.type=koch", "--seed=1000"]).first_seed == 1000
    assert parser.parse(EvalPipelineConfig, ["--env.type=koch", "--seed=null"]).first_seed is None
    assert parser.parse(EvalPipelineConfig, ["--env.type=pusht"]).first_seed == 1000
    assert config.output_dir.parts[:2] == ("outputs", "eval") and config.output_dir.name.endswith("_koch")


@pytest.mark.parametrize("flag", ["--seed=-1", "--n_videos=-1", "--eval.batch_size=-2", "--eval.n_episodes=0"])
def test_numbers_that_mean_nothing_are_refused_by_name(flag):
    with pytest.raises(ValueError, match=f"{flag}: expected"):
        parser.parse(EvalPipelineConfig, ["--env.type=koch", flag])


def test_joint_values_in_other_units_than_trained_on_are_refused(checkpoint, tmp_path):
    trained = shutil.copytree(checkpoint, tmp_path / "trained")
    record = {"dataset": {"features": {"action": {"names": [f"main_{i}" for i in range(6)]}}}}
    (trained / "training_record.json").write_text(json.dumps(record))
    assert evaluate(trained, tmp_path / "same", "--eval.n_episodes=1")["aggregated"]["n_episodes"] == 1
    with pytest.raises(ValueError, match="learnt from joint values in 'legacy'. Use --env.units=legacy"):
        evaluate(trained, tmp_path / "other", "--eval.n_episodes=1", "--env.units=normalized")


def test_evaluating_no_checkpoint_is_refused():
    with pytest.raises(ValueError, match="--policy.path=CHECKPOINT"):
        eval_main(parser.parse(EvalPipelineConfig, ["--env.type=koch"]))


def test_a_missing_checkpoint_is_one_message_and_exit_code_1():
    flags = ["--env.type=koch", "--policy.path=/nowhere/run"]
    command = [sys.executable, script.__file__, *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "/nowhere/run" in done.stderr and "Traceback" not in done.stderr
