"""Inference on another machine, on the loopback of this one: loop rate, damaged messages, killed servers.

python benchmarks/remote.py loop --seconds=600 [--jpeg_quality=0]     (--seconds=120: the short form)
python benchmarks/remote.py fuzz --count=10000
python benchmarks/remote.py kill --count=50
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import random
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from lerobot.common.inference_server import wire
from lerobot.common.inference_server.server import PolicyServer
from lerobot.common.inference_server.zeromq import import_zmq, make_context

JOINTS, FPS = 6, 30
LONGEST_S = 60.0  # that a server may take to say anything
CAMERAS = {f"observation.images.{name}": (480, 640, 3) for name in ("laptop", "phone")}
ROBOT = {
    "type": "koch",
    "cameras": {key: list(shape) for key, shape in CAMERAS.items()},
    "joints": [f"main_{i}" for i in range(JOINTS)],
    "low": [-90.0] * JOINTS,
    "high": [90.0] * JOINTS,
    "fps": float(FPS),
    "units": "legacy",
}


class Waving:
    """A planner without a model: every joint swings by 20 degrees around where it was first seen."""

    policy, history, actions, steps, rtc = "waving", 1, JOINTS, 15, False

    def __init__(self, cameras: dict):
        self.inputs, self._start = {"observation.state": (JOINTS,), **cameras}, None

    def check(self, _robot, _task):
        return []

    def plan(self, observation, _task, _robot_type, _continues):
        state = observation["observation.state"][-1]
        self._start = state if self._start is None else self._start
        phase = 2 * np.pi * (time.monotonic() + np.arange(20)[:, None] / FPS) / 1.5
        swing = 20 * np.sin(phase) + np.zeros(JOINTS)
        return SimpleNamespace(
            actions=self._start + swing.astype(np.float32), planned=None, milliseconds={"model": 0.0}
        )


def serve(port: int, cameras: dict) -> None:
    """The server's process; it says its address and its largest memory when asked by a line."""
    with PolicyServer({"default": Waving(cameras)}, port=port) as server:
        print(server.address, flush=True)
        for _ in sys.stdin:
            print(_memory(), server.refused, server.planned, flush=True)


def _memory() -> int:
    """KiB resident now, without what the allocator keeps for later."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1])


class ServerProcess:
    """A server that can be killed."""

    def __init__(self, port: int = 0, cameras: bool = True):
        words = [sys.executable, __file__, "serve", f"--port={port}", f"--cameras={int(cameras)}"]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.address = self._line()

    def _line(self) -> str:
        """What it says next; ConnectionError if it says nothing for a minute, or has ended."""
        if not select.select([self.process.stdout], [], [], LONGEST_S)[0]:
            self.kill()
            raise ConnectionError(f"The server said nothing for {LONGEST_S} s.")
        if not (line := self.process.stdout.readline()):
            code = self.process.wait(LONGEST_S)
            raise ConnectionError(f"The server's process ended with code {code}; what it said stands above.")
        return line.strip()

    def ask(self) -> list[int]:
        """Resident KiB, refused messages, planned chunks."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return [int(word) for word in self._line().split()]

    def kill(self) -> None:
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(LONGEST_S)


