"""Evaluations during training: on the page of the run and in the trackers."""

import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lerobot.common.envs.configs import KochEnv
from lerobot.common.evaluation.rollout import evaluation_result
from lerobot.common.evaluation.video import animated_gif, write_video
from lerobot.common.training import report
from lerobot.common.training.metrics import read_lines
from lerobot.common.training.report import evaluate_in_env
from lerobot.common.training.summary_page import _evaluations
from lerobot.common.utils.io_utils import read_json, write_json
from lerobot.configs.default import EvalConfig
from lerobot.scripts import train as script


def film(path):
    write_video(path, [np.full((32, 48, 3), 20 * i, np.uint8) for i in range(9)], fps=15)
    return str(path)


def evaluated(output, step, successes):
    folder = output / "eval" / f"step_{step:06d}"
    rows = [
        {
            "episode_ix": i,
            "seed": 100 + i,
            "success": success,
            "sum_reward": float(success),
            "max_reward": float(success),
            "n_steps": 9,
            "task": "wave",
            "video": film(folder / "videos" / f"{i}.mp4"),
        }
        for i, success in enumerate(successes)
    ]
    write_json(evaluation_result(rows, 1.0), folder / "eval_info.json")


def test_the_page_lists_every_evaluation_and_shows_the_newest_films(tmp_path):
    assert _evaluations(tmp_path) == ""
    evaluated(tmp_path, 500, [False, False])
    evaluated(tmp_path, 1000, [True, False, True])
    page = _evaluations(tmp_path)
    assert page.index("step 500") < page.index("step 1000")
    assert "0 % success" in page and "67 % success" in page and "3 episodes" in page
    assert page.count("data:video/mp4;base64,") == 2, "one success, one failure"
    assert re.findall(r'href="([^"]+)"', page) == ["eval/step_001000/videos/2.mp4"]


def test_a_film_that_is_too_large_for_the_page_is_linked(tmp_path, monkeypatch):
    evaluated(tmp_path, 500, [True, False])
    monkeypatch.setattr("lerobot.common.training.summary_page.MOST_FILM_BYTES", 10)
    page = _evaluations(tmp_path)
    assert "data:video" not in page and page.count("href=") == 2


def test_a_film_becomes_a_small_animated_picture(tmp_path):
    from PIL import Image

    data, height, width = animated_gif(film(tmp_path / "a.mp4"), fps=5, width=24)
    (tmp_path / "a.gif").write_bytes(data)
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.size == (width, height) == (24, 16) and picture.n_frames == 3


@pytest.mark.parametrize(("eval_freq", "expected"), [(2, [2, 4]), (3, [3, 4])])
def test_the_last_step_is_evaluated_once(eval_freq, expected, make_config, monkeypatch):
    numbers = evaluation_result(
        [{"episode_ix": 0, "success": True, "sum_reward": 1.0, "max_reward": 1.0, "n_steps": 9, "video": None}], 1.0
    )["aggregated"]
    steps = []

    def count(cfg, run, step, metrics):
        steps.append(step)
        return numbers

    monkeypatch.setattr(script, "evaluate_in_env", count)
    monkeypatch.setattr(report, "_evaluate_in_env", count)
    monkeypatch.setattr(report, "_env_means_something", lambda *_: True)
    cfg = make_config(env=KochEnv(), eval_freq=eval_freq)
    script.train(cfg)
    assert steps == expected
    rows = read_lines(cfg.output_dir / "metrics.jsonl")
    assert [row["step"] for row in rows if "eval/pc_success" in row] == expected
    assert read_json(cfg.output_dir / "summary.json")["eval"]["pc_success"] == 100


def test_tensorboard_shows_the_film(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from lerobot.common.training.sinks import TensorBoardSink

    sink = TensorBoardSink(SimpleNamespace(resume=False, output_dir=tmp_path))
    sink.log_video(film(tmp_path / "a.mp4"), 7, "eval")
    sink.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (shown,) = events.Images("eval/video")
    assert shown.step == 7 and shown.encoded_image_string.startswith(b"GIF")


def test_an_evaluation_writes_its_numbers_and_hands_on_its_films(tmp_path):
    pytest.importorskip("mujoco")
    from tests.evaluation.test_eval_script import state_policy

    policy, preprocessor, postprocessor = state_policy()
    run = SimpleNamespace(
        engine=SimpleNamespace(is_main=True),
        deployed=nullcontext,
        policy=policy,
        preprocessor=preprocessor,
        postprocessor=postprocessor,
    )
    env = KochEnv(task="KochPickPlaceState-v0", episode_length=12)
    cfg = SimpleNamespace(env=env, eval=EvalConfig(n_episodes=2), output_dir=tmp_path, seed=0)
    shown = []
    numbers = evaluate_in_env(cfg, run, 3, SimpleNamespace(log_videos=lambda step, paths: shown.append((step, paths))))
    assert numbers["n_episodes"] == 2
    ((step, paths),) = shown
    assert step == 3 and len(paths) == 2 and all(Path(path).is_file() for path in paths)
    assert "step 3" in _evaluations(tmp_path)
