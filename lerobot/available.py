"""What there is to choose from, by the names that LeRobot 0.1-0.3 has in its package."""

from __future__ import annotations

import lerobot.common.policies  # noqa: F401  registers the policies
from lerobot.common.robot_devices.cameras.configs import CameraConfig
from lerobot.common.robot_devices.motors.configs import MotorsBusConfig
from lerobot.common.robot_devices.robots.configs import RobotConfig
from lerobot.configs.policies import PreTrainedConfig

available_tasks_per_env = {
    "koch": ["KochPickPlace-v0", "KochPickPlaceColor-v0", "KochPickPlaceState-v0"],
    "aloha": ["AlohaInsertion-v0", "AlohaTransferCube-v0"],
    "pusht": ["PushT-v0"],
    "xarm": ["XarmLift-v0"],
}
available_envs = list(available_tasks_per_env)
available_policies = sorted(PreTrainedConfig.get_known_choices())
available_robots = sorted(RobotConfig.get_known_choices())
available_cameras = sorted(CameraConfig.get_known_choices())
available_motors = sorted(MotorsBusConfig.get_known_choices())
available_policies_per_env = dict.fromkeys(available_envs, available_policies)
env_task_pairs = [(env, task) for env, tasks in available_tasks_per_env.items() for task in tasks]
