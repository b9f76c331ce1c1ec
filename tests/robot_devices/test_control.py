"""The commands of control_robot.py on the simulated arm, down to the bytes on its bus."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("mujoco")
pytest.importorskip("dynamixel_sdk")

from lerobot.common.checks.robot import check_actions
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.policies.act.modeling_act import ACTPolicy
from lerobot.common.policies.factory import make_pre_post_processors
from lerobot.common.robot_devices import control_utils, recording, viewer
from lerobot.common.robot_devices.cameras.base import StaleFrameError
from lerobot.common.robot_devices.control_configs import RecordControlConfig, TeleoperateControlConfig, parse_control
from lerobot.common.robot_devices.motors.dynamixel import DynamixelMotorsBus
from lerobot.common.robot_devices.preflight import Plan, preflight
from lerobot.common.robot_devices.robots import configs
from lerobot.common.robot_devices.robots.configs import JOINTS
from lerobot.common.robot_devices.robots.koch_sim import KochSimRobot
from lerobot.common.robot_devices.robots.manipulator import ManipulatorRobot
from lerobot.common.robot_devices.robots.utils import make_robot, make_robot_from_config
from lerobot.common.robot_devices.simulation.twin_process import TwinProcess
from lerobot.common.robot_devices.supervisor import Supervision
from lerobot.common.training.checkpoint import RECORD_NAME
from lerobot.common.training.record import describe_dataset
from lerobot.scripts.control_robot import control_robot
from lerobot.scripts.lerobot_find_joint_limits import find_joint_limits

SIM = ["--robot.type=koch_sim", "--robot.time=lockstep", "--robot.supervise=false"]
RECORD = [
    *SIM,
    "--control.type=record",
    "--control.repo_id=me/cubes",
    "--control.single_task=Pick.",
    "--control.warmup_time_s=0",
    "--control.push_to_hub=false",
    "--control.play_sounds=false",
]


def run(*flags: str):
    return control_robot(parse_control(list(flags)))


@pytest.fixture
def robot():
    made = make_robot("koch_sim", time="lockstep", cameras={}, supervise=False)
    made.connect()
    yield made
    if made.is_open:
        made.disconnect(land=False)


def torques(robot) -> list[bool]:
    return robot.twin.ask("state")["torque"]


def test_an_episode_is_recorded_resumed_and_replayed_to_the_same_end(tmp_path):
    root = tmp_path / "cubes"
    flags = [*RECORD, f"--control.root={root}", "--robot.cameras={}"]
    run(*flags, "--control.num_episodes=1")
    dataset = LeRobotDataset("me/cubes", root=root)
    assert dataset.meta.info["units"] == "legacy" and dataset.meta.info["sim"] is True
    assert dataset.meta.info["simulation"]["seed"] == 0 and len(dataset.meta.info["simulation"]["model"]) == 64
    assert dataset.features["action"]["names"][0] == "main_shoulder_pan"
    offset = (dataset.table["action"] - dataset.table["observation.state"]).abs().mean()
    assert 0.3 < offset < 4.0
    report = json.loads((tmp_path / "cubes.control_report.jsonl").read_text())
    assert report["success"] and report["bus"]["main"]["failures"] == 0 and not report["safety"]["main"]
    with pytest.raises(FileExistsError, match="resume"):
        run(*flags, "--control.num_episodes=1")
    run(*flags, "--control.num_episodes=1", "--control.resume=true", "--control.episode_time_s=0.2")
    assert LeRobotDataset("me/cubes", root=root).num_episodes == 2

    replay = parse_control(
        [*SIM, "--control.type=replay", "--control.repo_id=me/cubes", f"--control.root={root}", "--control.episode=0"]
    )
    robot = make_robot_from_config(replay.robot)
    recording.replay(robot, replay.control)
    assert robot.success
    robot.disconnect()


def test_pictures_of_the_twin_are_recorded_and_a_policy_runs(tmp_path, capsys):
    cameras = json.dumps({"laptop": {"type": "sim", "name": "laptop", "width": 64, "height": 48}})
    root = tmp_path / "cubes"
    run(*RECORD, f"--control.root={root}", "--control.num_episodes=1", "--control.episode_time_s=1",
        f"--robot.cameras={cameras}")  # fmt: skip
    dataset = LeRobotDataset("me/cubes", root=root)
    assert dataset[0]["observation.images.laptop"].shape == (3, 48, 64)
    checkpoint = make_checkpoint(dataset, tmp_path / "checkpoint")
    flags = [*RECORD, f"--robot.cameras={cameras}", f"--control.policy.path={checkpoint}", "--control.num_episodes=2",
             "--control.episode_time_s=0.5", f"--control.root={tmp_path / 'eval_cubes'}"]  # fmt: skip
    with pytest.raises(ValueError, match="eval_cubes"):
        run(*flags)
    capsys.readouterr()
    evaluated = run(*flags, "--control.repo_id=me/eval_cubes")
    shown = capsys.readouterr().out
    assert "Outcome: no success (seed 1)" in shown and "0 of 2 episodes succeeded." in shown
    assert evaluated.meta.total_frames == 30
    weights = (checkpoint / "model.safetensors").read_bytes()
    assert evaluated.meta.info["policy"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert evaluated.meta.info["sim"] is True and "policy" not in dataset.meta.info
    table = LeRobotDataset("me/eval_cubes", root=tmp_path / "eval_cubes").table
    assert table["action"].isfinite().all()
    # The same start and a policy that was reset: both episodes' first actions are the arm's rest pose, ramped from.
    assert (table["action"][0] - table["action"][15]).abs().max() < 3.0


def test_a_rollout_moves_the_arm_and_records_nothing(robot, monkeypatch, tmp_path, capsys):
    runner = control_utils.PolicyRunner(SimpleNamespace(reset=lambda: None), None, None)
    target = torch.tensor([20.0, *REST[1:]])
    runner.act = lambda observation, task: target
    monkeypatch.setattr(recording, "_load_policy", lambda *_: runner)
    monkeypatch.setattr(recording, "_with_player", lambda *_: runner)
    monkeypatch.setattr(recording, "_plan", lambda *_: Plan())
    robot.disconnect(land=False)
    cfg = RecordControlConfig(
        repo_id="none/eval_rollout", single_task="Pick.", root=str(tmp_path / "no"), episode_time_s=2
    )
    recording.rollout(robot, cfg)
    assert robot.follower_positions()[0] == pytest.approx(20, abs=3)
    assert "no success (seed 0)" in capsys.readouterr().out and not (tmp_path / "no").exists()


def test_the_reach_of_every_joint_is_read_while_the_leader_moves(robot, capsys):
    robot.disconnect(land=False)
    reach = find_joint_limits(robot, TeleoperateControlConfig(fps=30, teleop_time_s=3))
    assert reach.high[1] - reach.low[1] > 20 and reach.low[0] <= reach.high[0]
    assert "main_shoulder_lift" in capsys.readouterr().out


def test_pictures_are_processed_only_for_a_new_plan_and_actions_are_those_of_every_tick(tmp_path):
    root = tmp_path / "cubes"
    cameras = json.dumps({"laptop": {"type": "sim", "name": "laptop", "width": 64, "height": 48}})
    run(*RECORD, f"--control.root={root}", "--control.num_episodes=1", "--control.episode_time_s=0.4",
        f"--robot.cameras={cameras}")  # fmt: skip
    dataset = LeRobotDataset("me/cubes", root=root)
    path = make_checkpoint(dataset, tmp_path / "checkpoint")
    policy = ACTPolicy.from_pretrained(path)
    runner = control_utils.PolicyRunner(policy, *make_pre_post_processors(policy.config, path))
    seen, process = [], runner.preprocessor
    runner.preprocessor = lambda batch: seen.append(1) or process(batch)
    pictures = torch.randint(0, 256, (8, 48, 64, 3), dtype=torch.uint8)
    states = torch.arange(8.0)[:, None].expand(8, 6)
    ticks = [{"observation.state": states[i], "observation.images.laptop": pictures[i]} for i in range(8)]
    actions = torch.stack([runner.act(tick, "x") for tick in ticks])
    assert len(seen) == 2  # chunks of 4
    policy.reset()
    expected = [control_utils.predict_action(t, policy, "cpu", process, runner.postprocessor, task="x") for t in ticks]
    assert torch.equal(actions, torch.stack(expected))
    runner.reset()
    runner.act(ticks[0], "x")
    assert len(seen) == 3


def make_checkpoint(dataset, path):
    from lerobot.common.policies.factory import make_policy, make_policy_config

    config = make_policy_config(
        "act", device="cpu", chunk_size=4, n_action_steps=4, dim_model=16, n_heads=2, dim_feedforward=16,
        n_encoder_layers=1, n_vae_encoder_layers=1, latent_dim=4, pretrained_backbone_weights=None,
    )  # fmt: skip
    policy = make_policy(config, ds_meta=dataset.meta)
    pre, post = make_pre_post_processors(config, dataset_stats=dataset.meta.stats)
    policy.save_pretrained(path)
    pre.save_pretrained(path)
    post.save_pretrained(path)
    return path


def test_keys_end_discard_and_stop(robot, tmp_path):
    events = control_utils.new_events()
    events["exit_early"] = True
    frames = []

    class Recorder:
        fps = 30
        add_frame = staticmethod(frames.append)

    control_utils.control_loop(robot, 1, True, dataset=Recorder, events=events, fps=30, single_task="x")
    assert len(frames) == 1 and not events["exit_early"]
    control_utils.control_loop(robot, 0.5, True, dataset=Recorder, events=events, fps=30, single_task="x")
    assert len(frames) == 16
    with pytest.raises(ValueError, match="fps"):
        control_utils.control_loop(robot, 1, True, dataset=Recorder, events=events, fps=10, single_task="x")


def test_the_arm_holds_while_a_camera_hiccups_and_the_run_ends_when_it_stays_frozen(robot, monkeypatch, caplog):
    capture, stale = robot.capture_observation, [True, True, False]

    def hiccup():
        if stale.pop(0):
            raise StaleFrameError("the newest picture is 900 ms old")
        return capture()

    robot.capture_observation = hiccup
    before = robot.follower_positions()
    pace = control_utils.Pace(30)
    control_utils.control_loop(robot, 1 / 30, fps=30, pace=pace)
    assert not stale and pace.held == 2
    assert caplog.text.count("The arm holds") == 1
    np.testing.assert_allclose(robot.follower_positions(), before, atol=0.3)
    monkeypatch.setattr(control_utils, "STALE_PATIENCE_S", 0.0)
    stale[:] = [True] * 50
    with pytest.raises(StaleFrameError):
        control_utils.control_loop(robot, 1, fps=30)
    del robot.capture_observation


class SetClock:
    """A robot's clock that is set by `by` seconds when it has told the time for the `at`-th time."""

    lockstep = True

    def __init__(self, clock, at: int, by: float):
        self.clock, self.at, self.by, self.told = clock, at, by, 0

    def now(self) -> float:
        self.told += 1
        return self.clock.now() + (self.by if self.told > self.at else 0.0)

    def wait(self, seconds: float) -> None:
        assert seconds < 1.5 / 30
        self.clock.wait(seconds)


