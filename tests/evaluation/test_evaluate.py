"""Which features fit, how many episodes run at a time, and what is printed."""

import pytest

from lerobot.common.evaluation.evaluate import check_features, format_result, parallel_episodes
from lerobot.common.evaluation.filming import film_again, list_films, missing_films
from lerobot.common.evaluation.rollout import eval_policy
from lerobot.common.processor import PolicyProcessorPipeline, RenameObservationsProcessorStep
from lerobot.configs.default import EvalConfig
from lerobot.configs.types import FeatureType, PolicyFeature
from tests.evaluation.stand_ins import make_policy, make_reach, same

FRONT, TOP = "observation.images.front", "observation.images.top"


@pytest.fixture
def config():
    return make_policy().config


def test_features_that_agree_pass(config):
    check_features(make_reach(), config)


def test_cameras_that_the_policy_does_not_use_are_no_mismatch(config):
    del config.input_features[TOP]
    check_features(make_reach(), config)


def test_a_mismatch_lists_both_sides(config):
    config.pretrained_path = "outputs/run"
    config.input_features["observation.images.phone"] = config.input_features.pop(TOP)
    config.input_features["observation.state"] = PolicyFeature(FeatureType.STATE, (6,))
    with pytest.raises(ValueError) as error:
        check_features(make_reach(), config)
    message = str(error.value)
    assert "outputs/run" in message and "--rename_map" in message
    assert "'observation.images.phone' is missing" in message
    assert "'observation.state' has another shape" in message
    checkpoint, environment = (line for line in message.splitlines() if line.startswith("  "))
    assert "front 3x24x32" in checkpoint and "phone 3x24x32" in checkpoint and "observation.state 6" in checkpoint
    assert "top 3x24x32" in environment and "observation.state 2" in environment and "action 2" in environment


def test_an_action_of_another_width_is_a_mismatch(config):
    config.output_features["action"] = PolicyFeature(FeatureType.ACTION, (6,))
    with pytest.raises(ValueError, match="'action' has another shape"):
        check_features(make_reach(), config)


def test_picture_sizes_count_unless_the_policy_resizes(config):
    config.input_features[TOP] = PolicyFeature(FeatureType.VISUAL, (3, 480, 640))
    with pytest.raises(ValueError, match=f"'{TOP}' has another shape"):
        check_features(make_reach(), config)
    config.image_size = (24, 32)
    check_features(make_reach(), config)


def test_renamed_cameras_count_under_their_new_name(config):
    config.input_features["observation.images.camera1"] = config.input_features.pop(TOP)
    rename = RenameObservationsProcessorStep(rename_map={TOP: "observation.images.camera1"})
    check_features(make_reach(), config, PolicyProcessorPipeline([rename]))


def test_as_many_cameras_may_lack_as_the_policy_fills_itself(config, caplog):
    for name in ("left", "right", "empty_camera_0", "empty_camera_1"):
        config.input_features[f"observation.images.{name}"] = config.input_features[TOP]
    config.empty_cameras = 2
    check_features(make_reach(), config)
    assert "left is absent" in caplog.text and "empty_camera" not in caplog.text
    config.empty_cameras = 1
    with pytest.raises(ValueError, match="(?s)right' is missing.*--policy.empty_cameras"):
        check_features(make_reach(), config)


def test_parallel_episodes_follow_batch_size_then_the_machine():
    assert parallel_episodes(EvalConfig(n_episodes=10, batch_size=4), on_cpu=True) == 4
    assert parallel_episodes(EvalConfig(n_episodes=3, batch_size=4), on_cpu=False) == 3
    assert parallel_episodes(EvalConfig(n_episodes=10), on_cpu=True) == 1
    assert parallel_episodes(EvalConfig(n_episodes=1, use_async_envs=True), on_cpu=True) == 1
    assert 1 <= parallel_episodes(EvalConfig(n_episodes=1000), on_cpu=False) <= 64


def test_the_report_names_the_interval_and_the_seeds_that_failed():
    result = eval_policy(make_reach(time_limit=6), make_policy(noise=0.0), same, same, 5, start_seed=20)
    text = format_result(result, "stand-in")
    failed = [row["seed"] for row in result["per_episode"] if not row["success"]]
    assert failed and f"seeds {', '.join(map(str, failed))}" in text
    low, high = result["aggregated"]["success_interval"]
    assert f"95 % interval {low:.1f}-{high:.1f} %" in text and "20-24" in text


def outcomes(n_envs, n_videos, tmp_path, **fields):
    """Evaluate a noisy policy under a tight time limit, then film what lacks."""
    parts = (make_reach(n_envs, time_limit=14), make_policy(**fields), same, same)
    folder = tmp_path / f"videos_{n_envs}"
    result = eval_policy(*parts, 8, max_episodes_rendered=n_videos, videos_dir=folder, start_seed=5)
    film_again(*parts, result["per_episode"], n_videos, folder)
    return list_films(result), folder


@pytest.mark.parametrize("n_envs", [1, 3])
def test_successes_and_failures_are_filmed_where_there_are_both(n_envs, tmp_path):
    result, folder = outcomes(n_envs, 4, tmp_path)
    rows = result["per_episode"]
    assert {row["success"] for row in rows} == {True, False}, "the time limit has to split the episodes"
    for outcome in (True, False):
        count = sum(row["success"] == outcome for row in rows)
        filmed = [row for row in rows if row["video"] and row["success"] == outcome]
        assert len(filmed) >= min(2, count)
        assert all(f"_{'success' if outcome else 'failure'}.mp4" in row["video"] for row in filmed)
    assert sorted(map(str, folder.iterdir())) == sorted(result["video_paths"])


def test_nothing_is_filmed_again_without_seeds_or_videos():
    rows = [{"episode_ix": i, "seed": None, "success": i > 1, "video": None} for i in range(4)]
    assert missing_films(rows, 4) == []
    rows = [row | {"seed": row["episode_ix"]} for row in rows]
    assert missing_films(rows, 0) == [] and [row["episode_ix"] for row in missing_films(rows, 3)] == [2, 0]
