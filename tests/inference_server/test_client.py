"""What a client does when the server lies, is slow, or sends rubbish."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

pytest.importorskip("zmq")
pytest.importorskip("msgpack")

import zmq

from lerobot.common.inference_server import wire
from lerobot.common.inference_server.client import RefusedError, ServerError
from lerobot.common.inference_server.zeromq import make_context
from tests.inference_server.fuzz import malformed

OBSERVATION = {"observation.state": torch.zeros(6)}
WELCOME = {
    "checkpoint": "default",
    "policy": "act",
    "inputs": {"observation.state": [6]},
    "history": 1,
    "actions": 6,
    "steps": 10,
    "rtc": False,
    "findings": [],
}


class Liar:
    """Answers like a server, except to an observation: that gets whatever `answers` yields."""

    def __init__(self, answers, welcome: dict | None = None):
        self.answers, self.welcome = iter(answers), {**WELCOME, **(welcome or {})}
        self.context = make_context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.address = f"127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        try:
            self._answer()
        finally:
            self.context.destroy(0)

    def _answer(self) -> None:
        while not self.stopping.is_set():
            if not self.socket.poll(50):
                continue
            peer, data = self.socket.recv_multipart()
            kind, fields = wire.decode(data)
            if kind == "hello":
                self.socket.send_multipart([peer, wire.encode("welcome", **self.welcome)])
            elif kind == "ping":
                self.socket.send_multipart([peer, wire.encode("pong", sequence=fields["sequence"])])
            elif kind == "observe" and (answer := next(self.answers, None)) is not None:
                self.socket.send_multipart([peer, answer(fields["sequence"]) if callable(answer) else answer])

    def close(self) -> None:
        self.stopping.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def lie(connect):
    liars = []

    def start(answers, welcome: dict | None = None, **options):
        liars.append(Liar(answers, welcome))
        return connect(liars[-1].address, **options)

    yield start
    for liar in liars:
        liar.close()


def chunk(actions: np.ndarray):
    return lambda sequence: wire.encode("chunk", sequence=sequence, actions=actions, planned=None, milliseconds={})


def test_chunks_of_another_width_type_length_or_age_are_not_used(lie):
    wrong = [
        chunk(np.zeros((10, 7), np.float32)),
        chunk(np.zeros(6, np.float32)),
        chunk(np.zeros((10, 6), np.int64)),
        chunk(np.zeros((5000, 6), np.float32)),
        wire.encode("bye"),
        b"\x80\x04K\x01.",
    ]
    client = lie([*wrong, chunk(np.ones((10, 6), np.float32))])
    client.connect()
    for _ in wrong:
        with pytest.raises(ServerError):
            client.request_chunk(OBSERVATION)
    assert client.request_chunk(OBSERVATION).eq(1).all()


def test_an_answer_to_an_earlier_observation_is_passed_over(lie):
    late = [lambda sequence: wire.encode("chunk", sequence=sequence - 1, actions=np.ones((10, 6), np.float32),
                                         planned=None, milliseconds={})]  # fmt: skip
    client = lie(late)
    client.connect()
    client.deadline_s = 0.5
    with pytest.raises(ServerError, match="did not answer within 0.5 s"):
        client.request_chunk(OBSERVATION)


def test_an_answer_that_takes_longer_than_time_allows_is_not_used(lie):
    now = [0.0]

    def jump(sequence):
        now[0] -= 100.0
        return chunk(np.ones((10, 6), np.float32))(sequence)

    client = lie([jump], now=lambda: now[0])
    client.connect()
    with pytest.raises(ServerError, match="clock jumped"):
        client.request_chunk(OBSERVATION)


def test_a_server_with_another_number_of_joints_is_refused_at_connect(lie):
    with pytest.raises(RefusedError, match="7 joints"):
        lie([], {"actions": 7}).connect()


@pytest.mark.parametrize("inputs", [{"observation.images.top": [48, 64, 3]}, {"observation.state": [7]}])
def test_a_server_that_asks_for_what_the_robot_has_not_is_refused_at_connect(lie, inputs):
    with pytest.raises(RefusedError, match="looks at observation"):
        lie([], {"inputs": inputs}).connect()


def test_what_a_server_says_cannot_command_the_terminal(lie):
    said = {"sequence": 1, "code": "busy", "message": "no\x1b]0;title\x07\nERROR forged\u202e", "findings": []}
    client = lie([wire.encode("refused", **said)])
    with pytest.raises(RefusedError) as refused:
        client.request_chunk(OBSERVATION)
    assert str(refused.value) == "no ]0;title  ERROR forged "


@pytest.mark.parametrize("milliseconds", [-1.0, 1e300])
def test_times_that_cannot_be_are_not_counted(lie, milliseconds):
    answer = {"actions": np.ones((10, 6), np.float32), "planned": None, "milliseconds": {"model": milliseconds}}
    client = lie([lambda sequence: wire.encode("chunk", sequence=sequence, **answer)])
    with pytest.raises(ServerError, match="milliseconds"):
        client.request_chunk(OBSERVATION)


def test_malformed_answers_are_errors_and_nothing_else(lie):
    answers = list(malformed(150, seed=2))
    client = lie(answers, deadline_s=0.3)
    for _ in answers:
        with pytest.raises(ServerError):
            client.request_chunk(OBSERVATION)
