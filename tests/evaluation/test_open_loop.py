"""Predicted against recorded actions."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.evaluation.open_loop import executed_steps, joint_names, open_loop_error
from tests.evaluation.stand_ins import same

FPS, LENGTHS, CHUNK = 10, (12, 7, 9), 4
NAMES = ["pan", "lift"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "recorded"
    vector = {"dtype": "float32", "shape": (2,), "names": NAMES}
    dataset = LeRobotDataset.create(None, FPS, root, features={"observation.state": vector, "action": vector})
    rng = np.random.default_rng(0)
    for length in LENGTHS:
        for _ in range(length):
            state = rng.uniform(-90, 90, 2).astype(np.float32)
            dataset.add_frame({"observation.state": state, "action": state + 3, "task": "wave"})
        dataset.save_episode()
    return root


def load(root, episodes=None, chunk=CHUNK):
    return LeRobotDataset(root=root, episodes=episodes, delta_timestamps={"action": [i / FPS for i in range(chunk)]})


class Replay:
    """Predicts what was recorded, plus an offset (A,), and garbage where nothing was recorded."""

    def __init__(self, offset=(0.0, 0.0), chunk=CHUNK):
        self.config = SimpleNamespace(
            device="cpu", observation_delta_indices=None, action_delta_indices=list(range(chunk))
        )
        self.offset = torch.tensor(offset)

    def eval(self):
        return self

    def reset(self):
        return None

    def predict_action_chunk(self, batch):
        predicted = batch["action"] + self.offset
        return torch.where(batch["action_is_pad"][..., None], 1e6, predicted)


def test_reports_of_chunks_of_different_lengths_can_be_cut_to_the_shorter(root):
    longer, shorter = (
        open_loop_error(Replay((1.0, 5.0), chunk), same, same, load(root, chunk=chunk), every=1) for chunk in (4, 2)
    )
    cut = longer.first(2)
    assert (longer.steps, shorter.steps, cut.steps) == (4, 2, 2)
    assert cut.overall == shorter.overall and cut.holding_still == shorter.holding_still != longer.holding_still
    np.testing.assert_array_equal(cut.holding_still_by_horizon, longer.holding_still_by_horizon[:2])
    assert longer.holding_still_by_horizon[0] == pytest.approx(3) and (longer.holding_still_by_horizon[1:] > 20).all()


def test_a_policy_that_repeats_the_recording_has_no_error(root):
    report = open_loop_error(Replay(), same, same, load(root), every=1)
    assert report.overall == 0
    assert len(report.frame_index) == sum(LENGTHS)
    assert report.valid.sum() == sum(sum(min(CHUNK, n - i) for i in range(n)) for n in LENGTHS)


def test_errors_are_per_joint_and_step_in_recorded_units(root):
    def double(action):  # what the policy predicts is half of what is executed
        return 2 * action

    class Half(Replay):
        def predict_action_chunk(self, batch):
            return super().predict_action_chunk(batch) / 2

    report = open_loop_error(Half((1.0, -3.0)), same, double, load(root), every=1, batch_size=5)
    np.testing.assert_allclose(report.per_joint, [1, 3], atol=1e-4)
    np.testing.assert_allclose(report.by_horizon, [[1, 3]] * CHUNK, atol=1e-4)
    assert report.overall == pytest.approx(2, abs=1e-4)


def test_holding_still_is_the_error_of_commanding_the_state(root):
    report = open_loop_error(Replay(), same, same, load(root, chunk=1), every=1)
    assert report.holding_still == pytest.approx(3, abs=1e-4)


def test_frames_are_taken_at_a_stride_from_the_chosen_episodes(root):
    report = open_loop_error(Replay(), same, same, load(root, [2, 0]), episodes=[2], every=4)
    assert report.episode_index.tolist() == [2, 2, 2]
    assert report.frame_index.tolist() == [0, 4, 8]
    assert report.valid.sum(axis=1).tolist() == [4, 4, 1]
    with pytest.raises(ValueError, match=r"\[7\]"):
        open_loop_error(Replay(), same, same, load(root), episodes=[7])


def test_a_policy_that_also_learns_the_past_is_compared_from_the_present(root):
    class WithPast(Replay):
        def predict_action_chunk(self, batch):
            return super().predict_action_chunk(batch)[:, 1:]

    policy = WithPast()
    policy.config.action_delta_indices = [-1, 0, 1, 2]
    dataset = LeRobotDataset(root=root, delta_timestamps={"action": [-0.1, 0.0, 0.1, 0.2]})
    report = open_loop_error(policy, same, same, dataset, every=1)
    assert report.overall == 0 and report.predicted.shape[1] == 3


def test_a_dataset_without_action_windows_is_refused(root):
    with pytest.raises(ValueError, match="delta_timestamps"):
        open_loop_error(Replay(), same, same, LeRobotDataset(root=root))


def test_the_report_is_a_table_json_and_parquet(root, tmp_path):
    report = open_loop_error(Replay((0.5, 0.0)), same, same, load(root), every=5)
    text = str(report)
    assert [line.split()[0] for line in text.splitlines()[2:]] == ["pan", "lift", "mean", "holding"]
    assert "0.500" in text and f"step {CHUNK}" in text
    report.save_json(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["per_joint"]["pan"] == pytest.approx(0.5, abs=1e-4)
    assert saved["episodes"] == [0, 1, 2] and len(saved["by_horizon"]) == CHUNK
    report.save_parquet(tmp_path / "report.parquet")
    rows = pq.read_table(tmp_path / "report.parquet").to_pydict()
    assert len(rows["step"]) == report.valid.sum()
    difference = np.array(rows["predicted"]) - np.array(rows["recorded"])
    np.testing.assert_allclose(difference, np.tile([0.5, 0], (len(difference), 1)), atol=1e-4)


def test_executed_steps_are_those_that_the_policy_queues():
    assert executed_steps(SimpleNamespace(n_action_steps=7)) == 7
    assert executed_steps(SimpleNamespace(action_chunk_size=5)) == 5


def test_joint_names_come_in_every_form_that_datasets_have():
    assert joint_names({"shape": (2,), "names": NAMES}) == NAMES
    assert joint_names({"shape": (2,), "names": {"motors": NAMES}}) == NAMES
    assert joint_names({"shape": (2,), "names": None}) == ["joint_0", "joint_1"]
    assert joint_names({"shape": (2,), "names": ["all"]}) == ["joint_0", "joint_1"]
