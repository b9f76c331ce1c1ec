"""The Koch arm's twin: a MuJoCo arm, two scenes with coloured cubes, an expert, a gymnasium environment.

Importing this package imports neither mujoco nor gymnasium.
"""
