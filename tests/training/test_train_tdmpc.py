"""Training TD-MPC, which needs rewards, from the entrypoint."""

import pytest
import torch
from safetensors.torch import load_file

from lerobot.common.datasets.factory import make_dataset
from lerobot.common.policies import TDMPCConfig
from lerobot.configs import parser
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.scripts.train import train


@pytest.fixture
def make_tdmpc_config(make_config, dataset_root):
    def make(reward_at_end=3, **changes):
        policy = TDMPCConfig(
            device="cpu", horizon=3, image_size=(40, 40), image_encoder_hidden_dim=4, latent_dim=8, mlp_dim=8
        )
        dataset = DatasetConfig(root=str(dataset_root), reward_at_end=reward_at_end)
        return make_config(policy=policy, dataset=dataset, **changes)

    return make


def test_reward_is_one_in_the_last_frames_of_each_episode(make_tdmpc_config):
    dataset = make_dataset(make_tdmpc_config())
    assert dataset[8]["next.reward"].tolist() == [0, 1, 1] and dataset[12]["next.reward"].tolist() == [0, 0, 0]
    last = dataset[11]
    assert last["next.reward"].tolist() == [1, 1, 1] and last["next.reward_is_pad"].tolist() == [False, True, True]
    assert last["observation.images.laptop"].shape == (4, 3, 48, 64)


def test_dataset_without_reward_is_refused_with_the_flag(make_tdmpc_config):
    with pytest.raises(ValueError, match="next.reward.*--dataset.reward_at_end=N"):
        train(make_tdmpc_config(reward_at_end=0))


def test_two_steps_and_a_resume_are_the_same_run_as_four(make_tdmpc_config, tmp_path):
    train(make_tdmpc_config(output_dir=tmp_path / "whole"))
    train(make_tdmpc_config(steps=2, output_dir=tmp_path / "halves"))
    arguments = ["--resume=true", f"--output_dir={tmp_path / 'halves'}", "--steps=4"]
    train(parser.parse(TrainPipelineConfig, arguments))
    weights = [
        load_file(tmp_path / run / "checkpoints" / "000004" / "pretrained_model" / "model.safetensors")
        for run in ("whole", "halves")
    ]
    assert all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())
    assert any((v != weights[0][k.replace("_target", "")]).any() for k, v in weights[0].items() if "_target" in k)
