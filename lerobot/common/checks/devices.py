"""The devices of a configured robot, as far as their ports are named: looked at, never moved."""

from __future__ import annotations

import contextlib
import dataclasses

from lerobot.common.checks.finding import Finding
from lerobot.common.checks.robot import check_camera


def check_devices(config) -> list[Finding]:
    """Findings on the arms and cameras that `config` names differently from its type's placeholders.

    Ports are opened and registers read; torque stays as it is, on or off.
    """
    from lerobot.common.robot_devices.robots.utils import make_robot_from_config

    if config.type == "koch_sim" or not hasattr(config, "follower_arms"):
        return []
    robot = make_robot_from_config(_named(config))
    if not (robot.buses or robot.cameras):
        return []
    try:
        robot.open()
        findings = robot.check()
        for name, camera in robot.cameras.items():
            findings += check_camera(name, camera) if camera.is_connected else []
    except ImportError as e:
        return [Finding("robot.package", "error", str(e), fix='pip install -e ".[koch]"')]
    finally:
        _close(robot)
    return findings


def calibrated_units(config) -> str:
    """How the joint values of a configured robot are to be read, after its calibration files; legacy without any."""
    from lerobot.common.robot_devices.robots.utils import make_robot_from_config

    robot = make_robot_from_config(config)
    for name, bus in robot.follower_arms.items():
        with contextlib.suppress(FileNotFoundError, ValueError):  # told by the check of the file
            bus.set_calibration(robot.read_calibration(f"{name}_follower", bus))
    return robot.units


def _named(config):
    """The configuration without the arms and cameras that are its type's placeholders."""
    usual, arms = type(config)(), {}
    for kind in ("follower_arms", "leader_arms"):
        placeholders = getattr(usual, kind)
        arms[kind] = {n: arm for n, arm in getattr(config, kind).items() if _differs(arm, placeholders.get(n))}
    cameras = {} if config.cameras == usual.cameras else config.cameras
    ports = {field: None for field in ("follower_port", "leader_port") if hasattr(config, field)}  # applied already
    return dataclasses.replace(config, **arms, **ports, cameras=cameras)


def _differs(arm, usual) -> bool:
    return arm.mock or usual is None or arm.port != usual.port


def _close(robot) -> None:
    # Not `disconnect`, which switches torque off: another program may hold the arm up.
    for bus in robot.buses.values():
        if bus.is_connected:
            bus.disconnect(torque_off=False)
    for camera in robot.cameras.values():
        if camera.is_connected:
            camera.disconnect()
    robot.is_open = False
