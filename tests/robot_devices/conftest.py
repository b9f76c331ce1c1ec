"""Simulated servos behind real pseudo-terminals, spoken to by the official SDK."""

from __future__ import annotations

import sys

import pytest

from lerobot.common.robot_devices.motors import dynamixel_port
from lerobot.common.robot_devices.motors.configs import DynamixelMotorsBusConfig
from lerobot.common.robot_devices.motors.dynamixel import DynamixelMotorsBus
from lerobot.common.robot_devices.robots.configs import FOLLOWER_MODELS, koch_motors
from lerobot.common.robot_devices.simulation.faults import Faults
from lerobot.common.robot_devices.simulation.pty_server import ServoThread
from lerobot.common.robot_devices.simulation.servo import Servo


@pytest.fixture(autouse=True)
def quick_thread_switches():
    # The simulator is a thread here, and the SDK's waiting would otherwise starve it for 5 ms at a time.
    before = sys.getswitchinterval()
    sys.setswitchinterval(2e-4)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(autouse=True)
def servos_on_a_busy_machine(request, monkeypatch):
    # A servo that is a thread or a process may wait longer for the processor than the SDK waits for an answer.
    marker = request.node.get_closest_marker("patience")
    monkeypatch.setattr(dynamixel_port, "PATIENCE_S", marker.args[0] if marker else 0.5)


@pytest.fixture
def arm():
    """A connected bus with the six servos of a follower; `arm.sim` is the simulation."""
    pytest.importorskip("dynamixel_sdk")
    motors = koch_motors(FOLLOWER_MODELS)
    with ServoThread([[Servo(motor, model) for motor, model in motors.values()]], Faults()) as sim:
        bus = DynamixelMotorsBus(DynamixelMotorsBusConfig(sim.paths[0], motors))
        bus.sim, bus.servos, bus.faults = sim, sim.servos[0], sim.buses[0].faults
        bus.connect()
        yield bus
        if bus.is_connected:
            bus.disconnect()