def test_a_clock_that_is_set_back_makes_a_run_neither_wait_nor_last_longer(robot):
    real = robot.clock
    for at in range(12, 16):  # wherever in a tick it happens
        pace = control_utils.Pace(30)
        robot.clock = SetClock(real, at, -3600.0)
        control_utils.control_loop(robot, 0.5, fps=30, pace=pace)
        assert 15 <= pace.count + 1 <= 17
    robot.clock = real


def test_the_operator_of_the_simulated_leader_waits_for_a_follower_that_lags(robot):
    robot.reset_scene(0)
    robot.twin.ask("advance", frames=100)  # no goal is sent: the follower stays where it is
    waiting = robot.leader_positions()["main"]
    assert 15 < np.abs(waiting - robot.follower_positions())[:-1].max() < 30
    robot.twin.ask("advance", frames=150)  # but not for ever
    assert np.abs(robot.leader_positions()["main"] - waiting).max() > 30


@pytest.mark.parametrize("fps", [60, 20, 7])
def test_a_twin_in_lockstep_keeps_to_any_rate(robot, fps):
    start, frame = robot.clock.now(), robot.twin.ask("state")["frame"]
    pace = control_utils.Pace(fps)
    control_utils.control_loop(robot, 2.0, teleoperate=True, fps=fps, pace=pace)
    assert robot.clock.now() - start == pytest.approx(2.0, abs=1 / fps)
    assert robot.twin.ask("state")["frame"] - frame == pytest.approx(60, abs=30 / fps + 1)
    assert pace.summary()["mean_hz"] == pytest.approx(fps, rel=0.01)


