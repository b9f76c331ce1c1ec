"""Chooses the OpenGL backend before any test module imports mujoco."""

from lerobot.common.envs.koch_sim.gl import select_gl

select_gl()
