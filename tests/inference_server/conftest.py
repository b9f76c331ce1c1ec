"""Policy servers and clients on this machine, closed after each test."""

from __future__ import annotations

import pytest

from lerobot.common.inference_server.client import RemotePolicy
from lerobot.common.inference_server.server import PolicyServer
from tests.inference_server.counting import Counting, describe

LONGEST_S = 60.0  # that an answer may take on a busy machine


@pytest.fixture
def serve():
    servers = []

    def start(planner=None, **options) -> PolicyServer:
        server = PolicyServer({"default": planner or Counting()}, port=options.pop("port", 0), **options)
        servers.append(server.start())
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def connect():
    clients = []

    def make(address: str, arms=("pi:/dev/ttyACM0",), **options) -> RemotePolicy:
        robot = options.pop("robot", None) or describe()
        client = RemotePolicy(address, robot, list(arms), deadline_s=options.pop("deadline_s", LONGEST_S), **options)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()
