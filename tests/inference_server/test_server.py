"""Server and client over a real connection on this machine."""

from __future__ import annotations

import gc
import pickle
import socket as sockets
import threading

import numpy as np
import pytest
import torch

pytest.importorskip("zmq")
pytest.importorskip("msgpack")

from lerobot.common.inference_server import wire
from lerobot.common.inference_server.client import RefusedError, RemotePolicy, ServerError
from lerobot.common.inference_server.planner import Plan
from lerobot.common.inference_server.server import LEASE_S, PolicyServer
from tests.inference_server.counting import CAMERA, Counting, describe

TOKEN = "a token of enough length"


def observation(value: float = 0.0, **more) -> dict:
    return {"observation.state": torch.full((6,), value), **more}


def test_a_chunk_comes_back_for_the_observation_that_was_sent(serve, connect):
    client = connect(serve().address)
    assert client.connect() == []
    chunk = client.request_chunk(observation(3.0))
    assert chunk.shape == (10, 6) and chunk.dtype == torch.float32
    torch.testing.assert_close(chunk[:, 0], 3.0 + torch.arange(10) / 10)


@pytest.mark.parametrize("quality", [0, 90])
def test_pictures_arrive_raw_or_as_jpeg(serve, connect, quality):
    planner = Counting(picture=(48, 64, 3))
    client = connect(serve(planner).address, robot=describe(cameras={CAMERA: [48, 64, 3]}), quality=quality)
    client.connect()
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, 32:, 0] = 200  # red on the right
    client.request_chunk(observation(**{CAMERA: torch.from_numpy(picture)}))
    seen = planner.seen[0][0][CAMERA]
    assert seen.shape == (1, 48, 64, 3) and seen.dtype == np.uint8
    assert np.abs(seen[0].astype(int) - picture).mean() <= (2 if quality else 0)


def test_a_policy_with_history_gets_every_frame_and_the_first_one_twice(serve, connect):
    planner = Counting(history=3)
    client = connect(serve(planner).address)
    client.connect()
    client.observe(observation(1.0))
    client.request_chunk(observation(2.0))
    assert planner.seen[0][0]["observation.state"][:, 0].tolist() == [1.0, 1.0, 2.0]
    client.reset()
    client.request_chunk(observation(5.0))
    assert planner.seen[1][0]["observation.state"][:, 0].tolist() == [5.0, 5.0, 5.0]


def test_two_arms_are_served_and_a_second_client_of_one_arm_is_refused(serve, connect):
    now = [0.0]
    server = serve(now=lambda: now[0])
    one, two, third = connect(server.address), connect(server.address, ["pi:b"]), connect(server.address, ["x", "pi:b"])
    one.connect()
    two.connect()
    assert one.request_chunk(observation(1.0))[0, 0] == 1 and two.request_chunk(observation(2.0))[0, 0] == 2
    with pytest.raises(RefusedError, match="one client per arm"):
        third.connect()
    now[0] = LEASE_S + 1  # the second one fell silent
    third.connect()
    with pytest.raises(ServerError, match="say hello"):
        two.request_chunk(observation())
    with pytest.raises(RefusedError, match="one client per arm"):  # it connects anew, and the arm is taken
        two.request_chunk(observation())


def test_a_client_that_left_frees_its_arm(serve, connect):
    server = serve()
    with RemotePolicy(server.address, describe(), ["a"]) as first:
        first.connect()
    connect(server.address, ["a"]).connect()


def test_only_the_right_token_connects_and_without_one_only_this_machine_is_served(serve, connect):
    server = serve(token=TOKEN)
    good = connect(server.address, token=TOKEN)
    good.connect()
    assert good.request_chunk(observation()).shape == (10, 6)
    for token in ("another token of enough length", None):
        with pytest.raises(ServerError, match="token|answers"):
            connect(server.address, token=token, deadline_s=1.0).connect()
    with pytest.raises(ValueError, match="token_file"):
        PolicyServer({"default": Counting()}, host="0.0.0.0", port=0)
    with pytest.raises(ValueError, match="token_file"):
        RemotePolicy("10.0.0.1:8080", describe(), ["a"])
    assert server.clients and len(server.clients) == 1