def test_the_viewer_is_opened_on_a_desktop_or_elsewhere_and_its_absence_is_told(robot, monkeypatch, caplog):
    rerun = pytest.importorskip("rerun")
    opened, logged = [], []
    monkeypatch.setattr(rerun, "spawn", lambda **options: opened.append("here"))
    monkeypatch.setattr(rerun, "connect_grpc", lambda url: opened.append(url))
    monkeypatch.setattr(rerun, "log", lambda name, *_, **__: logged.append(name))
    monkeypatch.setattr(control_utils, "has_desktop", lambda: True)  # pynput is not needed to see something
    control_utils.control_loop(robot, 1 / 30, display_data=True, fps=30)
    sent, state = ([f"{name}_{joint}" for joint in range(6)] for name in ("sent_action", "observation.state"))
    assert opened == ["here"] and logged == sent + state
    monkeypatch.setattr(control_utils, "has_desktop", lambda: False)
    control_utils.control_loop(robot, 1 / 30, display_data=True, fps=30)
    monkeypatch.setattr(viewer, "has_desktop", lambda: False)
    assert viewer.open_viewer("teleop", TeleoperateControlConfig(display_data=True)) is None
    assert len(opened) == 1 and caplog.text.count("nothing is shown") == 1
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        there = TeleoperateControlConfig(display_data=True, display_ip="127.0.0.1", display_port=port)
        control_utils.control_loop(robot, 1 / 30, display_data=viewer.open_viewer("teleop", there), fps=30)
    assert opened[1:] == [f"rerun+http://127.0.0.1:{port}/proxy"] and logged == 2 * (sent + state)
    with pytest.raises(ConnectionError, match="No viewer answers"):
        viewer.open_viewer("teleop", there)
    with pytest.raises(ValueError, match="both --control.display_ip and"):
        viewer.open_viewer("teleop", TeleoperateControlConfig(display_data=True, display_ip="10.0.0.7"))


