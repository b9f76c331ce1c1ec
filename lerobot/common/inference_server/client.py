"""The robot's end of the connection: `RemotePolicy.request_chunk(observation)` gives a chunk in the robot's units.

Every wait has a deadline, measured on the monotonic clock, and everything that comes back is checked before it is
handed on. After a failure the connection is made anew, so that no late answer of the old one is ever used.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from lerobot.common.checks.finding import Finding
from lerobot.common.constants import OBS_STATE
from lerobot.common.inference_server import pictures, wire
from lerobot.common.inference_server.keys import derive_keys, require_token
from lerobot.common.inference_server.zeromq import import_zmq, make_context

LONGEST_CHUNK = 1000
PINGS, SLOWEST_PING_S = 3, 1.0


class ServerError(ConnectionError):
    """The server is lost, slow, or answers what cannot be used; `findings` is what it said about the robot."""

    def __init__(self, message: str, findings: list[Finding] | None = None):
        super().__init__(message)
        self.findings = findings or []


class RefusedError(ServerError):
    """The server refused, for a reason that trying again does not change."""


class RemotePolicy:
    """A policy on another machine.

    `robot` and `arms` are `handshake.describe_robot` and `name_arms`; `quality` is that of JPEG pictures, 0 sends them
    raw; `now` is the clock that answers are held against. Raises ValueError for another machine's address without a
    token. Nothing is sent before `connect`.
    """

    def __init__(
        self,
        address: str,
        robot: dict,
        arms: list[str],
        *,
        checkpoint: str = "",
        task: str = "",
        token: str | None = None,
        quality: int = pictures.QUALITY,
        deadline_s: float = 2.0,
        now: Callable[[], float] = time.monotonic,
    ):
        require_token(address.rpartition(":")[0], token, "--server_address")
        self.address, self.robot, self.arms = address.replace("localhost", "127.0.0.1"), robot, arms
        self.checkpoint, self.task, self.quality, self.deadline_s = checkpoint, task, quality, deadline_s
        self.name = f"{platform.node()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.welcome: dict[str, Any] | None = None
        self._zmq, self._now, self._sequence = import_zmq(), now, 0
        self._keys = derive_keys(token) if token else None
        self._context, self._socket = make_context(), None
        self._history: deque[Mapping] = deque(maxlen=1)
        self._lock = threading.Lock()  # one request at a time, from whichever thread

    # -- connection ----------------------------------------------------------------------------------------------

    def connect(self) -> list[Finding]:
        """Say hello and compare robot and checkpoint; returns what the server remarks.

        Raises RefusedError (wrong token or version, robot does not fit, arm in use) and ServerError (no answer, or a
        clock that jumps); the arm was not touched.
        """
        with self._lock, self._dropping():
            return self._connect()

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        """After a failure the connection is made anew: a late answer of the old one is never used."""
        try:
            yield
        except ServerError:
            self._drop()
            raise

    def _connect(self) -> list[Finding]:
        self._open()
        hello = wire.encode(
            "hello", client=self.name, arms=self.arms, checkpoint=self.checkpoint, task=self.task, robot=self.robot
        )
        welcome = self._ask(hello, "welcome", None)
        self._require_fit(welcome)
        self._check_clock()
        self.welcome = welcome
        if self._history.maxlen != welcome["history"]:
            self._history = deque(maxlen=welcome["history"])
        return wire.findings_from_wire(welcome["findings"])

    def _require_fit(self, welcome: dict[str, Any]) -> None:
        """RefusedError unless what the server says of its policy is what this robot has; servers are not believed."""
        joints, cameras = len(self.robot["joints"]), self.robot["cameras"]
        if welcome["actions"] != joints:
            raise RefusedError(f"The server plans {welcome['actions']} joints, the robot has {self.robot['joints']}.")
        has = {OBS_STATE: [joints], **cameras}
        wrong = [f"{key} {shape}" for key, shape in welcome["inputs"].items() if has.get(key) != shape]
        if wrong:
            raise RefusedError(f"The server's policy looks at {', '.join(wrong)}; the robot has {has}.")

    def _open(self) -> None:
        self._drop()
        zmq = self._zmq
        socket = self._socket = self._context.socket(zmq.DEALER)
        socket.linger, socket.immediate, socket.maxmsgsize = 0, True, wire.TO_CLIENT
        socket.rcvhwm = socket.sndhwm = 4
        socket.setsockopt(zmq.HANDSHAKE_IVL, 2000)
        if self._keys is not None:
            socket.curve_serverkey = self._keys.server_public
            socket.curve_publickey, socket.curve_secretkey = self._keys.client_public, self._keys.client_secret
        events = socket.get_monitor_socket()
        try:
            self._connect_socket(socket)
            self._await_handshake(events)
        finally:
            socket.disable_monitor()
            events.close(0)

    def _connect_socket(self, socket) -> None:
        try:
            socket.connect(f"tcp://{self.address}")
        except self._zmq.ZMQError as e:
            raise RefusedError(f"--server_address={self.address}: {e}; expected HOST:PORT.") from None

    def _await_handshake(self, events) -> None:
        from zmq.utils.monitor import recv_monitor_message

        zmq, end, connected = self._zmq, time.monotonic() + self.deadline_s, False
        refusals = (zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
        while (left := end - time.monotonic()) > 0:
            if not events.poll(left * 1000):
                break
            event = recv_monitor_message(events)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return
            connected |= event == zmq.EVENT_CONNECTED
            if event in refusals or (connected and event in (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED)):
                # A server that answered before is being started or stopped: that is worth another try.
                raise (RefusedError if self.welcome is None else ServerError)(
                    f"{self.address} does not accept the connection: another token (--token_file), or no policy server."
                )
        raise ServerError(
            f"No policy server answers at {self.address} (--server_address); start policy_server.py there."
        )

    def _check_clock(self) -> None:
        for index in range(PINGS):
            start = self._now()
            self._ask(wire.encode("ping", sequence=index), "pong", index)
            took = self._now() - start
            if not 0 <= took < SLOWEST_PING_S:
                raise ServerError(f"A round trip took {took:.2f} s: the clock of this machine jumps, or the network.")

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close(0)
            self._socket = None

    def close(self) -> None:
        """Leave the server."""
        with self._lock:
            if self._socket is not None and self.welcome is not None:
                try:
                    self._socket.linger = 200
                    self._socket.send(wire.encode("bye"), self._zmq.NOBLOCK)
                    self._socket.close()
                    self._socket = None
                except self._zmq.ZMQError:
                    logging.debug("The server is gone already.")
            self._drop()
            self._context.destroy(0)

    def __enter__(self) -> RemotePolicy:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    # -- chunks --------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """A new episode begins: earlier observations are forgotten."""
        self._history.clear()

    def observe(self, observation: Mapping[str, torch.Tensor]) -> list[Mapping]:
        """Remember an observation; returns all that the policy looks at, the newest last."""
        if not self._history or self._history[-1] is not observation:
            self._history.append(observation)
        return list(self._history)

    def request_chunk(self, observation: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The chunk float32 (T, A) for an observation: state float32 (S,), pictures uint8 (H, W, 3); ServerError."""
        return torch.from_numpy(self.request(self.observe(observation))["actions"].copy())

    def request(
        self, frames: list[Mapping], continues: dict[str, Any] | None = None, noise: dict[str, int] | None = None
    ) -> dict[str, Any]:
        """The chunk for observations, the newest last, as `wire.KINDS["chunk"]` with the milliseconds of all stages.

        `continues` and `noise` are the fields of `wire.CONTINUED` and `wire.NOISE`. Connects again if the connection
        was lost.
        """
        with self._lock, self._dropping():
            if self._socket is None:
                self._connect()
            return self._request(frames, continues, noise)

    def _request(self, frames: list[Mapping], continues: dict | None, noise: dict | None) -> dict[str, Any]:
        self._sequence += 1
        start = self._now()
        message = wire.encode(
            "observe",
            sequence=self._sequence,
            task=self.task,
            observation=self._encode(frames),
            continues=continues,
            noise=noise,
        )
        encoded = self._now()
        answer = self._ask(message, "chunk", self._sequence)
        took = self._now() - encoded
        if not 0 <= took <= self.deadline_s + 1:
            raise ServerError(f"An answer took {took:.2f} s of {self.deadline_s}: the clock jumped; it is not used.")
        self._require_chunk(answer["actions"], answer["planned"])
        spent = answer["milliseconds"]
        answer["milliseconds"] = {
            "encode": (encoded - start) * 1e3,
            "transport": took * 1e3 - sum(spent.values()),
            **spent,
        }
        return answer

    def _require_chunk(self, actions: np.ndarray, planned: np.ndarray | None) -> None:
        width = self.welcome["actions"]
        if actions.dtype != np.float32 or actions.ndim != 2 or actions.shape[1] != width:
            raise ServerError(f"The server sent actions {actions.dtype} {actions.shape}; expected (T, {width}).")
        if len(actions) > LONGEST_CHUNK:
            raise ServerError(f"The server sent {len(actions)} actions; at most {LONGEST_CHUNK} are taken.")
        if planned is not None and (planned.dtype != np.float32 or planned.shape != (1, *actions.shape)):
            raise ServerError(f"The server sent a plan {planned.shape} to actions {actions.shape}.")

    def _encode(self, frames: list[Mapping]) -> dict[str, list]:
        count = self.welcome["history"]
        frames = [frames[0]] * (count - len(frames)) + frames[-count:]  # at the start there is no earlier one
        observation = {}
        for key in self.welcome["inputs"]:
            values = [np.asarray(frame[key]) for frame in frames]
            jpeg = self.quality and key in self.robot["cameras"]
            observation[key] = [pictures.encode(value, self.quality) if jpeg else value for value in values]
        return observation

    def _ask(self, message: bytes, kind: str, sequence: int | None) -> dict[str, Any]:
        """Send, and wait for the answer of that kind and sequence; earlier ones that arrive late are dropped."""
        zmq, end = self._zmq, time.monotonic() + self.deadline_s
        try:
            self._socket.send(message, zmq.NOBLOCK)
        except zmq.ZMQError:
            raise ServerError(f"The connection to {self.address} is lost.") from None
        while (left := end - time.monotonic()) > 0:
            if not self._socket.poll(left * 1000):
                break
            fields = self._understand(self._socket.recv_multipart(), kind)
            if sequence is None or fields["sequence"] == sequence:
                return fields
        raise ServerError(f"The server at {self.address} did not answer within {self.deadline_s} s.")

    def _understand(self, parts: list[bytes], expected: str) -> dict[str, Any]:
        try:
            if len(parts) != 1:
                raise wire.WireError(f"{len(parts)} parts, expected 1.")
            kind, fields = wire.decode(parts[0], wire.TO_CLIENT)
            if kind == "refused":
                findings = wire.findings_from_wire(fields["findings"])
        except wire.VersionError as e:
            raise RefusedError(str(e)) from None
        except wire.WireError as e:
            raise ServerError(f"The server at {self.address} sent what is no answer: {e}") from None
        if kind == "refused":
            again = fields["code"] in ("unknown", "failed", "sequence")
            raise (ServerError if again else RefusedError)(fields["message"], findings)
        if kind not in (expected, "pong", "chunk"):
            raise ServerError(f"The server at {self.address} answered '{kind}' instead of '{expected}'.")
        return fields
