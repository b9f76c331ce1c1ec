"""The policy server: one thread talks to every client, one computes chunks, and the newest observation wins."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lerobot.common.checks.finding import Finding, worst
from lerobot.common.inference_server import pictures, wire
from lerobot.common.inference_server.keys import derive_keys, require_token
from lerobot.common.inference_server.zeromq import import_zmq, make_context

if TYPE_CHECKING:
    from lerobot.common.inference_server.planner import Planner

LEASE_S = 10.0  # a client that was silent for this long loses its arm to another that asks for it
MOST_CLIENTS = 64
PARTS = 2  # of a message as it arrives: the connection it came by, and the message
POLL_MS = 100
CLOSE_S = 10.0  # that closing waits for a chunk in the making
HAND_OVER_MS = 1000  # from the thread that computes to the one that talks


@dataclass
class Client:
    """One connected client. `arms`, `name` and `robot` are what its hello said."""

    name: str
    arms: frozenset[str]
    planner: Planner
    robot: dict
    heard: float
    sequence: int = -1  # of its newest observation


@dataclass
class Work:
    """An observation that waits for the model."""

    client: Client
    sequence: int
    task: str
    observation: dict[str, list]
    continues: dict[str, Any] | None
    noise: dict[str, int] | None
    since: float = field(default_factory=time.perf_counter)


class Refusal(ValueError):
    """A request that is answered with a message in place of what it asked for."""

    def __init__(self, code: str, message: str, findings: list[Finding] | None = None):
        super().__init__(message)
        self.code, self.findings = code, findings or []


class PolicyServer:
    """Serves planners by name; `port` 0 takes a free one. Used as a context manager, or by `serve_forever`.

    Raises ValueError for an address beyond this machine without a token, OSError for one that is taken.
    """

    def __init__(
        self,
        planners: Mapping[str, Planner],
        host: str = "127.0.0.1",
        port: int = 8080,
        token: str | None = None,
        now: Callable[[], float] = time.monotonic,
    ):
        require_token(host, token, "--host")
        self.planners, self._now = dict(planners), now
        self._zmq = zmq = import_zmq()
        self._context = make_context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._authenticator = None
        self.clients: dict[bytes, Client] = {}
        self.refused = self.superseded = self.planned = 0
        self._waiting: dict[bytes, Work] = {}
        self._arrived, self._stop = threading.Condition(), threading.Event()
        self._threads: list[threading.Thread] = []
        self._configure(token)
        try:
            self._socket.bind(f"tcp://{'127.0.0.1' if host == 'localhost' else host}:{port or '*'}")
        except zmq.ZMQError as e:
            self.close()
            raise OSError(f"--host={host} --port={port}: {e}.") from None
        self.address = self._socket.getsockopt(zmq.LAST_ENDPOINT).decode().removeprefix("tcp://")

    def _configure(self, token: str | None) -> None:
        zmq, socket = self._zmq, self._socket
        socket.linger = 0
        socket.maxmsgsize = wire.TO_SERVER  # a longer frame ends its connection before memory is taken
        socket.rcvhwm = socket.sndhwm = 8
        socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
        if token is None:
            return
        from zmq.auth.thread import ThreadAuthenticator

        keys = derive_keys(token)
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(credentials_provider=_OneKey(keys.client_public))
        socket.curve_server = True
        socket.curve_secretkey, socket.curve_publickey = keys.server_secret, keys.server_public

    # -- life ----------------------------------------------------------------------------------------------------

    def start(self) -> PolicyServer:
        """Serve in threads of their own."""
        for target in (self._talk, self._compute):
            thread = threading.Thread(target=target, name=f"policy_server{target.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def serve_forever(self) -> None:
        """Serve until interrupted."""
        self.start()
        try:
            while all(thread.is_alive() for thread in self._threads):
                self._stop.wait(1.0)  # an interrupted Thread.join() would take its thread for ended
            raise RuntimeError("The policy server ended by a defect; the traceback stands above.")
        finally:
            self.close()

    def close(self) -> None:
        """Stop and free the port; a policy that computes for longer than `CLOSE_S` is left behind."""
        self._stop.set()
        with self._arrived:
            self._arrived.notify_all()
        end = time.monotonic() + CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        left = [thread.name for thread in self._threads if thread.is_alive()]
        self._threads.clear()
        if self._authenticator is not None:
            self._authenticator.stop()
            self._authenticator = None
        if not any(name.endswith("_talk") for name in left):  # no two threads may use a socket
            self._socket.close(0)
        if left:  # it uses the context, and ends with the program
            logging.warning("%s did not end within %.0f s.", " and ".join(left), CLOSE_S)
        else:
            self._context.destroy(0)

    def __enter__(self) -> PolicyServer:
        return self.start()

    def __exit__(self, *_) -> None:
        self.close()

    # -- the thread that talks -----------------------------------------------------------------------------------

    def _talk(self) -> None:
        zmq = self._zmq
        done = self._context.socket(zmq.PULL)
        done.bind("inproc://done")
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(done, zmq.POLLIN)
        while not self._stop.is_set():
            for socket, _ in poller.poll(POLL_MS):
                if socket is done:
                    self._send(*done.recv_multipart())
                else:
                    self._receive(self._socket.recv_multipart())
        done.close(0)
        self._socket.close(0)

    def _receive(self, parts: list[bytes]) -> None:
        peer, sequence = parts[0], 0
        try:
            if len(parts) != PARTS:
                raise wire.WireError(f"{len(parts)} parts, expected {PARTS}.")
            kind, fields = wire.decode(parts[1], wire.TO_SERVER)
            sequence = fields.get("sequence", 0)
            answer = self._handlers().get(kind, self._unexpected)(peer, fields)
        except wire.WireError as e:
            code = "version" if isinstance(e, wire.VersionError) else "malformed"
            answer = self._refuse(peer, Refusal(code, str(e)), sequence)
        except Refusal as e:
            answer = self._refuse(peer, e, sequence)
        except Exception as e:  # of a check: the other clients are still served
            logging.exception("A message could not be handled.")
            answer = self._refuse(peer, Refusal("failed", f"The server failed: {e}"), sequence)
        if answer is not None:
            self._send(peer, answer)

    def _handlers(self) -> dict[str, Callable[[bytes, dict], bytes | None]]:
        return {"hello": self._hello, "ping": self._ping, "observe": self._observe, "bye": self._bye}

    def _send(self, peer: bytes, answer: bytes) -> None:
        try:
            self._socket.send_multipart([peer, answer], self._zmq.NOBLOCK)
        except self._zmq.ZMQError:  # it does not read: it misses this one
            logging.debug("A client does not take its answers.")

    def _refuse(self, peer: bytes, refusal: Refusal, sequence: int) -> bytes:
        self.refused += 1
        name = self.clients[peer].name if peer in self.clients else "a stranger"
        often = self.refused & (self.refused - 1)  # the 1st, 2nd, 4th, 8th ...: a flood does not fill the log
        logging.log(logging.DEBUG if often else logging.WARNING, "Refused %s: %s", name, refusal)
        found = wire.findings_to_wire(refusal.findings)
        return wire.encode("refused", sequence=sequence, code=refusal.code, message=str(refusal)[:4096], findings=found)

    # -- what clients say ----------------------------------------------------------------------------------------

    def _hello(self, peer: bytes, hello: dict[str, Any]) -> bytes:
        name = hello["checkpoint"] or next(iter(self.planners))
        if name not in self.planners or (not hello["checkpoint"] and len(self.planners) > 1):
            raise Refusal("checkpoint", f"Served are {', '.join(self.planners)}: choose one by --checkpoint=NAME.")
        planner = self.planners[name]
        arms = frozenset(hello["arms"])
        self._free_arms(arms, hello["client"])
        findings = planner.check(hello["robot"], hello["task"])
        if worst(findings) == "error":
            raise Refusal("features", f"The robot does not fit the checkpoint '{name}'.", findings)
        self.clients[peer] = Client(hello["client"], arms, planner, hello["robot"], self._now())
        logging.info("%s (%s) is served '%s'.", hello["client"], ", ".join(arms), name)
        return wire.encode(
            "welcome",
            checkpoint=name,
            policy=planner.policy,
            inputs={key: list(shape) for key, shape in planner.inputs.items()},
            history=planner.history,
            actions=planner.actions,
            steps=planner.steps,
            rtc=planner.rtc,
            findings=wire.findings_to_wire(findings),
        )

    def _free_arms(self, arms: frozenset[str], name: str) -> None:
        """Let go of what the same client or a silent one held; Refusal while another one is served on an arm."""
        for peer, other in list(self.clients.items()):
            silent, shared = self._now() - other.heard, arms & other.arms
            if other.name == name or (silent > LEASE_S and (shared or len(self.clients) >= MOST_CLIENTS)):
                self._forget(peer)
            elif shared:
                raise Refusal("busy", f"{other.name} moves this arm ({', '.join(shared)}); one client per arm.")
        if len(self.clients) >= MOST_CLIENTS:
            raise Refusal("full", f"{MOST_CLIENTS} clients are served already.")

    def _forget(self, peer: bytes) -> None:
        del self.clients[peer]
        with self._arrived:
            self._waiting.pop(peer, None)

    def _known(self, peer: bytes) -> Client:
        if peer not in self.clients:
            raise Refusal("unknown", "This server does not know you (it was started again?): say hello first.")
        client = self.clients[peer]
        client.heard = self._now()
        return client

    def _ping(self, peer: bytes, ping: dict[str, Any]) -> bytes:
        self._known(peer)
        return wire.encode("pong", sequence=ping["sequence"])

    def _observe(self, peer: bytes, message: dict[str, Any]) -> None:
        client = self._known(peer)
        if message["sequence"] <= client.sequence:
            raise Refusal("sequence", f"Observation {message['sequence']} came after {client.sequence}.")
        _require_shapes(message["observation"], client)
        if message["continues"] is not None:
            _require_continuation(message["continues"]["prev_chunk_left_over"], client.planner)
        client.sequence = message["sequence"]
        with self._arrived:
            self.superseded += peer in self._waiting
            self._waiting[peer] = Work(client, **message)
            self._arrived.notify()

    def _bye(self, peer: bytes, _bye: dict) -> None:
        if peer in self.clients:
            logging.info("%s left.", self.clients[peer].name)
            self._forget(peer)

    def _unexpected(self, _peer: bytes, _fields: dict) -> bytes:
        raise Refusal("malformed", "That is what a server says, not a client.")

    # -- the thread that computes --------------------------------------------------------------------------------

    def _compute(self) -> None:
        done = self._context.socket(self._zmq.PUSH)
        done.linger, done.sndtimeo = 0, HAND_OVER_MS
        done.connect("inproc://done")
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self._waiting or self._stop.is_set())
                if self._stop.is_set():
                    break
                peer = next(iter(self._waiting))  # whoever waits longest, with its newest observation
                work = self._waiting.pop(peer)
            try:
                done.send_multipart([peer, self._answer(peer, work)])
            except self._zmq.Again:  # the other thread has ended, or is very busy: this client asks again
                logging.debug("An answer for %s was dropped.", work.client.name)
        done.close(0)

    def _answer(self, peer: bytes, work: Work) -> bytes:
        start = time.perf_counter()
        try:
            observation = {
                key: np.stack([pictures.decode(value, key) for value in values])
                for key, values in work.observation.items()
            }
            decoded = time.perf_counter()
            robot = work.client.robot["type"]
            options = {**(work.continues or {}), **({} if work.noise is None else {"noise": work.noise})}
            plan = work.client.planner.plan(observation, work.task, robot, options)
        except wire.WireError as e:
            return self._refuse(peer, Refusal("malformed", str(e)), work.sequence)
        except Exception as e:  # of the model: the other clients are still served
            logging.exception("The policy failed on an observation of %s.", work.client.name)
            return self._refuse(peer, Refusal("failed", f"The policy failed: {e}"), work.sequence)
        if not np.isfinite(plan.actions).all():
            return self._refuse(peer, Refusal("failed", "The policy planned NaN or infinity."), work.sequence)
        spent = {"queue": (start - work.since) * 1e3, "decode": (decoded - start) * 1e3, **plan.milliseconds}
        self.planned += 1
        return wire.encode(
            "chunk", sequence=work.sequence, actions=plan.actions, planned=plan.planned, milliseconds=spent
        )


def _require_shapes(observation: dict[str, list], client: Client) -> None:
    """Refusal unless every input is there as often and as large as the policy and the hello say."""
    planner, cameras = client.planner, client.robot["cameras"]
    if observation.keys() != planner.inputs.keys():
        raise Refusal("observation", f"Got {', '.join(observation)}; expected {', '.join(planner.inputs)}.")
    for key, values in observation.items():
        expected, dtype = tuple(cameras.get(key, planner.inputs[key])), np.uint8 if key in cameras else np.float32
        if len(values) != planner.history:
            raise Refusal("observation", f"{key}: {len(values)} observations, expected {planner.history}.")
        for value in values:
            jpeg = isinstance(value, dict)
            shape = tuple(value["shape"]) if jpeg else value.shape
            if shape != expected or (jpeg and key not in cameras) or (not jpeg and value.dtype != dtype):
                raise Refusal("observation", f"{key} is {shape}, announced was {expected} {np.dtype(dtype)}.")


def _require_continuation(left_over: np.ndarray, planner: Planner) -> None:
    """Refusal unless the policy can continue a chunk and this is the rest of one."""
    if not planner.rtc:
        raise Refusal("rtc", f"The policy '{planner.policy}' cannot continue a chunk: use --player=async.")
    if left_over.dtype != np.float32 or left_over.shape[0::2] != (1, planner.actions) or left_over.ndim != 3:
        raise Refusal("rtc", f"The rest of a chunk is {left_over.shape}, expected (1, N, {planner.actions}).")


class _OneKey:
    """Admits the one public key that belongs to the token."""

    def __init__(self, key: bytes):
        self.key = key

    def callback(self, _domain: str, key: bytes) -> bool:
        return key == self.key
