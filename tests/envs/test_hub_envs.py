"""Environments whose code lies elsewhere, and the configurations of benchmarks."""

import pytest

from lerobot.common.envs import HubEnvConfig, IsaaclabArenaEnv, LiberoEnv, MetaworldEnv, factory, task_envs
from lerobot.common.envs.utils import env_to_policy_features

CODE = "def make_env(n_envs=1, use_async_envs=False):\n    return {made}\n"


@pytest.fixture
def folder(tmp_path):
    def write(made, name="env.py"):
        (tmp_path / name).write_text(CODE.format(made=made))
        return str(tmp_path)

    return write


def test_code_of_others_runs_only_when_it_is_trusted(folder):
    where = folder("{'suite': {0: ('env', n_envs)}}")
    with pytest.raises(RuntimeError, match="trust_remote_code=True"):
        task_envs.make_env(where)
    made = task_envs.make_env(where, n_envs=3, trust_remote_code=True)
    assert made == {"suite": {0: ("env", 3)}}
    bare = folder("'bare'", "other.py")
    assert list(task_envs.make_env(f"{bare}:other.py", trust_remote_code=True).values()) == [{0: "bare"}]
    assert task_envs.make_env(IsaaclabArenaEnv(hub_path=where), trust_remote_code=True)["suite"]


def test_a_hub_environment_that_cannot_be_had_or_makes_nothing(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="'env.py'"):
        task_envs.make_env(str(tmp_path), trust_remote_code=True)
    (tmp_path / "env.py").write_text("x = 1")
    with pytest.raises(AttributeError, match="no function make_env"):
        task_envs.make_env(str(tmp_path), trust_remote_code=True)


def test_benchmarks_have_the_features_of_lerobot():
    world = MetaworldEnv()
    assert world.gym_kwargs == {"obs_type": "pixels_agent_pos", "render_mode": "rgb_array"}
    shapes = {name: f.shape for name, f in env_to_policy_features(world).items()}
    assert shapes == {"action": (4,), "observation.state": (4,), "observation.image": (3, 480, 480)}
    assert set(MetaworldEnv(obs_type="pixels").features) == {"action", "top"}
    with pytest.raises(ValueError, match="obs_type"):
        MetaworldEnv(obs_type="state")
    arena = IsaaclabArenaEnv(enable_cameras=True, camera_keys="a, b")
    assert arena.features_map["b"] == "observation.images.b" and arena.features["action"].shape == (36,)
    assert list(IsaaclabArenaEnv(camera_keys="a").features) == ["action", "observation.state"]
    assert issubclass(IsaaclabArenaEnv, HubEnvConfig)
    for config in (world, arena):
        with pytest.raises(ValueError, match="does not run here"):
            factory.make_env(config)


def test_their_processors_stand_before_the_policy():
    def steps(config):
        before, after = task_envs.make_env_pre_post_processors(config, None)
        return [type(step).__name__ for step in before.steps], list(after.steps)

    assert steps(LiberoEnv()) == (["LiberoProcessorStep"], [])
    assert steps(IsaaclabArenaEnv()) == (["IsaaclabArenaProcessorStep"], [])
    assert steps(MetaworldEnv()) == ([], [])