def test_features_that_do_not_match_are_refused_with_the_servers_findings(serve, connect):
    server = serve(Counting(picture=(48, 64, 3)))
    client = connect(server.address, robot=describe(cameras={CAMERA: [24, 64, 3]}))
    with pytest.raises(RefusedError, match="does not fit") as refused:
        client.connect()
    assert refused.value.findings[0].code == "robot.policy.picture_size" and refused.value.findings[0].fix


def test_a_check_that_fails_refuses_its_client_only(serve, connect):
    planner = Counting()
    server = serve(planner)
    check, planner.check = planner.check, lambda *_: 1 / 0
    with pytest.raises(ServerError, match="division"):
        connect(server.address).connect()
    planner.check = check
    connect(server.address).connect()


@pytest.mark.parametrize("change", [{"low": [0.0]}, {"joints": []}, {"cameras": {CAMERA: [48, 64]}}, {"fps": "30"}])
def test_a_robot_that_describes_itself_wrongly_is_refused(serve, connect, change):
    with pytest.raises(RefusedError, match="robot"):
        connect(serve().address, robot=describe(**change)).connect()


def test_a_picture_of_another_size_than_announced_is_refused(serve, connect):
    planner = Counting(picture=(48, 64, 3))
    client = connect(serve(planner).address, robot=describe(cameras={CAMERA: [48, 64, 3]}))
    client.connect()
    small = torch.zeros(24, 64, 3, dtype=torch.uint8)
    with pytest.raises(RefusedError, match="announced"):
        client.request_chunk(observation(**{CAMERA: small}))
    assert not planner.seen


def test_another_version_is_refused_with_a_message_that_names_both(serve, connect):
    client = connect(serve().address)
    client._open()
    with pytest.raises(RefusedError, match=f"version 9 of the protocol, this one {wire.VERSION}"):
        client._ask(wire.PREFIX.pack(wire.MAGIC, 9) + b"\x80", "welcome", None)


def test_a_clock_that_jumps_is_noticed_before_anything_moves(serve, connect):
    client = connect(serve().address, now=iter([0.0, 100.0]).__next__)
    with pytest.raises(ServerError, match="clock"):
        client.connect()


