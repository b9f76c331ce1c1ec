"""Recording the simulated arm as a dataset."""

import json

import numpy as np
import pytest

pytest.importorskip("mujoco")

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402
from lerobot.common.envs.koch_sim.arm import MOTOR_NAMES  # noqa: E402
from lerobot.common.envs.koch_sim.scene import draw_layout  # noqa: E402
from lerobot.common.envs.koch_sim.world import KochWorld  # noqa: E402
from lerobot.scripts.record_twin import main, parse_args  # noqa: E402

SMALL = ["--width", "64", "--height", "48"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    root = tmp_path_factory.mktemp("twin") / "set"
    main(["--root", str(root), "--episodes", "2", *SMALL])
    return root


def test_recorded_features_are_those_of_a_koch_dataset(recorded):
    dataset = LeRobotDataset("koch_twin", root=recorded)
    assert dataset.meta.info["codebase_version"] == "v2.1"
    assert dataset.meta.robot_type == "koch"
    assert dataset.fps == 30
    assert tuple(dataset.features["action"]["names"]) == MOTOR_NAMES
    item = dataset[0]
    assert item["observation.state"].shape == item["action"].shape == (6,)
    assert item["observation.images.laptop"].shape == item["observation.images.phone"].shape == (3, 48, 64)


def test_each_episode_is_the_layout_of_its_seed(recorded):
    dataset = LeRobotDataset("koch_twin", root=recorded)
    for episode in range(2):
        first = int(dataset.episode_data_index["from"][episode])
        assert dataset[first]["task"] == draw_layout("A", episode).task


def test_recorded_actions_replayed_from_the_same_seed_succeed(recorded):
    dataset = LeRobotDataset("koch_twin", root=recorded, episodes=[0])
    world = KochWorld("A")
    world.reset(0)
    for action in np.stack([item.numpy() for item in dataset.hf_dataset["action"]]):
        world.step(action)
    for _ in range(15):
        world.step(action)
    assert world.success


def test_pictures_belong_to_the_state_beside_them(recorded):
    dataset = LeRobotDataset("koch_twin", root=recorded, episodes=[0])
    item = dataset[60]
    world = KochWorld("A", 64, 48)
    world.reset(0, qpos=item["observation.state"].double().numpy())
    drawn = world.render("phone") / 255
    world.close()
    near = np.abs(item["observation.images.phone"].permute(1, 2, 0).numpy() - drawn).mean()
    far = np.abs(dataset[0]["observation.images.phone"].permute(1, 2, 0).numpy() - drawn).mean()
    assert near < 0.05 < far


def test_resuming_gives_what_one_run_gives(recorded, tmp_path):
    root = tmp_path / "set"
    main(["--root", str(root), "--episodes", "1", *SMALL])
    main(["--root", str(root), "--episodes", "2", "--resume", *SMALL])
    for name in ("meta/info.json", "meta/episodes.jsonl", "meta/tasks.jsonl"):
        assert (root / name).read_text() == (recorded / name).read_text()
    for path in sorted(recorded.glob("data/*/episode_*")):
        assert (root / path.relative_to(recorded)).read_bytes() == path.read_bytes()
    one_run, two_runs = (LeRobotDataset("koch_twin", root=each, return_uint8=True) for each in (recorded, root))
    for key in one_run.meta.camera_keys:  # x264 does not always encode the same pictures to the same bytes
        for row in range(len(one_run)):
            assert (one_run[row][key].float() - two_runs[row][key].float()).abs().mean() < 1, (key, row)


def test_an_existing_folder_is_left_alone(recorded):
    before = (recorded / "meta/info.json").read_text()
    with pytest.raises(SystemExit, match="--resume"):
        main(["--root", str(recorded), *SMALL])
    with pytest.raises(SystemExit, match="recorded with"):
        main(["--root", str(recorded), "--resume", "--scene", "B", *SMALL])
    assert (recorded / "meta/info.json").read_text() == before


def test_settings_of_the_simulation_are_stored(recorded):
    sim = json.loads((recorded / "meta/info.json").read_text())["sim"]
    assert sim == {"scene": "A", "seed0": 0, "noise": 0.03, "units": "legacy", "size": [64, 48]}


@pytest.mark.parametrize("arguments", [["--seed0", "9960"], ["--seed0", "10099"], ["--episodes", "10001"]])
def test_evaluation_seeds_are_never_recorded(arguments, capsys):
    with pytest.raises(SystemExit):
        parse_args(["--root", "x", *arguments])
    assert "kept for evaluation" in capsys.readouterr().err


def test_seeds_around_the_evaluation_seeds_are_free():
    assert parse_args(["--root", "x", "--seed0", "10100"]).seed0 == 10100
    assert parse_args(["--root", "x", "--seed0", "9950", "--episodes", "50"]).episodes == 50
