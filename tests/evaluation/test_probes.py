"""What a policy depends on, and how its motion would look."""

import numpy as np
import pytest
import torch

from lerobot.common.evaluation import probes as p
from lerobot.common.evaluation.motion import crossings, error_at_events, executed, gripper_events, roughness, seam_jumps
from lerobot.common.evaluation.open_loop import OpenLoopReport


def report_of(predicted, recorded, every=2, joints=("pan", "gripper"), **more):
    """A report of one episode with a chunk at every `every`-th frame."""
    predicted, recorded = np.asarray(predicted, float), np.asarray(recorded, float)
    count, length = predicted.shape[:2]
    return OpenLoopReport(
        episode_index=np.zeros(count, int),
        frame_index=every * np.arange(count),
        predicted=predicted,
        recorded=recorded,
        valid=np.ones((count, length), bool),
        joints=list(joints),
        **more,
    )


def windows(series, length, every):
    """Chunks of a series (F, A) at every `every`-th frame."""
    return np.stack([series[i : i + length] for i in range(0, len(series) - length + 1, every)])


def batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "observation.images.a": torch.randint(0, 255, (5, 3, 8, 40), dtype=torch.uint8, generator=generator),
        "observation.images.b": torch.randint(0, 255, (5, 3, 8, 40), dtype=torch.uint8, generator=generator),
        "observation.state": torch.arange(10.0).reshape(5, 2),
        "task": ["Pick the red cube."] * 5,
    }


def test_each_probe_takes_one_thing_away_and_leaves_the_batch_alone():
    before, cameras = batch(), ["observation.images.a", "observation.images.b"]
    probes = p.make_probes(cameras, ["Pick the red cube.", "Pick the blue cube."], has_state=True)
    assert list(probes) == [*cameras, p.ALL_BLANK, p.SHIFTED, p.STATE, p.INSTRUCTION]
    changed = {
        name: {key for key, value in probe(before).items() if not _same(value, before[key])}
        for name, probe in probes.items()
    }
    assert changed == {
        cameras[0]: {cameras[0]},
        cameras[1]: {cameras[1]},
        p.ALL_BLANK: set(cameras),
        p.SHIFTED: set(cameras),
        p.STATE: {"observation.state"},
        p.INSTRUCTION: {"task"},
    }
    blank = probes[cameras[0]](before)[cameras[0]]
    assert blank.dtype == torch.uint8 and (blank == blank[:, :, :1, :1]).all()
    assert torch.equal(before["observation.state"], batch()["observation.state"])


def _same(a, b):
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_a_shifted_picture_repeats_its_edge():
    picture = torch.tensor([[1, 2, 3, 4]])
    assert p.shift_right(picture, 2).tolist() == [[1, 1, 1, 2]]


@pytest.mark.parametrize("count", [2, 3, 17])
def test_in_a_derangement_nothing_keeps_its_place(count):
    order = p.derangement(count)
    assert sorted(order.tolist()) == list(range(count)) and (order != torch.arange(count)).all()


def test_the_other_sentence_is_one_of_the_dataset_or_has_the_same_words():
    assert p.other_sentence("a b", ["a b", "c d"]) == "c d"
    shuffled = p.other_sentence("pick up the cube", ["pick up the cube"])
    assert shuffled != "pick up the cube" and sorted(shuffled.split()) == sorted("pick up the cube".split())


def test_change_is_zero_for_an_ignored_input_and_one_where_the_action_becomes_anothers():
    predicted = np.random.default_rng(0).normal(size=(40, 3, 2))
    other = predicted[p.derangement(40).numpy()]
    report = report_of(predicted, predicted, probed={"ignored": predicted, "all": other})
    ignored, everything = p.probe_results(report)
    assert (ignored.change, ignored.error) == (0, 0)
    assert everything.change == pytest.approx(1) and everything.error > 0.5


def test_an_input_is_used_when_the_actions_or_the_error_say_so():
    assert p.how_used(0.01, 5.0, 1.0) == "ignores"
    assert p.how_used(0.10, 1.0, 1.0) == "hardly uses"
    assert p.how_used(0.10, 1.3, 1.0) == "uses"
    assert p.how_used(0.50, 1.0, 1.0) == "uses"


def test_a_policy_that_never_changes_its_action_has_no_probes():
    same = np.ones((4, 3, 2))
    assert p.probe_results(report_of(same, same, probed={"state": same})) == []


def test_a_jump_between_chunks_is_measured_against_the_recording():
    recorded = windows(np.arange(16.0).reshape(8, 2) / 2, 4, 2)
    predicted = recorded.copy()
    predicted[1:] += 5  # one step to a level of its own, after the first chunk
    jump, real = seam_jumps(report_of(predicted, recorded))
    np.testing.assert_allclose(real, 1)
    np.testing.assert_allclose(jump, [[6, 6], [1, 1]])


def test_a_ramp_is_smooth_and_a_zigzag_is_not():
    ramp = windows(np.stack([np.arange(12.0)] * 2, axis=1), 4, 2)
    zigzag = ramp + np.array([0, 1, 0, 1])[None, :, None]
    assert roughness(report_of(zigzag, ramp)) == (pytest.approx(2), pytest.approx(0))


def test_what_is_executed_is_each_chunk_up_to_the_next():
    recorded = windows(np.arange(16.0).reshape(8, 2), 4, 2)
    motion = executed(report_of(recorded, recorded), 0)
    assert motion.frames.tolist() == list(range(8))
    np.testing.assert_allclose(motion.predicted, np.arange(16.0).reshape(8, 2))


def test_crossings_need_to_leave_the_margin():
    assert crossings(np.array([0, 0, 1, 1, 0, 0.0]), 0.5, 0.2) == [(2, True), (4, False)]
    assert crossings(np.array([0, 0.6, 0, 0.6, 0.9]), 0.5, 0.2) == [(3, True)], "hesitating is one movement"


def test_gripper_events_are_matched_late_and_missed():
    series = np.zeros((40, 2))
    series[10:20, 1] = 50  # opens at 10, closes at 20
    late = np.roll(series, 3, axis=0)
    closed = np.zeros_like(series)
    recorded = windows(series, 4, 2)
    events = gripper_events(report_of(windows(late, 4, 2), recorded), within=5)
    assert [(e.frame, e.opens, e.lag) for e in events] == [(10, True, 3), (20, False, 3)]
    missed = report_of(windows(closed, 4, 2), recorded)
    events = gripper_events(missed, within=5)
    assert [e.lag for e in events] == [None, None]
    near, elsewhere = error_at_events(missed, events, radius=2)
    assert near > elsewhere > 0


def test_without_a_gripper_there_are_no_events():
    still = np.zeros((4, 3, 2))
    assert gripper_events(report_of(still, still), 5) == []
    assert gripper_events(report_of(still, still, joints=("a", "b")), 5) == []