def test_a_viewer_that_is_not_installed_is_told_before_anything_is_opened(monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    monkeypatch.setattr(KochSimRobot, "open", lambda self: pytest.fail("the robot was opened"))
    with pytest.raises(ImportError, match="visualize"):
        run(*SIM, "--control.type=teleoperate", "--control.display_data=true")


def test_whatever_ends_a_run_torque_is_off(robot):
    assert all(torques(robot))
    twin = robot.twin
    close = twin.close
    twin.close = lambda: None
    with pytest.raises(KeyboardInterrupt):
        try:
            raise KeyboardInterrupt
        finally:
            robot.disconnect()
    state = twin.ask("state")
    assert not any(state["torque"])
    np.testing.assert_allclose(state["angles"], [0, 134, 180, -19, 0, 35], atol=4)
    close()


def test_an_action_that_is_not_a_number_never_moves_the_arm(robot):
    before = robot.follower_positions()
    for _ in range(5):
        robot.send_action(torch.full((6,), float("nan")))
        robot.clock.wait(1 / 30)
    np.testing.assert_allclose(robot.follower_positions(), before, atol=0.3)
    assert robot.envelopes["main"].interventions()["refused"] == 5


def test_a_wild_policy_stays_in_the_envelope_seen_from_the_servos(robot):
    rng = np.random.default_rng(0)
    last, limits = np.array(robot.twin.ask("state")["goals"]), robot.envelopes["main"].limits
    for _ in range(60):
        robot.send_action(torch.from_numpy(rng.uniform(-400, 400, 6)))
        robot.clock.wait(1 / 30)
        goals = np.array(robot.twin.ask("state")["goals"])
        assert (np.abs(goals - last) <= np.array(limits.speed) / 30 + 0.2).all()
        assert (goals <= np.array(limits.high) + 1).all() and (goals >= np.array(limits.low) - 1).all()
        last = goals


def test_a_slipped_turn_at_rest_is_undone_before_torque_is_on():
    made = make_robot("koch_sim", time="lockstep", cameras={}, supervise=False, calibration="hard")
    made.open()
    made.twin.ask("fault", kind="slip", motor=2, value=1)
    made.energise()
    np.testing.assert_allclose(made.follower_positions(), [0, 134, 180, -19, 0, 35], atol=1)
    made.disconnect(land=False)


def test_problems_are_told_together_and_before_torque(capsys):
    cfg = parse_control([*SIM, "--robot.cameras={}", "--control.type=teleoperate", "--control.teleop_time_s=1"])
    made = make_robot_from_config(cfg.robot)
    opened = made.open

    def open_with_faults():
        findings = opened()
        made.twin.ask("fault", kind="vanish", motor=4)
        made.twin.ask("fault", kind="volts", motor=2, value=9.0)
        made._calibration_path("main_leader").write_text('{"motor_names": ["shoulder_pan"]}')
        return findings

    made.open = open_with_faults
    with pytest.raises(ValueError, match="torque was not switched on"):
        recording.teleoperate(made, cfg.control)
    table = capsys.readouterr().out
    assert "wrist_flex" in table and "9.0 V" in table and "lacks" in table
    assert not any(torques(made))
    made.disconnect()


def test_a_missing_port_names_the_simulated_arm():
    with pytest.raises(ValueError, match="problems"):
        run("--robot.type=koch", "--robot.cameras={}", "--control.type=teleoperate", "--control.teleop_time_s=1")


def test_a_dead_program_is_landed_by_its_supervisor():
    twin = TwinProcess(time="realtime", leader="hold")
    made = make_robot("koch_sim", cameras={}, supervise=False)
    for bus, port in zip((made.follower_arms["main"], made.leader_arms["main"]), twin.ports, strict=True):
        bus.port = port
        bus.connect()
    made.envelope_config.landing_s = 0.3
    made.energise()
    made.supervision = Supervision.start(made)
    assert all(twin.ask("state")["torque"])
    process = made.supervision._process
    process.stdin.close()  # what the supervisor sees when the program is killed
    process.wait(60)
    assert not any(twin.ask("state")["torque"])
    made.supervision, made.is_open = None, False
    for bus in made.buses.values():
        bus.disconnect(torque_off=False)
    process.stdout.close()
    twin.close()


def test_simulated_cameras_of_two_sizes_are_refused():
    cameras = {name: {"type": "sim", "name": name, "width": width} for name, width in (("laptop", 64), ("phone", 32))}
    with pytest.raises(ValueError, match="one size, found 32x480, 64x480"):
        run(*RECORD, f"--robot.cameras={json.dumps(cameras)}")


def test_a_device_that_was_typed_and_is_not_there_is_refused():
    with pytest.raises(ValueError, match="'cuda:99' is not available"):
        parse_control([*RECORD, "--control.policy.path=x", "--control.policy.device=cuda:99"])


def test_a_policy_for_other_cameras_is_refused_before_torque(tmp_path, capsys):
    root = tmp_path / "cubes"
    camera = {"type": "sim", "name": "laptop", "width": 64, "height": 48}
    run(*RECORD, f"--control.root={root}", "--control.num_episodes=1", "--control.episode_time_s=0.2",
        f"--robot.cameras={json.dumps({'laptop': camera})}")  # fmt: skip
    checkpoint = make_checkpoint(LeRobotDataset("me/cubes", root=root), tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="torque was not switched on"):
        run(*RECORD, "--control.repo_id=me/eval_cubes", f"--control.root={tmp_path / 'eval_cubes'}",
            f"--robot.calibration_dir={tmp_path / 'none'}",
            f"--control.policy.path={checkpoint}", f"--robot.cameras={json.dumps({'side': camera})}")  # fmt: skip
    shown = capsys.readouterr().out  # a missing calibration hides nothing else
    assert "observation.images.laptop" in shown and "main_follower is not calibrated" in shown
    assert not (tmp_path / "eval_cubes").exists()


def test_a_policy_trained_in_other_units_is_refused_before_torque(tmp_path, capsys):
    root, cameras = (
        tmp_path / "cubes",
        json.dumps({"laptop": {"type": "sim", "name": "laptop", "width": 64, "height": 48}}),
    )
    run(*RECORD, f"--control.root={root}", "--control.num_episodes=1", "--control.episode_time_s=0.2",
        f"--robot.cameras={cameras}")  # fmt: skip
    dataset = LeRobotDataset("me/cubes", root=root)
    checkpoint = make_checkpoint(dataset, tmp_path / "checkpoint")
    trained_on = {**describe_dataset(dataset), "units": "normalized", "tasks": ["Fold."], "fps": 15}
    (checkpoint / RECORD_NAME).write_text(json.dumps({"dataset": trained_on}))
    with pytest.raises(ValueError, match="1 problem in the table"):
        run(*RECORD, "--control.repo_id=me/eval_cubes", f"--control.root={tmp_path / 'eval_cubes'}",
            f"--control.policy.path={checkpoint}", f"--robot.cameras={cameras}", "--control.fps=30")  # fmt: skip
    table = capsys.readouterr().out
    assert "those of the checkpoint in 'normalized'" in table and "Fold." in table
    assert "at 15 fps, the loop runs at 30: they are 2 times as fast" in table and "-> --control.fps=15" in table


def write_actions(root, actions, names=None):
    """A recording of these actions, as the simulated arm leaves it."""
    from lerobot.common.datasets.utils import write_info

    names = [f"main_{joint}" for joint in names or JOINTS]
    feature = {"dtype": "float32", "shape": (6,), "names": names}
    features = {"action": feature, "observation.state": feature}
    dataset = LeRobotDataset.create("me/cubes", 30, root=root, robot_type="koch_sim", features=features)
    for action in np.asarray(actions, np.float32):
        dataset.add_frame({"action": action, "observation.state": action, "task": "x"})
    dataset.save_episode()
    dataset.meta.info["units"] = "legacy"
    write_info(dataset.meta.info, root)


def replaying(root):
    flags = [*SIM, "--control.type=replay", "--control.repo_id=me/cubes", f"--control.root={root}"]
    cfg = parse_control([*flags, "--control.episode=0", "--control.play_sounds=false"])
    robot = make_robot_from_config(cfg.robot)
    try:
        recording.replay(robot, cfg.control)
        return robot.twin.ask("state")["goals"]
    finally:
        assert any(robot.twin.ask("state")["torque"]) == robot.is_connected
        robot.disconnect(land=False)


REST = [0.0, 134.0, 180.0, -19.0, 0.0, 35.0]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda info: info.update(units="normalized"), "'normalized'"),
        (lambda info: info["features"]["action"]["names"].reverse(), "orders the joints gripper, wrist_roll"),
    ],
)
def test_a_dataset_that_means_something_else_is_not_replayed(tmp_path, capsys, change, word):
    root = tmp_path / "cubes"
    write_actions(root, [REST] * 3)
    info = json.loads((root / "meta/info.json").read_text())
    change(info)
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="torque was not switched on"):
        replaying(root)
    assert word in capsys.readouterr().out


