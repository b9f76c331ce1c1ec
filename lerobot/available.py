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
available_datasets_per_env = {
    "koch": ["grasp_dataset"],
    "aloha": [
        f"lerobot/aloha_sim_{task}_{by}{picture}"
        for task in ("insertion", "transfer_cube")
        for by in ("human", "scripted")
        for picture in ("", "_image")
    ],
    "pusht": ["lerobot/pusht", "lerobot/pusht_image"],
    "xarm": [f"lerobot/xarm_{task}{picture}" for task in ("lift_medium", "push_medium") for picture in ("", "_image")],
}
available_real_world_datasets = ["lerobot/koch_pick_place_1_lego", "lerobot/koch_pick_place_5_lego"]
available_datasets = [
    *dict.fromkeys(name for names in available_datasets_per_env.values() for name in names),
    *available_real_world_datasets,
]
env_dataset_pairs = [(env, name) for env, names in available_datasets_per_env.items() for name in names]
env_dataset_policy_triplets = [(*pair, policy) for pair in env_dataset_pairs for policy in available_policies]


def _extras() -> list[str]:
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        return metadata("lerobot").get_all("Provides-Extra") or []
    except PackageNotFoundError:  # run from a folder that is not installed
        return []


available_extras = _extras()