def loop(seconds: float, quality: int) -> None:
    """A chunk per frame with two 480x640 cameras at 30 Hz: round trip and its stages, late frames, memory."""
    import torch

    from lerobot.common.inference_server.client import RemotePolicy

    server = ServerProcess()
    client = RemotePolicy(server.address, ROBOT, ["bench"], quality=quality, deadline_s=5.0)
    client.connect()
    noise = np.random.default_rng(0)
    smooth = np.linspace(0, 200, 640, dtype=np.float32)[None, :, None] + noise.normal(0, 8, (480, 640, 3))
    pictures = {key: torch.from_numpy(smooth.clip(0, 255).astype(np.uint8)) for key in CAMERAS}
    frames, trips, stages, late = round(seconds * FPS), [], {}, 0
    before, start = None, time.perf_counter()
    for frame in range(frames):
        if frame == 10 * FPS:
            before = server.ask()[0], _memory()
        due = start + frame / FPS
        time.sleep(max(0.0, due - time.perf_counter()))
        begin = time.perf_counter()
        answer = client.request(client.observe({"observation.state": torch.zeros(JOINTS), **pictures}))
        trips.append((time.perf_counter() - begin) * 1e3)
        late += trips[-1] > 1e3 / FPS
        for stage, spent in answer["milliseconds"].items():
            stages.setdefault(stage, []).append(spent)
    took = time.perf_counter() - start
    kind = f"JPEG {quality}" if quality else "raw"
    print(f"{frames} frames in {took:.1f} s ({frames / took:.2f} Hz), two 480x640 cameras, {kind}")
    print(f"round trip p50 {np.percentile(trips, 50):.1f} ms, p99 {np.percentile(trips, 99):.1f} ms, late {late}")
    print(
        ", ".join(f"{k} {np.percentile(v, 50):.1f}/{np.percentile(v, 99):.1f}" for k, v in stages.items()), "(p50/p99)"
    )
    if before:
        print(f"memory after 10 s and at the end: server {before[0]} -> {server.ask()[0]} KiB, client {before[1]} -> "
              f"{_memory()} KiB")  # fmt: skip
    client.close()
    server.kill()