def test_actions_that_no_arm_can_follow_are_not_replayed(tmp_path, capsys):
    write_actions(tmp_path / "cubes", [REST, [500.0, *REST[1:]]])
    with pytest.raises(ValueError, match="torque was not switched on"):
        replaying(tmp_path / "cubes")
    assert "leave the arm's range at the joints [0]" in capsys.readouterr().out


def test_an_episode_that_there_is_not_is_not_replayed(tmp_path):
    write_actions(tmp_path / "cubes", [REST, REST])
    with pytest.raises(ValueError, match="--control.episode=7: .* has 0 to 0"):
        run(*SIM, "--control.type=replay", "--control.repo_id=me/cubes", f"--control.root={tmp_path / 'cubes'}",
            "--control.episode=7")  # fmt: skip


def test_recorded_actions_that_are_no_numbers_are_told():
    low, high = np.full(2, -100.0), np.full(2, 100.0)
    (finding,) = check_actions(np.array([[0.0, 0.0], [0.0, np.nan]]), low, high)
    assert finding.severity == "error" and "frame 1 is not finite" in finding.message
    assert check_actions(np.array([[0.0, 120.0]]), low, high) == []


def test_a_replay_begins_slowly_and_inside_the_range(tmp_path, monkeypatch):
    start = [60.0, 134.0, 180.0, -19.0, 0.0, 110.0]  # the gripper 10 degrees beyond its range
    write_actions(tmp_path / "cubes", [start] * 3)
    sent = []
    write = DynamixelMotorsBus.write

    def noted(bus, register, values, *motors):
        if register == "Goal_Position":
            sent.append(np.array(values))
        write(bus, register, values, *motors)

    monkeypatch.setattr(DynamixelMotorsBus, "write", noted)
    goals = replaying(tmp_path / "cubes")
    np.testing.assert_allclose(goals[:5], start[:5], atol=0.1)
    assert np.abs(np.diff(sent, axis=0)).max() <= recording.ALIGN_SPEED / 30 * 1.02
    assert np.max(sent, axis=0)[5] <= 100.0


