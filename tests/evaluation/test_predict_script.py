"""`predict.py` with small checkpoints, new and legacy, over a recorded episode."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.utils import dataset_to_policy_features
from lerobot.common.policies.factory import (
    get_policy_class,
    make_policy_config,
    make_pre_post_processors,
    set_features,
)
from lerobot.configs import parser
from lerobot.configs.predict import PredictPipelineConfig
from lerobot.scripts import predict as script

JOINTS, LENGTHS, FPS = ["pan", "lift", "el/bow"], (23, 11), 10
LEGACY = Path(__file__).parents[1] / "artifacts" / "smolvla033_koch"
SIZES = {"dim_model": 16, "n_heads": 2, "dim_feedforward": 16, "n_encoder_layers": 1, "chunk_size": 6}


def record(root, joints, cameras=(), size=(48, 64), lengths=LENGTHS):
    vector = {"dtype": "float32", "shape": (len(joints),), "names": list(joints)}
    picture = {"dtype": "image", "shape": (*size, 3), "names": ["height", "width", "channels"]}
    features = {"observation.state": vector, "action": vector, **{f"observation.images.{c}": picture for c in cameras}}
    dataset = LeRobotDataset.create(None, FPS, root, features=features, use_videos=False)
    rng = np.random.default_rng(0)
    for length in lengths:
        for _ in range(length):
            frame = {f"observation.images.{c}": rng.integers(0, 255, (*size, 3), np.uint8) for c in cameras}
            state = rng.uniform(-90, 90, len(joints)).astype(np.float32)
            dataset.add_frame({**frame, "observation.state": state, "action": state, "task": "wave"})
        dataset.save_episode()
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return record(tmp_path_factory.mktemp("data") / "recorded", JOINTS, ["front"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("run") / "pretrained_model"
    dataset = LeRobotDataset(root=root)
    options = {"n_action_steps": 4, "pretrained_backbone_weights": None, "device": "cpu"}
    config = make_policy_config("act", **SIZES, **options)
    set_features(config, dataset_to_policy_features(dataset.features))
    torch.manual_seed(0)
    parts = get_policy_class("act")(config), *make_pre_post_processors(config, dataset_stats=dataset.meta.stats)
    for part in parts:
        part.save_pretrained(folder)
    return folder


def predict(checkpoint, root, output_dir, *more):
    flags = [f"--policy.path={checkpoint}", f"--dataset.root={root}", f"--output_dir={output_dir}", *more]
    return script.predict(parser.parse(PredictPipelineConfig, flags))


def test_an_episode_becomes_a_table_numbers_and_a_plot_per_joint(checkpoint, root, tmp_path, capsys):
    report = predict(checkpoint, root, tmp_path / "out", "--episode=1")
    assert report.frame_index.tolist() == [0, 4, 8], "a chunk is predicted whenever the policy's queue is empty"
    assert set(report.episode_index) == {1} and report.predicted.shape == (3, 6, 3)
    rows = pq.read_table(tmp_path / "out/actions.parquet").to_pydict()
    assert len(rows["step"]) == report.valid.sum() == 6 + 6 + 3
    recorded = LeRobotDataset(root=root, episodes=[1]).table["action"].numpy()
    at = np.array(rows["frame_index"]) + np.array(rows["step"])
    np.testing.assert_allclose(np.array(rows["recorded"]), recorded[at])
    saved = json.loads((tmp_path / "out/open_loop.json").read_text())
    assert saved["overall"] == pytest.approx(report.overall) and f"{report.overall:.3f}" in capsys.readouterr().out
    names = sorted(p.name for p in (tmp_path / "out").glob("*.png"))
    assert names == ["actions.png", "joint_el_bow.png", "joint_lift.png", "joint_pan.png"]
    for name in names:
        picture = cv2.imread(str(tmp_path / "out" / name))
        red = (picture[..., 2] > 180) & (picture[..., 1] < 110)
        dark = (picture < 70).all(axis=-1)
        assert red.sum() > 50 and dark.sum() > 50, "both lines are drawn"


def test_the_predictions_are_those_of_select_action(checkpoint, root, tmp_path):
    """Executing chunks from the queue, frame by frame, gives the same actions."""
    report = predict(checkpoint, root, tmp_path, "--episode=0", "--batch_size=2")
    policy = get_policy_class("act").from_pretrained(checkpoint)
    preprocessor, postprocessor = make_pre_post_processors(policy.config, checkpoint)
    dataset = LeRobotDataset(root=root, episodes=[0])
    for i in range(len(dataset)):
        observation = {k: v for k, v in dataset[i].items() if k.startswith("observation") or k == "task"}
        action = postprocessor(policy.select_action(preprocessor(observation)))[0].detach().numpy()
        np.testing.assert_allclose(report.predicted[i // 4, i % 4], action, rtol=1e-5, atol=1e-4)


def test_a_checkpoint_with_statistics_in_its_weights(tmp_path):
    pytest.importorskip("transformers")
    joints = [f"joint_{i}" for i in range(6)]
    root = record(tmp_path / "koch", joints, ["laptop", "phone"])
    vlm = f"--policy.vlm_model_name={LEGACY / 'vlm'}"
    first = predict(LEGACY / "checkpoint", root, tmp_path / "out", vlm)
    again = predict(LEGACY / "checkpoint", root, tmp_path / "out", vlm, "--seed=0")
    assert np.isfinite(first.predicted).all() and (first.predicted == again.predicted).all()
    other = predict(LEGACY / "checkpoint", root, tmp_path / "out", vlm, "--seed=1")
    assert (first.predicted != other.predicted).any(), "the seed sets the noise"


def test_names_of_another_dataset_are_refused_with_both_lists_or_mapped(checkpoint, tmp_path):
    other = record(tmp_path / "other", JOINTS, ["side"])
    with pytest.raises(ValueError, match="'observation.images.front' is missing") as error:
        predict(checkpoint, other, tmp_path / "out")
    assert "side 3x48x64" in str(error.value) and "--rename_map" in str(error.value)
    assert not (tmp_path / "out").exists()
    names = '{"observation.images.side": "observation.images.front"}'
    assert predict(checkpoint, other, tmp_path / "out", f"--rename_map={names}").overall > 0


def test_bad_requests_are_one_message(checkpoint, root, tmp_path):
    with pytest.raises(ValueError, match="--policy.path=CHECKPOINT"):
        script.predict(parser.parse(PredictPipelineConfig, [f"--dataset.root={root}"]))
    with pytest.raises(ValueError, match=r"\[9\]"):
        predict(checkpoint, root, tmp_path, "--episode=9")
    with pytest.raises(ValueError, match="--every=0"):
        predict(checkpoint, root, tmp_path, "--every=0")
    flags = ["--policy.path=/nowhere/run", f"--dataset.root={root}"]
    command = [sys.executable, script.__file__, *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "/nowhere/run" in done.stderr and "Traceback" not in done.stderr
