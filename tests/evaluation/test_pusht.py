"""`eval.py` in PushT with the policies that it was made for."""

import pytest
import torch

pytest.importorskip("gym_pusht")

from lerobot.common.envs.configs import PushtEnv
from lerobot.common.envs.factory import make_env
from lerobot.common.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
from lerobot.configs import parser
from lerobot.configs.eval import EvalPipelineConfig
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.scripts.eval import eval_main

VISION = {"crop_shape": (84, 84), "backbone_width": 16, "backbone_layers": 2, "spatial_softmax_num_keypoints": 4}
UNET = {"horizon": 8, "n_action_steps": 4, "down_dims": (8, 16), "diffusion_step_embed_dim": 8}
GPT = {"gpt_input_dim": 16, "gpt_output_dim": 16, "gpt_hidden_dim": 16, "gpt_n_layer": 1, "gpt_n_head": 2}
POLICIES = {
    "diffusion": {**UNET, "noise_scheduler_type": "DDIM", "num_inference_steps": 2},
    "vqbet": {**GPT, "vqvae_embedding_dim": 8, "vqvae_enc_hidden_dim": 8},
}


def checkpoint(folder, kind: str, picture: bool = True):
    """A tiny policy with random weights, and statistics that map its actions to the whole board of 512x512."""
    seen = PolicyFeature(FeatureType.VISUAL, (3, 96, 96)) if picture else PolicyFeature(FeatureType.ENV, (16,))
    key = "observation.image" if picture else "observation.environment_state"
    inputs = {key: seen, "observation.state": PolicyFeature(FeatureType.STATE, (2,))}
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (2,))}
    config = make_policy_config(
        kind, device="cpu", input_features=inputs, output_features=outputs, **VISION, **POLICIES[kind]
    )
    torch.manual_seed(0)
    policy = get_policy_class(kind)(config)
    if kind == "vqbet":
        policy.vqbet.action_head.vqvae_model.discretized.fill_(True)
    board = {"min": torch.zeros(2), "max": torch.full((2,), 512.0)}
    pixels = {"mean": torch.full((3, 1, 1), 0.5), "std": torch.full((3, 1, 1), 0.5)}
    stats = {"observation.state": board, "action": board, "observation.image": pixels}
    for part in (policy, *make_pre_post_processors(config, dataset_stats=stats)):
        part.save_pretrained(folder)
    return folder


def evaluate(path, output_dir, *more):
    flags = ["--env.type=pusht", "--env.episode_length=10", "--eval.n_episodes=2", "--n_videos=1"]
    return eval_main(
        parser.parse(EvalPipelineConfig, [f"--policy.path={path}", f"--output_dir={output_dir}", *flags, *more])
    )


@pytest.mark.parametrize("kind", POLICIES)
def test_episodes_are_run_and_filmed(tmp_path, kind):
    result = evaluate(checkpoint(tmp_path / "policy", kind), tmp_path / "eval")
    assert [row["n_steps"] for row in result["per_episode"]] == [10, 10]
    assert (tmp_path / "eval" / "eval_info.json").exists() and len(result["video_paths"]) == 1


def test_environment_state_in_place_of_the_picture(tmp_path):
    path = checkpoint(tmp_path / "policy", "diffusion", picture=False)
    result = evaluate(path, tmp_path / "eval", "--env.obs_type=environment_state_agent_pos")
    assert result["aggregated"]["n_episodes"] == 2


@pytest.mark.parametrize("asked, drawn", [({}, 96), ({"observation_width": 128, "observation_height": 128}, 128)])
def test_size_of_the_picture(asked, drawn):
    env = make_env(PushtEnv(**asked))
    assert env.single_observation_space["pixels"].shape == (drawn, drawn, 3)
    env.close()
