"""Films of episodes."""

import av
import numpy as np
import pytest

from lerobot.common.evaluation.rollout import eval_policy
from lerobot.common.evaluation.video import BAR_HEIGHT, GAP, PICTURE_HEIGHT, compose_frame
from tests.evaluation.stand_ins import make_policy, make_reach, same


def read(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        return float(stream.average_rate), [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]


def is_green(frame):
    red, green, blue = frame[4:8, -8:].reshape(-1, 3).mean(axis=0)
    return green > red + 40 and green > blue + 40


def test_first_episodes_are_filmed_and_told_apart_by_name(tmp_path):
    env = make_reach(2, time_limit=6)
    result = eval_policy(env, make_policy(noise=0.0), same, same, 5, 3, tmp_path, start_seed=20)
    rows = result["per_episode"]
    expected = [f"eval_episode_{i}_seed{20 + i}_{'success' if rows[i]['success'] else 'failure'}.mp4" for i in range(3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == expected
    assert result["video_paths"] == [str(tmp_path / name) for name in expected]
    assert [row["video"] is not None for row in rows] == [True] * 3 + [False] * 2


@pytest.mark.parametrize("with_pixels", [True, False])
def test_a_film_shows_the_cameras_and_ends_green_on_success(tmp_path, with_pixels):
    env = make_reach(with_pixels=with_pixels)
    result = eval_policy(env, make_policy(noise=0.0), same, same, 1, 1, tmp_path, start_seed=20)
    rate, frames = read(result["video_paths"][0])
    steps = result["per_episode"][0]["n_steps"]
    assert rate == 15  # every second step of a 30 Hz environment, and the last
    assert len(frames) == steps // 2 + 1 + steps % 2
    width = 2 * 320 + GAP if with_pixels else 320
    assert frames[0].shape == (PICTURE_HEIGHT + BAR_HEIGHT, width, 3)
    assert is_green(frames[-1]) and not is_green(frames[0])


def test_a_film_shows_the_end_of_its_episode_not_the_next_start(tmp_path):
    result = eval_policy(make_reach(), make_policy(noise=0.0), same, same, 1, 1, tmp_path, start_seed=20)
    _, frames = read(result["video_paths"][0])
    start, before, end = (frame[100:, 100].mean() for frame in (frames[0], frames[-2], frames[-1]))
    assert abs(end - start) > 1.5 * abs(end - before)


def test_a_failing_rollout_leaves_no_file(tmp_path):
    policy = make_policy()
    policy.gain.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="finite"):
        eval_policy(make_reach(), policy, same, same, 1, 1, tmp_path, start_seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_frame_has_even_sides_and_the_pictures_under_the_bar():
    pictures = [np.full((480, 640, 3), 10, np.uint8), np.full((97, 121, 3), 200, np.uint8)]
    frame = compose_frame(pictures, "seed 1")
    assert frame.shape[0] % 2 == frame.shape[1] % 2 == 0
    assert (frame[BAR_HEIGHT:, 0] == 10).all() and (frame[BAR_HEIGHT:, -1] == 200).all()
    assert frame[:BAR_HEIGHT].max() > 200  # the caption