def test_a_motion_goes_on_from_the_last_command_not_from_where_the_arm_hangs(robot):
    robot.glide({"main": np.array([0.0, 60.0, 60.0, 0.0, 0.0, 35.0])}, 2.0)
    for _ in range(30):  # in front of it the arm hangs below what was commanded
        robot.hold()
        robot.clock.wait(1 / 30)
    before = robot.envelopes["main"].commanded
    assert before[1] - robot.follower_positions()[1] > 0.3
    for _ in range(3):
        control_utils.control_loop(robot, 0.3, fps=30)
    np.testing.assert_allclose(robot.envelopes["main"].commanded, before, atol=0.01)


def test_a_servo_that_restarted_ends_the_run(robot):
    robot.twin.ask("fault", kind="restart", motor=3)
    with pytest.raises(ConnectionError, match="torque of elbow_flex is off, .* restarted"):
        control_utils.control_loop(robot, 5, fps=30)
    assert robot.clock.now() < 2.0


def test_servos_that_stopped_by_themselves_are_told_woken_and_limited_again(robot, caplog):
    bus = robot.follower_arms["main"]
    speed = bus.read("Profile_Velocity").tolist()
    robot.watch(True)
    target = torch.from_numpy(robot.envelopes["main"].commanded + [0, -40, 0, 0, 0, 0])
    robot.send_action(target)
    robot.clock.wait(3.0)  # nothing is said on the bus for longer than the watchdog waits
    assert bus.read("Bus_Watchdog").tolist() == [255] * 6 and not bus.read("Profile_Velocity").any()
    start = robot.follower_positions()
    robot.send_action(target)
    assert "stopped by themselves" in caplog.text and "shoulder_pan, shoulder_lift" in caplog.text
    assert bus.read("Profile_Velocity").tolist() == speed and bus.read("Bus_Watchdog").tolist() == [125] * 6
    goals = np.array(robot.twin.ask("state")["goals"])
    assert np.abs(goals - start).max() < 3.0, "it goes on slowly from where it is"
    robot.watch(False)


