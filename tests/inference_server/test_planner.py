"""Checkpoints on the server: the same chunk as here, and the doctor's checks at the handshake."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lerobot.common.inference_server.planner import CheckpointPlanner
from lerobot.common.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, PolicyFeature
from tests.inference_server.counting import CAMERA, describe

STATE = {"observation.state": PolicyFeature(FeatureType.STATE, (6,))}
PICTURE = {CAMERA: PolicyFeature(FeatureType.VISUAL, (3, 48, 64))}
ACT = {
    "chunk_size": 4, "n_action_steps": 3, "dim_model": 16, "n_heads": 2, "dim_feedforward": 16, "latent_dim": 4,
    "n_encoder_layers": 1, "n_vae_encoder_layers": 1, "pretrained_backbone_weights": None, "backbone_width": 8,
}  # fmt: skip
DIFFUSION = {
    "down_dims": (16, 32), "n_groups": 4, "kernel_size": 3, "horizon": 8, "n_action_steps": 4, "num_inference_steps": 2,
    "crop_shape": None, "pretrained_backbone_weights": None, "use_group_norm": True, "diffusion_step_embed_dim": 8,
    "spatial_softmax_num_keypoints": 4,
}  # fmt: skip


def save_checkpoint(folder, kind: str, most: float = 60.0, **fields):
    torch.manual_seed(0)
    config = make_policy_config(kind, device="cpu", **fields)
    config.input_features = {**STATE, **PICTURE}
    config.output_features = {"action": PolicyFeature(FeatureType.ACTION, (6,))}
    spread = {"mean": np.zeros(6), "std": np.full(6, 20.0), "min": np.full(6, -most), "max": np.full(6, most)}
    colour = np.zeros((3, 1, 1))
    stats = {"observation.state": spread, "action": spread}
    stats[CAMERA] = {"mean": colour, "std": colour + 1, "min": colour, "max": colour + 1}
    pre, post = make_pre_post_processors(config, dataset_stats=stats)
    for part in (get_policy_class(kind)(config), pre, post):
        part.save_pretrained(folder)
    return folder


def load(folder) -> CheckpointPlanner:
    config = PreTrainedConfig.from_pretrained(folder)
    config.pretrained_path = str(folder)
    return CheckpointPlanner(config)


def frames(count: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (count, 48, 64, 3), dtype=np.uint8)
    return {"observation.state": random.normal(size=(count, 6)).astype(np.float32), CAMERA: pictures}


def test_a_chunk_of_the_server_is_that_of_the_policy_itself(tmp_path):
    planner = load(save_checkpoint(tmp_path, "act", **ACT))
    assert planner.inputs == {"observation.state": (6,), CAMERA: (48, 64, 3)}
    assert (planner.history, planner.actions, planner.steps, planner.rtc) == (1, 6, 3, False)
    seen = frames(1)
    plan = planner.plan(seen, "pick", "koch", {})
    assert plan.actions.shape == (4, 6) and set(plan.milliseconds) == {"preprocess", "model", "postprocess"}
    config = PreTrainedConfig.from_pretrained(tmp_path)
    policy = get_policy_class("act").from_pretrained(tmp_path)
    pre, post = make_pre_post_processors(config, tmp_path)
    picture = torch.from_numpy(seen[CAMERA]).permute(0, 3, 1, 2) / 255
    batch = pre({"observation.state": torch.from_numpy(seen["observation.state"]), CAMERA: picture, "task": ["pick"]})
    expected = torch.stack([post(policy.select_action(batch))[0] for _ in range(3)])
    torch.testing.assert_close(torch.from_numpy(plan.actions[:3]), expected)


def test_a_chunk_continues_the_one_that_is_being_played(tmp_path):
    planner = load(save_checkpoint(tmp_path, "act", **ACT, rtc_training_max_delay=2))
    assert planner.rtc
    first = planner.plan(frames(1), "", "koch", {})
    assert first.planned.shape == (1, 4, 6)
    rest = {"inference_delay": 2, "prev_chunk_left_over": first.planned[:, 1:], "execution_horizon": None}
    second = planner.plan(frames(1), "", "koch", rest)
    np.testing.assert_allclose(second.actions[:2], first.actions[1:3], atol=1e-4)


def test_a_policy_that_looks_at_two_observations_gets_both(tmp_path):
    planner = load(save_checkpoint(tmp_path, "diffusion", **DIFFUSION))
    assert planner.history == 2
    plans = []
    for seen in (frames(2), {key: value[::-1] for key, value in frames(2).items()}):
        torch.manual_seed(0)
        plans.append(planner.plan(seen, "", "koch", {}).actions)
    assert plans[0].shape[1] == 6 and not np.allclose(plans[0], plans[1])


def test_chunks_start_from_the_noise_that_the_client_names(tmp_path):
    planner = load(save_checkpoint(tmp_path, "diffusion", **DIFFUSION, noise_scheduler_type="DDIM"))
    plans = [planner.plan(frames(2), "", "koch", {"noise": {"seed": seed, "first": 0}}).actions for seed in (1, 1, 2)]
    assert np.array_equal(plans[0], plans[1]) and not np.allclose(plans[0], plans[2])
    deterministic = load(save_checkpoint(tmp_path / "act", "act", **ACT))
    with_noise = deterministic.plan(frames(1), "", "koch", {"noise": {"seed": 1, "first": 0}})
    assert np.array_equal(with_noise.actions, deterministic.plan(frames(1), "", "koch", {}).actions)


def test_a_damaged_checkpoint_is_not_served(tmp_path):
    folder = save_checkpoint(tmp_path, "act", **ACT)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="truncated"):
        load(folder)


@pytest.mark.parametrize(
    "changes, code",
    [
        ({"cameras": {}}, "robot.policy.feature"),
        ({"cameras": {CAMERA: [24, 64, 3]}}, "robot.policy.picture_size"),
        ({"joints": ["a", "b"], "low": [-90.0] * 2, "high": [90.0] * 2}, "robot.policy.shape"),
        ({"low": [-20.0] * 6, "high": [20.0] * 6}, "robot.policy.units"),
    ],
)
def test_a_robot_that_does_not_fit_is_an_error_with_its_code(tmp_path, changes, code):
    planner = load(save_checkpoint(tmp_path, "act", **ACT))
    fitting = describe(cameras={CAMERA: [48, 64, 3]})
    assert not [f for f in planner.check(fitting, "pick") if f.severity == "error"]
    errors = [f.code for f in planner.check({**fitting, **changes}, "pick") if f.severity == "error"]
    assert code in errors