def fuzz(count: int) -> None:
    """Damaged messages to a server, then from a server to a client; both still work afterwards."""
    import torch

    from lerobot.common.inference_server.client import RemotePolicy, ServerError
    from tests.inference_server.fuzz import malformed

    server = ServerProcess(cameras=False)
    robot, state = {**ROBOT, "cameras": {}}, {"observation.state": torch.zeros(JOINTS)}
    stranger = RemotePolicy(server.address, robot, ["stranger"])
    stranger._open()
    memory, counted = [], -1
    for index, data in enumerate(malformed(count, seed=0)):
        if index % (count // 5) == count // 10:
            memory.append(server.ask()[0])
        stranger._socket.send(data)
        while stranger._socket.poll(0):
            stranger._socket.recv()
    end = time.monotonic() + LONGEST_S
    while (refused := server.ask()[1]) != counted and time.monotonic() < end:  # what is still under way
        counted = refused
        time.sleep(0.5)
    good = RemotePolicy(server.address, robot, ["good"])
    good.connect()
    chunk = good.request_chunk(state)
    memory.append(server.ask()[0])
    print(
        f"server: {count} damaged messages, {refused} refused, memory {memory} KiB, then a chunk {tuple(chunk.shape)}"
    )
    good.close()
    stranger.close()
    server.kill()

    liar = _Liar(malformed(count, seed=1))
    client, errors, memory = RemotePolicy(liar.address, robot, ["a"], deadline_s=0.05), 0, []
    for index in range(1, count + 1):
        try:
            client.request_chunk(state)
        except ServerError:
            errors += 1
        if index % (count // 5) == 0:
            memory.append(_memory())
    print(f"client: {count} damaged answers, {errors} refused, memory {memory} KiB")
    client.close()


class _Liar:
    """Answers hello and ping as a server would, and observations with damaged messages."""

    def __init__(self, answers):
        import zmq

        self.answers = answers
        self.socket = make_context().socket(zmq.ROUTER)
        self.socket.linger = 0
        self.address = f"127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        welcome = {"checkpoint": "a", "policy": "act", "inputs": {"observation.state": [JOINTS]}, "history": 1}
        welcome |= {"actions": JOINTS, "steps": 10, "rtc": False, "findings": []}
        while True:
            peer, data = self.socket.recv_multipart()
            kind, fields = wire.decode(data)
            answer = {"hello": lambda: wire.encode("welcome", **welcome),
                      "ping": lambda fields=fields: wire.encode("pong", sequence=fields["sequence"]),
                      "observe": lambda: next(self.answers)}.get(kind)  # fmt: skip
            if answer:
                self.socket.send_multipart([peer, answer()])


def kill(count: int) -> None:
    """A simulated arm whose server is killed and started again; every command and position against the envelope."""
    from lerobot.scripts.robot_client import RobotClient, parse

    server = ServerProcess(cameras=False)
    port = server.address.rpartition(":")[2]
    # In lockstep a frame is 1/30 s exactly, so that the speed of a joint can be told.
    flags = ["--robot.type=koch_sim", "--robot.time=lockstep", "--robot.leader=hold", "--robot.cameras={}"]
    client = RobotClient(
        parse([*flags, f"--server_address={server.address}", "--deadline_s=0.5", "--land_after_s=1e6"])
    )
    client.prepare()
    done, running, killed = threading.Event(), [server], []

    def killer() -> None:
        chance = random.Random(0)
        try:
            for _ in range(count):
                time.sleep(chance.uniform(0.3, 1.5))
                running[0].kill()
                time.sleep(chance.uniform(0.0, 0.5))
                running[0] = ServerProcess(int(port), cameras=False)
                killed.append(port)
            time.sleep(2.0)
        finally:
            done.set()

    sent, measured = _watch(client.robot, done)
    threading.Thread(target=killer, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        client.run()
    limits, runs = client.robot.envelopes["main"].limits, client.planner.failures
    summary = client.robot.envelopes["main"].summary()
    client.close()
    running[0].kill()
    _judge(np.array(sent), np.array(measured), limits)
    print(f"{len(killed)} of {count} kills, {runs} lost requests; {summary}")


def _watch(robot, done: threading.Event) -> tuple[list, list]:
    sent, measured, send, read = [], [], robot.send_action, robot.follower_positions

    def sending(action):
        if done.is_set():
            raise KeyboardInterrupt
        command = send(action)
        sent.append(command.numpy())
        return command

    def reading():
        positions = read()
        measured.append(positions)
        return positions

    robot.send_action, robot.follower_positions = sending, reading
    return sent, measured


def _judge(sent: np.ndarray, measured: np.ndarray, limits) -> None:
    speed = np.abs(np.diff(sent, axis=0)) * FPS
    outside = (speed > np.array(limits.speed) * 1.002).sum()
    outside += ((sent < np.array(limits.low) - 1e-3) | (sent > np.array(limits.high) + 1e-3)).sum()
    real = np.abs(np.diff(measured, axis=0)) * FPS
    still = (np.abs(np.diff(sent, axis=0)).max(axis=1) < 1e-4).mean()
    print(
        f"{len(sent)} commands, {outside} outside the envelope; fastest command {speed.max():.0f}, fastest joint "
        f"{real.max():.0f} of {max(limits.speed):.0f} degrees per second; held in {100 * still:.0f} % of the ticks"
    )


def main() -> None:
    """The command."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("what", choices=("loop", "fuzz", "kill", "serve"))
    words.add_argument("--seconds", type=float, default=600)
    words.add_argument("--count", type=int)
    words.add_argument("--jpeg_quality", type=int, default=90)
    words.add_argument("--port", type=int, default=0)
    words.add_argument("--cameras", type=int, default=1)
    args = words.parse_args()
    try:
        run(args)
    except (OSError, ImportError) as e:
        sys.exit(f"error: {e}")


def run(args: argparse.Namespace) -> None:
    """One of the measurements, or the server's process."""
    import_zmq()  # its absence is told once, before a second process would tell it too
    if args.what == "serve":
        serve(args.port, CAMERAS if args.cameras else {})
    elif args.what == "loop":
        loop(args.seconds, args.jpeg_quality)
    elif args.what == "fuzz":
        fuzz(args.count or 10_000)
    else:
        kill(args.count or 50)


if __name__ == "__main__":
    main()