def test_a_motor_that_vanished_is_what_the_run_ends_with_and_no_sign_of_life_is_awaited_meanwhile(robot):
    """Talking to a motor that is gone takes seconds, after which the supervisor would end the program."""
    said = []
    robot.supervision = SimpleNamespace(**{n: lambda n=n: said.append(n) for n in ("arm", "disarm", "beat", "finish")})
    with (
        pytest.raises(ConnectionError, match="no answer from motor 4 .*reading address 132"),
        recording.watching(robot),
    ):
        robot.twin.ask("fault", kind="vanish", motor=4)
        robot.capture_observation()
    assert said == ["arm", "disarm"]


def test_an_arm_that_a_dead_program_left_stopped_is_woken_before_its_torque_is_on(caplog):
    made = make_robot("koch_sim", time="lockstep", cameras={}, supervise=False)
    made.open()
    bus = made.follower_arms["main"]
    bus.write("Operating_Mode", 4)
    bus.set_torque(True)
    bus.write("Bus_Watchdog", 10)
    made.clock.wait(1.0)
    made.energise()
    assert "had been stopped by their watchdog" in caplog.text and all(torques(made))
    assert bus.read("Goal_Current", "gripper")[0] == made.envelope_config.gripper_current
    made.disconnect(land=False)


def test_an_arm_that_presses_against_the_table_shuts_down_and_the_run_ends():
    robot = make_robot("koch_sim", time="lockstep", cameras={}, supervise=False, overload=True)
    robot.connect()
    low = torch.tensor([0.0, -15.0, -10.0, 0.0, 0.0, 10.0])
    with pytest.raises(ConnectionError, match="shoulder_lift: overload|Hardware error of .*: overload"):
        for _ in range(30 * 30):
            robot.send_action(low)
            robot.clock.wait(1 / 30)
            robot.follower_positions()
    assert not all(torques(robot))
    robot.disconnect(land=False)


def test_a_power_cut_costs_the_count_of_turns_and_connecting_finds_the_pose_again():
    made = make_robot("koch_sim", time="lockstep", cameras={}, supervise=False)
    made.connect()
    before = made.follower_positions()
    for motor in range(1, 7):
        made.twin.ask("fault", kind="restart", motor=motor)
    raw = made.follower_arms["main"].read_with_motor_ids(["xl330-m288"], [3], "Present_Position")[0]
    assert raw < 200, "the elbow lay at 180 degrees, just beyond a turn"
    made.energise()
    made.clock.wait(0.5)
    np.testing.assert_allclose(made.follower_positions(), before, atol=5)
    assert made.follower_arms["main"].read("Position_P_Gain", "elbow_flex")[0] == 1500
    made.disconnect(land=False)


def test_a_policy_that_orders_the_joints_differently_is_refused_before_torque(tmp_path, capsys):
    root, cameras = tmp_path / "cubes", '{"laptop": {"type": "sim", "name": "laptop", "width": 64, "height": 48}}'
    run(*RECORD, f"--control.root={root}", "--control.num_episodes=1", "--control.episode_time_s=0.2",
        f"--robot.cameras={cameras}")  # fmt: skip
    dataset = LeRobotDataset("me/cubes", root=root)
    checkpoint = make_checkpoint(dataset, tmp_path / "checkpoint")
    trained_on = describe_dataset(dataset)
    trained_on["features"]["action"]["names"] = list(reversed(trained_on["features"]["action"]["names"]))
    (checkpoint / RECORD_NAME).write_text(json.dumps({"dataset": trained_on}))
    with pytest.raises(ValueError, match="1 problem in the table"):
        run(*RECORD, "--control.repo_id=me/eval_cubes", f"--control.root={tmp_path / 'eval_cubes'}",
            f"--control.policy.path={checkpoint}", f"--robot.cameras={cameras}")  # fmt: skip
    assert "checkpoint's training orders the joints gripper" in capsys.readouterr().out


def test_calibrating_the_simulated_pair_finds_its_mounting(tmp_path):
    run(*SIM, "--robot.calibration=hard", f"--robot.calibration_dir={tmp_path}", "--control.type=calibrate")
    for name in ("main_follower", "main_leader"):
        found = json.loads((tmp_path / f"{name}.json").read_text())
        assert found["drive_mode"] == [0, 0, 1, 1, 0, 1]
        assert found["homing_offset"] == [-2048, -1024, 3072, 1024, -3072, 2048]
        assert found["motor_names"][0] == "shoulder_pan"