def test_a_pickle_is_refused_and_not_run(serve, connect, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    client = connect(serve().address)
    client._open()
    for protocol in range(6):
        with pytest.raises(RefusedError, match="Pickles"):
            client._ask(pickle.dumps(Evil(), protocol), "welcome", None)
    assert not (tmp_path / "ran").exists()


def test_the_rest_of_a_chunk_reaches_only_a_policy_that_can_continue_one(serve, connect):
    planner, seen = Counting(), []
    rest = {"inference_delay": 2, "prev_chunk_left_over": np.ones((1, 5, 6), np.float32), "execution_horizon": 4}
    client = connect(serve(planner).address)
    client.connect()
    with pytest.raises(RefusedError, match="cannot continue"):
        client.request(client.observe(observation()), rest)
    planner.rtc = True
    plan = planner.plan
    planner.plan = lambda *words: (seen.append(words[3]), plan(*words))[1]
    with pytest.raises(RefusedError, match="rest of a chunk"):
        client.request(client.observe(observation()), {**rest, "prev_chunk_left_over": np.ones((5, 6), np.float32)})
    client.request(client.observe(observation()), rest)
    np.testing.assert_array_equal(seen[0]["prev_chunk_left_over"], rest["prev_chunk_left_over"])
    assert (seen[0]["inference_delay"], seen[0]["execution_horizon"]) == (2, 4)


def test_what_is_no_zeromq_and_what_is_too_large_ends_its_own_connection_only(serve, connect):
    server = serve()
    host, _, port = server.address.rpartition(":")
    with sockets.create_connection((host, int(port)), timeout=10) as link:
        link.sendall(b"GET / HTTP/1.1\r\n\r\n" + b"\xff" * 4096)
    client = connect(server.address)
    client.connect()
    client._socket.send(b"\0" * (wire.TO_SERVER + 1))
    other = connect(server.address, ["other"])
    other.connect()
    assert other.request_chunk(observation()).shape == (10, 6)


def test_the_newest_observation_wins_while_the_model_is_busy():
    server = PolicyServer({"default": Counting()}, port=0)
    hello = {"client": "me", "arms": ["a"], "checkpoint": "", "task": "", "robot": describe()}
    server._hello(b"peer", hello)
    for sequence in (1, 2, 3):  # nothing computes yet
        state = {"observation.state": [np.zeros(6, np.float32)]}
        more = {"continues": None, "noise": None}
        server._observe(b"peer", {"sequence": sequence, "task": "", "observation": state, **more})
    assert [work.sequence for work in server._waiting.values()] == [3] and server.superseded == 2
    server.close()


def test_a_policy_that_fails_or_plans_nonsense_is_told_and_the_server_goes_on(serve, connect):
    planner = Counting()
    client = connect(serve(planner).address)
    client.connect()
    plan = planner.plan
    planner.plan = lambda *_: 1 / 0
    with pytest.raises(ServerError, match="division"):
        client.request_chunk(observation())
    planner.plan = lambda *_: Plan(np.full((3, 6), np.nan, np.float32))
    with pytest.raises(ServerError, match="NaN"):
        client.request_chunk(observation())
    planner.plan = plan
    assert client.request_chunk(observation()).shape == (10, 6)


def test_a_client_finds_a_server_that_was_started_again(serve, connect):
    first = serve()
    client = connect(first.address)
    client.connect()
    port = int(first.address.rpartition(":")[2])
    first.close()
    patience, client.deadline_s = client.deadline_s, 0.5
    with pytest.raises(ServerError):
        client.request_chunk(observation())
    serve(port=port)
    client.deadline_s = patience
    assert client.request_chunk(observation(1.0))[0, 0] == 1


@pytest.mark.parametrize("address", ["127.0.0.1:x", "no such host:1"])
def test_an_address_that_is_none_is_refused_and_the_client_can_be_closed(connect, address):
    client = connect(address, token=TOKEN)
    with pytest.raises(RefusedError, match="--server_address.*HOST:PORT"):
        client.connect()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_server_closes_although_its_policy_computes_and_drops_that_chunk(serve, connect, monkeypatch):
    monkeypatch.setattr("lerobot.common.inference_server.server.HAND_OVER_MS", 10)
    planner, begun, may_end = Counting(), threading.Event(), threading.Event()
    plan = planner.plan
    planner.plan = lambda *words: (begun.set(), may_end.wait(60), plan(*words))[2]
    server = serve(planner)
    talks, computes = server._threads
    client = connect(server.address)
    client.connect()
    client.deadline_s = 0.1
    with pytest.raises(ServerError):
        client.request_chunk(observation())
    assert begun.wait(60)
    monkeypatch.setattr("lerobot.common.inference_server.server.CLOSE_S", 0.01)
    server.close()
    talks.join(60)
    may_end.set()
    computes.join(60)
    assert not talks.is_alive() and not computes.is_alive() and server._socket.closed


def test_a_client_and_a_server_that_were_forgotten_are_garbage_that_nothing_waits_for(serve):
    def forget() -> None:
        client = RemotePolicy(serve().address, describe(), ["a"], deadline_s=60.0)
        client.connect()
        server = PolicyServer({"default": Counting()}, port=0)
        client.itself, server.itself = client, server  # a cycle, as a traceback makes one

    forget()
    collecting = threading.Thread(target=gc.collect, daemon=True)
    collecting.start()
    collecting.join(60)
    assert not collecting.is_alive()
