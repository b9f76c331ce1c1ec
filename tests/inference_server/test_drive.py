"""A simulated arm that is moved over the network: what moves it, and what happens when the server does not."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

pytest.importorskip("zmq")
pytest.importorskip("msgpack")
pytest.importorskip("mujoco")

from lerobot.common.inference_server import drive
from lerobot.common.inference_server.client import ServerError
from lerobot.common.inference_server.configs import OF_SERVER, PolicyServerConfig, without_foreign_flags
from lerobot.common.inference_server.planner import Plan
from lerobot.scripts import robot_client as script
from lerobot.scripts.robot_client import RobotClient, parse, robot_client
from tests.inference_server.counting import Counting

LONGEST_S = 60  # that anything may take on a busy machine
SIM = ["--robot.type=koch_sim", "--robot.time=lockstep", "--robot.supervise=false", "--robot.cameras={}"]


class Waving(Counting):
    """Moves the first joint by `step` degrees per action, from where it is; `fail` is called before."""

    def __init__(self, step: float = 0.5, fail=None):
        super().__init__()
        self.step, self.fail, self.options = step, fail, []

    def plan(self, observation, task, robot_type, options):
        self.seen.append(task)
        self.options.append(options)
        if self.fail is not None:
            self.fail(len(self.seen))
        steps = np.zeros((10, 6), np.float32)
        steps[:, 0] = self.step * np.arange(1, 11)
        return Plan(observation["observation.state"][-1] + steps)


@pytest.fixture
def client_for():
    clients = []

    def make(address: str, *flags: str) -> RobotClient:
        clients.append(RobotClient(parse([*SIM, f"--server_address={address}", *flags])))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """In lockstep no time passes while a chunk is awaited, so a busy machine changes nothing."""
    monkeypatch.setattr(script, "QUICK", 30 * LONGEST_S)
    monkeypatch.setattr(drive, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(drive, "LONGEST_PAUSE_S", 0.01)


def until(done) -> None:
    end = time.monotonic() + LONGEST_S
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def record_commands(robot) -> list[np.ndarray]:
    sent, send = [], robot.send_action

    def recording(action):
        sent.append(np.array(send(action)))
        return action

    robot.send_action = recording
    return sent


def test_a_policy_on_a_server_moves_the_arm_and_the_run_is_reported(serve, tmp_path):
    planner = Waving()
    report = tmp_path / "run.json"
    server = serve(planner)
    flags = ["--task=wave", "--duration_s=2", "--player=sync", f"--deadline_s={LONGEST_S}", f"--report={report}"]
    numbers = robot_client(parse([*SIM, f"--server_address={server.address}", *flags]))
    assert set(planner.seen) == {"wave"} and len(planner.seen) > 2
    assert numbers == json.loads(report.read_text())
    assert numbers["ticks"] == 60 and numbers["lost_requests"] == 0 and numbers["latency"]["transport"]["n"] > 0
    until(lambda: not server.clients)  # it said goodbye


def test_async_chunks_of_a_run_are_asked_for_with_the_noise_of_their_ticks(serve, client_for):
    planner = Waving()
    client = client_for(serve(planner).address, "--player=async", "--duration_s=2", f"--deadline_s={LONGEST_S}")
    client.prepare()
    tried = len(planner.options)
    client.run()
    noise = [options["noise"] for options in planner.options[tried:]]
    assert len({one["seed"] for one in noise}) == 1 and noise[0]["first"] == 0 < noise[-1]["first"] <= 60


def test_a_lost_server_makes_the_arm_hold_and_then_land_with_torque_off(serve, client_for):
    server = serve(Waving())
    flags = ("--player=sync", f"--deadline_s={LONGEST_S}", "--land_after_s=1", "--duration_s=60")
    client = client_for(server.address, *flags)
    client.prepare()
    robot = client.robot
    rest, sent = robot.resting["main"].copy(), record_commands(robot)
    capture = robot.capture_observation

    def capturing():
        if sent and abs(sent[-1][0] - rest[0]) > 3:
            server.close()
            client.remote.deadline_s, client.planner.patience_s = 0.1, 0.0
        return capture()

    robot.capture_observation = capturing
    with pytest.raises(ServerError, match="landed"):
        client.run()
    held = np.array(sent[-20:])
    assert np.abs(held - held[-1]).max() < 1e-3 and abs(held[-1, 0] - rest[0]) > 2  # it held, away from its rest
    glide, end = robot.glide, []
    robot.glide = lambda *way: (glide(*way), end.append(robot.follower_arms["main"].read("Present_Position")))
    client.close()
    assert np.abs(end[0] - rest).max() < 6


def test_chunks_that_jump_and_chunks_that_are_no_numbers_stay_inside_the_envelope(serve, client_for):
    def fail(count: int) -> None:
        if count % 3 == 0:
            raise ArithmeticError("diverged")

    server = serve(Waving(step=80.0, fail=fail))
    client = client_for(
        server.address, "--player=sync", "--duration_s=2", "--land_after_s=30", f"--deadline_s={LONGEST_S}"
    )
    client.prepare()
    sent = record_commands(client.robot)
    client.run()
    limits = client.robot.envelopes["main"].limits
    speed = np.abs(np.diff(np.array(sent), axis=0)) * 30
    assert (speed <= np.array(limits.speed) * 1.01).all()
    assert (np.array(sent) <= np.array(limits.high) + 1e-3).all()
    client.close()


def test_a_first_action_far_away_is_approached_slowly_although_the_arm_held_before(serve, client_for):
    def fail(count: int) -> None:
        if 2 < count < 15:  # after the two that are tried out
            raise ArithmeticError("diverged")

    server = serve(Waving(step=100.0, fail=fail))
    client = client_for(server.address, "--duration_s=3", "--player=sync", f"--deadline_s={LONGEST_S}")
    client.prepare()
    sent = record_commands(client.robot)
    numbers = client.run()
    ramp, moved = client.robot.envelope_config.ramp_speed, np.array(sent)
    assert numbers["lost_requests"] == 12 and np.ptp(moved[:12], axis=0).max() < 1e-3  # held
    assert np.abs(moved[-1] - moved[0]).max() > 5 and np.abs(np.diff(moved, axis=0)).max() * 30 < ramp + 1


def test_nothing_is_energised_when_the_server_does_not_answer_or_refuses(serve, client_for, capsys):
    client = client_for("127.0.0.1:9", "--deadline_s=0.3")
    with pytest.raises(ValueError, match="torque was not switched on"):
        client.prepare()
    assert client.robot.twin.ask("state")["torque"][:6] == [False] * 6
    client.close()
    assert "policy_server.py" in capsys.readouterr().out
    refusing = client_for(serve().address, "--checkpoint=other")
    with pytest.raises(ValueError, match="torque"):
        refusing.prepare()
    assert "Served are default" in capsys.readouterr().out
    refusing.close()


def test_flags_of_lerobot_work_here(caplog):
    documented = ["--policy_type=act", "--policy_device=mps", "--client_device=cpu", "--actions_per_chunk=5"]
    documented += ["--chunk_size_threshold=0.5", "--aggregate_fn_name=weighted_average"]
    cfg = parse([*SIM, *documented, "--debug_visualize_queue_size=True"])
    assert (cfg.actions_per_chunk, cfg.chunk_size_threshold, cfg.policy_type) == (5, 0.5, "act")
    assert cfg.blend()(3).tolist() == pytest.approx([0.3] * 3)
    for name in ("policy_device", "client_device", "debug_visualize_queue_size"):
        assert f"--{name} has no effect here" in caplog.text
    server = ["--fps=30", "--inference_latency=0.033", "--obs_queue_timeout=2", "--port=9000"]
    assert without_foreign_flags(server, OF_SERVER) == ["--port=9000"]


def test_a_robot_can_be_named_as_in_newer_releases():
    cameras = "--robot.cameras={ top: {type: opencv, index_or_path: 1, width: 640, height: 480, fps: 30}}"
    robot = parse(["--robot.type=koch_follower", "--robot.port=/dev/ttyACM0", "--robot.id=black", cameras]).robot
    assert (robot.follower_port, robot.leader_arms, robot.cameras["top"].camera_index) == ("/dev/ttyACM0", {}, 1)
    for wrong in ("--robot.type=so100_follower", "--robot.cameras=top", "--robot.cameras={top: 1}"):
        with pytest.raises(ValueError, match="--robot.*expected"):
            parse(["--robot.type=koch", wrong])


def test_a_client_that_would_choose_the_checkpoint_is_refused_and_so_are_wrong_flags():
    with pytest.raises(ValueError, match="policy_server.py"):
        parse([*SIM, "--pretrained_name_or_path=evil/checkpoint"])
    with pytest.raises(ValueError, match="Nothing to serve"):
        PolicyServerConfig()
    wrong = ("player=fast", "server_address=here", "server_address=here:70000", "jpeg_quality=200", "fade=-1")
    wrong += ("actions_per_chunk=0", "chunk_size_threshold=2", "aggregate_fn_name=median", "deadline_s=0")
    for flag in wrong:
        with pytest.raises(ValueError, match=f"--{flag.partition('=')[0]}.*expected"):
            parse([*SIM, f"--{flag}"])
    with pytest.raises(ValueError, match="for --player=async"):
        parse([*SIM, "--aggregate_fn_name=average", "--player=rtc"])


def test_a_server_with_another_type_of_policy_is_refused_before_torque_is_on(serve, client_for, capsys):
    client = client_for(serve().address, "--policy_type=act")
    with pytest.raises(ValueError, match="torque"):
        client.prepare()
    assert "is of type counting, --policy_type=act" in capsys.readouterr().out


def test_lerobots_module_names_lead_here():
    from lerobot.async_inference.configs import RobotClientConfig
    from lerobot.async_inference.policy_server import serve as served
    from lerobot.async_inference.robot_client import RobotClient as client

    from lerobot.scripts.policy_server import serve

    assert served is serve and client is RobotClient and isinstance(parse(SIM), RobotClientConfig)
