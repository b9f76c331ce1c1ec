"""Registers the simulated Koch arm with gymnasium; importing it needs no mujoco."""

from gymnasium.envs.registration import register

EPISODE_LENGTH = 450
_ENTRY_POINT = "lerobot.common.envs.koch_sim.env:KochEnv"

register("gym_koch/KochPickPlace-v0", _ENTRY_POINT, max_episode_steps=EPISODE_LENGTH)
register(
    "gym_koch/KochPickPlaceColor-v0",
    _ENTRY_POINT,
    max_episode_steps=EPISODE_LENGTH,
    kwargs={"scene": "B"},
)
register(
    "gym_koch/KochPickPlaceState-v0",
    _ENTRY_POINT,
    max_episode_steps=EPISODE_LENGTH,
    kwargs={"obs_type": "state"},
)
