"""Environment configurations, vector environments, and the way from observation to batch."""

import subprocess
import sys
import warnings
from dataclasses import dataclass
from types import ModuleType

import draccus
import numpy as np
import pytest
import torch

from lerobot.common.envs.configs import EnvConfig
from lerobot.common.envs.factory import make_env, make_env_config
from lerobot.common.envs.utils import (
    add_envs_task,
    check_env_attributes_and_types,
    env_to_policy_features,
    episode_successes,
    get_channel_first_image_shape,
    preprocess_observation,
)
from lerobot.configs.types import FeatureType, PolicyFeature


def test_koch_features_are_those_of_a_koch_dataset():
    features = env_to_policy_features(make_env_config("koch"))
    assert features == {
        "action": PolicyFeature(FeatureType.ACTION, (6,)),
        "observation.state": PolicyFeature(FeatureType.STATE, (6,)),
        "observation.images.laptop": PolicyFeature(FeatureType.VISUAL, (3, 480, 640)),
        "observation.images.phone": PolicyFeature(FeatureType.VISUAL, (3, 480, 640)),
    }


@pytest.mark.parametrize(
    ("env_type", "kwargs", "keys"),
    [
        ("aloha", {}, {"action", "observation.state", "observation.images.top"}),
        ("aloha", {"obs_type": "pixels"}, {"action", "observation.image.top"}),
        ("pusht", {}, {"action", "observation.state", "observation.image"}),
        (
            "pusht",
            {"obs_type": "environment_state_agent_pos"},
            {"action", "observation.state", "observation.environment_state"},
        ),
        ("xarm", {}, {"action", "observation.state", "observation.image"}),
        ("koch", {"obs_type": "state"}, {"action", "observation.state", "observation.environment_state"}),
        (
            "koch",
            {"task": "KochPickPlaceState-v0"},
            {"action", "observation.state", "observation.environment_state"},
        ),
    ],
)
def test_policy_keys_of_each_environment(env_type, kwargs, keys):
    assert set(env_to_policy_features(make_env_config(env_type, **kwargs))) == keys


@dataclass
class Command:
    env: EnvConfig


def test_configuration_survives_the_command_line():
    arguments = ["--env.type=koch", "--env.task=KochPickPlaceColor-v0", "--env.observation_width=128"]
    cfg = draccus.parse(Command, args=arguments).env
    assert cfg.type == "koch"
    assert cfg.features["pixels/phone"].shape == (480, 128, 3)
    assert cfg.gym_kwargs["observation_width"] == 128
    again = draccus.decode(EnvConfig, draccus.encode(cfg, EnvConfig))
    assert env_to_policy_features(again) == env_to_policy_features(cfg)


def test_unknown_environment_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="koch.*pusht"):
        make_env_config("kuka")


def test_importing_the_configurations_needs_neither_gymnasium_nor_mujoco():
    code = "import sys, lerobot.common.envs, lerobot.common.envs.factory, lerobot.common.envs.utils;"
    code += "print({'gymnasium', 'mujoco'} & set(sys.modules))"
    probe = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={"PYTHONPATH": ":".join(sys.path)}, timeout=300
    )
    assert probe.stdout.decode().strip() == "set()", probe.stderr.decode()


def test_a_missing_environment_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gym_xarm", None)
    with pytest.raises(ModuleNotFoundError, match=r"\[xarm\]"):
        make_env(make_env_config("xarm"))


def test_an_xarm_that_could_not_draw_is_refused_with_the_version_that_can(monkeypatch):
    gymnasium = pytest.importorskip("gymnasium")
    monkeypatch.setitem(sys.modules, "gym_xarm", ModuleType("gym_xarm"))
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(gymnasium, "__version__", "1.2.0")
    with pytest.raises(ValueError, match=r"gymnasium 1.2.0, expected one below 1.0.*\[xarm\]"):
        make_env(make_env_config("xarm"))
    monkeypatch.setenv("MUJOCO_GL", "disable")
    with pytest.raises(ValueError, match="No pictures can be drawn.*works here.$"):
        make_env(make_env_config("xarm"))


def test_pictures_become_channel_first_floats():
    picture = np.zeros((2, 4, 6, 3), np.uint8)
    picture[1, 2, 3, 0] = 255
    batch = preprocess_observation({"pixels": {"laptop": picture}, "agent_pos": np.ones((2, 6))})
    assert batch["observation.images.laptop"].shape == (2, 3, 4, 6)
    assert batch["observation.images.laptop"][1, 0, 2, 3] == 1.0
    assert batch["observation.state"].dtype == torch.float32
    assert preprocess_observation({"pixels": picture[0]})["observation.image"].shape == (1, 3, 4, 6)


