"""The envelope: what passes, what is held back, and that it is counted."""

from __future__ import annotations

import numpy as np
import pytest

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.robot_devices.motors.calibration import save_calibration
from lerobot.common.robot_devices.robots.utils import make_robot
from lerobot.common.robot_devices.safety import EnvelopeConfig, JointLimits, SafetyEnvelope, SafetyStopError, Unlimited

DT = 1 / 30


def envelope(speed=60.0, acceleration=600.0, **config) -> SafetyEnvelope:
    limits = JointLimits(("a", "b"), (-50.0, -50.0), (50.0, 50.0), (speed,) * 2, (acceleration,) * 2, "test")
    made = SafetyEnvelope(limits, DT, EnvelopeConfig(**config))
    made.engage([0.0, 0.0])
    return made


def drive(made: SafetyEnvelope, targets) -> np.ndarray:
    return np.array([made.limit(target) for target in targets])


def test_a_motion_within_the_limits_passes_unchanged():
    made = envelope(speed=100.0, acceleration=3000.0)
    targets = np.stack([30 * np.sin(np.arange(120) * DT * 2), 20 * np.cos(np.arange(120) * DT) - 20], axis=1)
    np.testing.assert_allclose(drive(made, targets), targets, atol=1e-4)
    assert not made.counts


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_target_that_is_not_finite_is_refused_and_the_arm_holds(bad):
    made = envelope()
    before = made.limit([1.0, 0.0])
    for _ in range(30):
        after = before
        before = made.limit([0.5, 0.2]) if _ % 2 else made.limit([bad, 30.0])
        assert np.isfinite(before).all() and abs(before[1] - after[1]) < 0.3
    assert made.interventions()["refused"] == 15


def test_too_many_refusals_in_a_row_stop_the_run():
    made = envelope(max_refused=3)
    with pytest.raises(SafetyStopError, match="3 targets"):
        drive(made, [[np.nan, 0.0]] * 3)


def test_random_targets_never_leave_range_speed_or_acceleration():
    rng = np.random.default_rng(0)
    made = envelope(ramp_speed=1000.0)
    commands = drive(made, rng.uniform(-500, 500, (2000, 2)))
    velocity = np.diff(np.vstack([[0.0, 0.0], commands]), axis=0) / DT
    assert np.abs(commands).max() <= 50.0 + 1e-4
    assert np.abs(velocity).max() <= 60.0 * 1.01
    assert np.abs(np.diff(velocity, axis=0)).max() / DT <= 600.0 * 1.02
    assert made.interventions()["range"] > 0


def test_a_jump_becomes_a_smooth_way_that_arrives_without_overshoot():
    made = envelope(ramp_speed=1000.0)
    commands = drive(made, [[40.0, -40.0]] * 120)
    assert commands[-1] == pytest.approx([40.0, -40.0], abs=0.01)
    assert commands[:, 0].max() < 40.5


def test_the_first_target_is_approached_slowly():
    made = envelope(speed=1000.0, acceleration=1e6, ramp_speed=30.0)
    commands = drive(made, [[40.0, 0.0]] * 60)
    assert np.diff(commands[:, 0]).max() <= 30.0 * DT * 1.01
    assert made.interventions() == {"ramp": 1}


def test_the_first_target_is_approached_slowly_after_any_number_of_held_ticks():
    made = envelope(speed=360.0, acceleration=6000.0, ramp_speed=45.0)
    for _ in range(5):
        made.limit(made.commanded)
    commands = drive(made, [[40.0, 0.0]] * 10)
    assert np.abs(np.diff(commands[:, 0])).max() <= 45.0 * DT * 1.01