@pytest.mark.parametrize(
    "flags, word",
    [
        (["--control.type=record", "--control.single_task=x"], "repo_id"),
        (["--control.type=record", "--control.repo_id=x", "--control.single_task=x"], "one slash"),
        (["--control.type=record", "--control.repo_id=me/eval_x", "--control.single_task=x"], "eval_"),
        (["--control.type=replay"], "repo_id"),
        (["--control.type=calibrate", '--control.arms=["main_third"]'], "main_leader"),
        (["--control.type=teleoperate", "--safety=never"], "on or off"),
        (["--control.type=teleoperate", "--control.speed=3"], "speed"),
        (["--control.type=remote_robot"], "Koch"),
    ],
)
def test_flags_that_cannot_be_meant(flags, word):
    with pytest.raises((ValueError, NotImplementedError), match=word):
        run(*SIM, *flags)


def test_a_follower_without_a_leader_is_refused_before_anything_is_opened(monkeypatch):
    monkeypatch.setattr(ManipulatorRobot, "open", lambda self: pytest.fail("the robot was opened"))
    alone = ["--robot.type=koch", "--robot.leader_arms={}", "--robot.cameras={}"]
    for control in (["--control.type=teleoperate"], RECORD[3:]):
        with pytest.raises(ValueError, match=r"Nobody moves the arms \['main'\]"):
            run(*alone, *control)
    with pytest.raises(ValueError, match="no follower arm"):
        run(*alone, "--robot.follower_arms={}", "--control.type=teleoperate")


@pytest.mark.parametrize("calibrating", [True, False])
def test_mock_motors_never_write_where_real_arms_have_their_calibration(tmp_path, monkeypatch, calibrating):
    monkeypatch.setattr(configs, "HF_LEROBOT_CALIBRATION", tmp_path)
    monkeypatch.setattr("builtins.input", lambda prompt: "")
    monkeypatch.chdir(tmp_path)
    mock = ["--robot.type=koch", "--robot.mock=true", "--robot.cameras={}", "--robot.supervise=false"]
    control = "calibrate" if calibrating else "teleoperate"
    run(*mock, f"--control.type={control}", *([] if calibrating else ["--control.teleop_time_s=0.1"]))
    assert not list(tmp_path.rglob("*.json"))
    run(*mock, "--control.type=calibrate", f"--robot.calibration_dir={tmp_path / 'own'}")
    assert {path.name for path in (tmp_path / "own").iterdir()} == {"main_follower.json", "main_leader.json"}


def test_legacy_flags_have_their_defaults():
    control = parse_control([*SIM, "--control.type=record", "--control.repo_id=a/b", "--control.single_task=t"]).control
    assert (control.warmup_time_s, control.episode_time_s, control.reset_time_s) == (10, 60, 60)
    assert control.num_episodes == 50 and control.video and control.push_to_hub
    assert not control.resume and control.policy is None


def test_the_log_line_of_lerobot_0_1(robot, caplog):
    robot.teleop_step()
    assert set(robot.logs) == {"read_leader_main_pos_dt_s", "write_follower_main_goal_pos_dt_s"}
    robot.logs = {"read_leader_main_pos_dt_s": 0.002, "write_follower_main_goal_pos_dt_s": 0.05}
    with caplog.at_level(logging.INFO):
        control_utils.log_control_info(robot, 0.0333, episode_index=1, frame_index=2, fps=30)
    slow = "\x1b[33mdtWfoll:50.00 (20.0hz)\x1b[0m"
    assert caplog.messages[-1] == f"ep:1 frame:2 dt:33.30 (30.0hz) dtRlead: 2.00 (500.0hz) {slow}"


def test_the_sentence_of_a_simulated_layout_is_held_against_those_of_the_training(robot):
    rows, findings = preflight(robot, Plan(task="scene", known_tasks=[robot.task]))
    assert ("task", robot.task) in rows and "robot.task" not in {finding.code for finding in findings}
    _, findings = preflight(robot, Plan(task="Fold a towel.", known_tasks=[robot.task]))
    assert "robot.task" in {finding.code for finding in findings}


@pytest.mark.parametrize(
    ("info", "seed"),
    [
        ({"sim": True, "simulation": {"seed": 7}}, 7),
        ({"sim": {"seed": 7}}, 7),
        ({"sim": {"seed0": 0}}, 0),
        ({"sim": True}, None),
        ({}, None),
    ],
)
def test_a_replay_finds_the_layout_of_recordings_of_every_age(info, seed):
    assert recording._first_seed(info) == seed