@pytest.mark.parametrize("picture", [np.zeros((1, 3, 4, 6), np.uint8), np.zeros((1, 4, 6, 3), np.float32)])
def test_other_pictures_are_refused(picture):
    with pytest.raises(ValueError, match="channels last"):
        preprocess_observation({"pixels": picture})


@pytest.mark.parametrize(
    ("given", "expected"),
    [((480, 640, 3), (3, 480, 640)), ((3, 480, 640), (3, 480, 640)), ((64, 64, 1), (1, 64, 64))],
)
def test_channel_first_shape(given, expected):
    assert get_channel_first_image_shape(given) == expected


def test_channel_first_shape_needs_a_picture():
    with pytest.raises(ValueError, match="channels"):
        get_channel_first_image_shape((64, 3, 64))


def test_successes_are_read_from_every_gymnasium_layout():
    before_1_0 = {"final_info": np.array([None, {"is_success": True}], dtype=object)}
    since_1_1 = {
        "is_success": np.array([False, False]),
        "final_info": {"is_success": np.array([False, True]), "_is_success": np.array([False, True])},
    }
    plain = {"is_success": np.array([False, True])}
    for info in (before_1_0, since_1_1, plain):
        np.testing.assert_array_equal(episode_successes(info, 2), [False, True])
    np.testing.assert_array_equal(episode_successes({}, 2), [False, False])


# --- the twin ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gym():
    pytest.importorskip("mujoco")
    gym = pytest.importorskip("gymnasium")
    import gym_koch  # noqa: F401

    return gym


SMALL = {"observation_width": 64, "observation_height": 48}
REST = np.array((0, 134, 180, -19, 0, 35), np.float32)