def test_on_the_slow_way_all_joints_arrive_together():
    """Each at its own pace would leave the straight line: lift and pan do not fit under the same table."""
    made = envelope(speed=360.0, acceleration=6000.0, ramp_speed=30.0)
    made.engage([-10.0, 20.0])
    start, target = np.array([-10.0, 20.0]), np.array([40.0, 5.0])
    commands = drive(made, [target] * 60)
    share = (commands - start) / (target - start)
    np.testing.assert_allclose(share[:, 0], share[:, 1], atol=1e-3)
    assert np.abs(np.diff(commands[:, 0])).max() <= 30.0 * DT * 1.01 and commands[-1] == pytest.approx(target)
    assert made.counts == {("ramp", "a"): 1}


def test_the_slow_way_ends_for_a_target_that_stays_outside_of_the_range():
    made = envelope(speed=360.0, acceleration=6000.0, ramp_speed=30.0)
    drive(made, [[40.0, 90.0]] * 60)
    assert made.limit([45.0, 90.0])[0] == pytest.approx(45.0), "the other joint moves at its own speed again"


def test_after_missed_ticks_the_arm_starts_again_slowly():
    made = envelope(speed=1000.0, acceleration=1e6, ramp_speed=30.0, hold_after_s=0.3)
    made.limit([0.0, 0.0], now=0.0)
    assert made.limit([10.0, 0.0], now=0.03)[0] == pytest.approx(10.0)
    assert made.limit([40.0, 0.0], now=1.0)[0] == pytest.approx(11.0, abs=0.01)
    assert made.counts["missed_tick", "all"] == 1


def test_an_arm_found_outside_of_its_range_may_only_come_back():
    made = envelope()
    made.engage([70.0, 0.0])
    commands = drive(made, [[90.0, 0.0]] * 100)
    assert commands[:, 0].max() <= 70.0 and commands[-1, 0] == pytest.approx(50.0, abs=0.01)


def test_off_still_refuses_what_is_not_a_number():
    limits = JointLimits(("a",), (-1.0,), (1.0,), (1.0,), (1.0,), "test")
    made = Unlimited(limits, DT)
    made.engage([0.0])
    assert made.limit([90.0])[0] == 90.0
    assert made.limit([np.nan])[0] == 90.0


def test_limits_of_a_dataset_pass_every_one_of_its_episodes():
    low, high = (-200.0,) * 6, (200.0,) * 6
    names = ("p", "l", "e", "w", "r", "g")
    limits = JointLimits.of_dataset("grasp_dataset", names, low, high, margin=0.1)
    from lerobot.common.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset(None, root="grasp_dataset", episodes=[3], download_videos=False)
    actions = dataset.table["action"].numpy()
    made = SafetyEnvelope(limits, 1 / dataset.fps, EnvelopeConfig(ramp_speed=1e6))
    made.engage(actions[0])
    np.testing.assert_allclose(drive(made, actions), actions, atol=1e-3)
    assert not made.counts


@pytest.mark.parametrize("order", [("left", "right"), ("right", "left")])
def test_each_arm_of_a_pair_learns_its_own_columns(tmp_path, order):
    names = [f"{arm}_{joint}" for arm in order for joint in ("pan", "lift")]
    feature = {"dtype": "float32", "shape": (4,), "names": names}
    dataset = LeRobotDataset.create("me/two", 30, root=tmp_path / "two", features={"action": feature})
    reach = np.array([10.0, 20.0, 30.0, 40.0], np.float32)  # of left pan, left lift, right pan, right lift
    reach = reach if order[0] == "left" else np.roll(reach, 2)
    for tick in range(31):
        dataset.add_frame({"action": reach * np.float32(tick / 30), "task": "x"})
    dataset.save_episode()
    joints = ["left_pan", "left_lift", "right_pan", "right_lift"]
    low, high = (-200.0,) * 2, (200.0,) * 2
    for first, most in ((0, (10, 20)), (2, (30, 40))):
        limits = JointLimits.of_dataset(tmp_path / "two", ("pan", "lift"), low, high, 0.0, joints, first)
        np.testing.assert_allclose(limits.high, most, rtol=1e-5)
        np.testing.assert_allclose(limits.speed, most, rtol=1e-4)
    with pytest.raises(ValueError, match="4 joints, the robot 2"):
        JointLimits.of_dataset(tmp_path / "two", ("pan", "lift"), low, high, 0.0)


def test_a_pair_of_arms_is_held_to_what_was_recorded(tmp_path):
    pytest.importorskip("dynamixel_sdk")
    robot = make_robot("koch_bimanual", mock=True, cameras={}, leader_arms={}, supervise=False)
    robot.calibration_dir = tmp_path
    for arm in ("left", "right"):
        legacy = {"homing_offset": [-2048] * 6, "drive_mode": [0] * 6, "start_pos": [0] * 6, "end_pos": [0] * 6}
        names = list(robot.follower_arms[arm].motors)
        calibration = {**legacy, "calib_mode": ["DEGREE"] * 6, "motor_names": names}
        save_calibration(calibration, tmp_path / f"{arm}_follower.json")
    feature = robot.motor_features["action"]
    dataset = LeRobotDataset.create("me/two", 30, root=tmp_path / "two", features={"action": feature})
    for tick in range(31):
        dataset.add_frame({"action": np.arange(12, dtype=np.float32) * np.float32(tick / 30), "task": "x"})
    dataset.save_episode()
    robot.envelope_config = EnvelopeConfig(dataset_root=str(tmp_path / "two"), margin=0.0, landing_s=0.1)
    robot.connect()
    try:
        assert robot.envelopes["left"].limits.high == pytest.approx(range(6), abs=1e-3)
        assert robot.envelopes["right"].limits.high == pytest.approx(range(6, 12), abs=1e-3)
    finally:
        robot.disconnect(land=False)


def test_without_a_fixed_rate_the_speed_is_measured_by_the_clock():
    made = envelope(speed=60.0, acceleration=6000.0, ramp_from=1000.0)
    made.measured = True
    commands = [made.limit([50.0, 0.0], now=tick * 0.005)[0] for tick in range(100)]
    assert max(np.diff(commands[1:])) <= 60.0 * 0.005 * 1.01


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        (((-50.0, 20.0), (50.0, -20.0), (60.0,) * 2, (600.0,) * 2), "joint 'b' .* reversed: 20.0 to -20.0"),
        (((-50.0, np.nan), (50.0, 20.0), (60.0,) * 2, (600.0,) * 2), "joint 'b' .* not finite"),
        (((-50.0,) * 2, (50.0,) * 2, (60.0, 0.0), (600.0,) * 2), "'b' .* speed 0.0"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits, word):
    with pytest.raises(ValueError, match=word):
        JointLimits(("a", "b"), *limits, "test")


@pytest.mark.parametrize(
    "setting",
    [{"margin": np.nan}, {"max_speed": np.inf}, {"max_acceleration": np.nan}, {"max_refused": 0},
     {"gripper_current": 0}, {"gripper_current": 3000}, {"ramp_from": -1.0}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(ValueError, match=f"--envelope.{next(iter(setting))}="):
        EnvelopeConfig(**setting)


def test_a_warning_and_the_summary_name_what_was_asked_and_what_is_allowed(caplog):
    limits = JointLimits(("pan", "lift"), (-90.0,) * 2, (90.0,) * 2, (360.0,) * 2, (600.0,) * 2, "calibration")
    envelope = SafetyEnvelope(limits, 1 / 30)
    envelope.engage([0.0, 0.0])
    envelope.limit([2.0, 0.0])
    envelope.limit([2.0, 14.0])
    assert "acceleration, pan): 1800 per second squared asked, 600 allowed" in caplog.text
    # faster it could not stop before the end of the range
    assert "speed, lift): 420 per second asked, 319 allowed" in caplog.text
    assert "acceleration 1x (pan 1), speed 1x (lift 1)" in envelope.summary()