@pytest.mark.parametrize("task", ["KochPickPlace-v0", "KochPickPlaceColor-v0", "KochPickPlaceState-v0"])
def test_gymnasium_checker_accepts_the_environment(gym, task):
    from gymnasium.utils.env_checker import check_env

    env = gym.make(f"gym_koch/{task}", **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it recommends normalized actions; ours are joint angles
        check_env(env.unwrapped)
    env.close()


@pytest.mark.parametrize("units", ["legacy", "deg_percent", "normalized"])
def test_holding_the_observed_position_stays_there(gym, units):
    env = gym.make("gym_koch/KochPickPlaceState-v0", units=units)
    observation, _ = env.reset(seed=1)
    after, reward, terminated, truncated, info = env.step(observation["agent_pos"])
    np.testing.assert_allclose(after["agent_pos"], observation["agent_pos"], atol=1.5)
    assert (reward, terminated, truncated, info["is_success"], info["clipped"]) == (
        0.0,
        False,
        False,
        False,
        0,
    )


@pytest.mark.parametrize("action", [np.full(6, np.nan), np.array([0, 0, np.inf, 0, 0, 0]), np.zeros(5)])
def test_actions_that_are_no_six_finite_numbers_are_refused(gym, action):
    env = gym.make("gym_koch/KochPickPlaceState-v0", disable_env_checker=True)
    env.reset(seed=1)
    with pytest.raises(ValueError, match="finite"):
        env.unwrapped.step(action)


def test_actions_out_of_range_are_counted(gym):
    env = gym.make("gym_koch/KochPickPlaceState-v0").unwrapped
    env.reset(seed=1)
    assert env.step(REST)[4]["clipped"] == 0
    assert env.step(np.full(6, 500.0))[4]["clipped"] == 1


def test_options_of_reset_place_cube_and_arm(gym):
    env = gym.make("gym_koch/KochPickPlaceState-v0")
    observation, info = env.reset(seed=1, options={"cube_pose": (0.15, 0.02, 0.5), "qpos": (10, 90, 90, 45, 0, 20)})
    np.testing.assert_allclose(info["cube_pose"][:2], (0.15, 0.02))
    np.testing.assert_allclose(observation["agent_pos"], (10, 90, 90, 45, 0, 20), atol=1e-4)


def test_a_new_episode_never_shows_the_last_one(gym):
    env = gym.make("gym_koch/KochPickPlace-v0", **SMALL).unwrapped
    env.reset(seed=1)
    env.pixels_needed = False
    pixels = env.reset(seed=2)[0]["pixels"]["laptop"]
    env.pixels_needed = True
    np.testing.assert_array_equal(pixels, env.reset(seed=2)[0]["pixels"]["laptop"])
    assert (pixels != env.reset(seed=1)[0]["pixels"]["laptop"]).any()
    env.close()


def test_success_ends_the_episode_with_reward_one(gym):
    from lerobot.common.envs.koch_sim.expert import KochExpert

    env = gym.make("gym_koch/KochPickPlaceState-v0")
    env.reset(seed=10_000)
    expert = KochExpert()
    expert.reset(env.unwrapped.world)
    terminated = truncated = False
    rewards = []
    while not (terminated or truncated):
        _, reward, terminated, truncated, info = env.step(expert.act(env.unwrapped.world).astype(np.float32))
        rewards.append(reward)
    assert terminated and info["is_success"] and info["stage"] == "success"
    assert sum(rewards) == 1.0


def test_an_idle_episode_is_cut_after_450_steps(gym):
    env = gym.make("gym_koch/KochPickPlaceState-v0")
    env.reset(seed=10_000)
    for step in range(450):
        _, _, terminated, truncated, _ = env.step(REST)
        assert truncated == (step == 449) and not terminated


@pytest.mark.parametrize("use_async_envs", [False, True])
def test_vector_environments_give_batches_with_their_sentences(gym, use_async_envs):
    cfg = make_env_config("koch", **SMALL)
    env = make_env(cfg, n_envs=2, use_async_envs=use_async_envs)
    check_env_attributes_and_types(env)
    observation, info = env.reset(seed=[10_000, 10_001])
    batch = add_envs_task(env, preprocess_observation(observation))
    observation, _, _, _, info = env.step(np.stack([REST, REST]))
    env.close()
    assert list(info["seed"]) == [10_000, 10_001]
    assert batch["observation.images.phone"].shape == (2, 3, 48, 64)
    assert batch["task"] == [
        "Pick up the blue cube and place it in the tray.",
        "Pick up the red cube and place it in the tray.",
    ]
    np.testing.assert_array_equal(episode_successes(info, 2), [False, False])


def test_a_finished_copy_reports_its_success_and_starts_anew(gym):
    from lerobot.common.envs.koch_sim.expert import KochExpert

    env = make_env(make_env_config("koch", obs_type="state"), n_envs=1)
    env.reset(seed=[10_000])
    world = env.envs[0].unwrapped.world
    expert = KochExpert()
    expert.reset(world)
    for _ in range(450):
        _, _, terminated, _, info = env.step(expert.act(world)[None].astype(np.float32))
        if terminated[0]:
            break
    assert episode_successes(info, 1)[0]
    env.close()


def test_no_environment_is_an_error():
    with pytest.raises(ValueError, match="n_envs=0"):
        make_env(make_env_config("koch"), n_envs=0)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"task": "Nope-v0"}, "--env.task=Nope-v0: gym_koch has .*KochPickPlace-v0"),
        ({"task": "KochPickPlace-v7"}, "--env.task=KochPickPlace-v7"),
        ({"episode_length": 0}, "--env.episode_length=0: expected at least 1"),
        ({"observation_width": -5}, "--env.observation_width=-5"),
    ],
)
def test_an_environment_that_cannot_be_is_named_by_its_flag(wish, message):
    pytest.importorskip("mujoco")
    with pytest.raises(ValueError, match=message):
        make_env(make_env_config("koch", **wish))


def test_by_the_new_name_environments_stand_below_their_group_and_task():
    pytest.importorskip("mujoco")
    from lerobot.envs.factory import make_env as make_by_task
    from lerobot.envs.factory import make_env_pre_post_processors

    cfg = make_env_config("koch", task="KochPickPlaceState-v0", episode_length=2)
    envs = make_by_task(cfg, n_envs=2)
    try:
        assert list(envs) == ["koch"] and list(envs["koch"]) == [0] and envs["koch"][0].num_envs == 2
    finally:
        envs["koch"][0].close()
    before, after = make_env_pre_post_processors(cfg, None)
    assert before({"observation.state": torch.ones(1)})["observation.state"] == 1 and len(after) == 0
    with pytest.raises(RuntimeError, match="trust_remote_code"):
        make_by_task("someone/env")


def test_environments_of_other_machines_are_read_but_not_run():
    arguments = ["--env.type=gym_manipulator", "--env.processor.gripper.gripper_penalty=-0.5"]
    cfg = draccus.parse(Command, args=arguments).env
    assert cfg.processor.gripper.gripper_penalty == -0.5 and cfg.processor.control_mode == "gamepad"
    again = draccus.decode(EnvConfig, draccus.encode(make_env_config("libero", observation_height=128), EnvConfig))
    assert again.features["pixels/agentview_image"].shape == (128, 360, 3)
    assert env_to_policy_features(again)["observation.images.image2"].shape == (3, 128, 360)
    with pytest.raises(ValueError, match="does not run here"):
        make_env(again)
    with pytest.raises(ValueError, match="obs_type"):
        make_env_config("libero", obs_type="state")
