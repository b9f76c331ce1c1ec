"""Domain randomisation of the twin: light, colours, camera poses, friction, masses and servo gains, from the seed."""

from __future__ import annotations

import numpy as np

LEVELS = {"none": 0.0, "light": 0.4, "full": 1.0}  # share of the ranges below
LIGHT_MOVE = 0.3  # metres
LIGHT_POWER = (0.6, 1.3)  # factor
TABLE_COLOUR = 0.25  # up or down, per channel
PART_COLOUR = 0.10
CAMERA_MOVE = 0.015  # metres
CAMERA_TURN = np.deg2rad(2.0)
CAMERA_ZOOM = 2.0  # degrees of the field of view
FRICTION = (0.6, 1.2)  # factors
MASS = (0.8, 1.2)
GAIN = (0.85, 1.15)
DAMPING = (0.7, 1.3)


def _share(level: str) -> float:
    if level not in LEVELS:
        raise ValueError(f"randomization={level!r}: expected one of {', '.join(LEVELS)}.")
    return LEVELS[level]


class Randomizer:
    """Changes a MuJoCo model in place, always from its values at the start.

    The same seed and level give the same model; level "none" changes nothing. Shapes stay as they are.
    """

    def __init__(self, model, level: str = "none"):
        self._model, self._share = model, _share(level)
        fields = (
            "light_pos light_diffuse geom_rgba cam_pos cam_quat cam_fovy geom_friction body_mass body_inertia "
            "actuator_gainprm actuator_biasprm"
        )
        self._base = {name: getattr(model, name).copy() for name in fields.split()}
        self.gain_scale = np.ones(model.nu)

    def apply(self, seed: int, level: str | None = None) -> None:
        """Draw the episode of `seed`, at another `level` from now on if one is given."""
        before, self._share = self._share, self._share if level is None else _share(level)
        if before:
            for name, value in self._base.items():
                getattr(self._model, name)[:] = value
            self.gain_scale = np.ones(self._model.nu)
        if not self._share:
            return
        rng = np.random.default_rng([seed, 11])
        self._light(rng)
        self._colours(rng)
        self._cameras(rng)
        self._bodies(rng)
        self._servos(rng)

    def _factor(self, rng: np.random.Generator, bounds: tuple[float, float], size=None):
        """Uniform in `bounds`, drawn towards 1 by the level."""
        return 1 + self._share * (rng.uniform(*bounds, size) - 1)

    def _shift(self, rng: np.random.Generator, most: float, size) -> np.ndarray:
        return self._share * rng.uniform(-most, most, size)

    def _light(self, rng) -> None:
        model = self._model
        model.light_pos[:] += self._shift(rng, LIGHT_MOVE, model.light_pos.shape)
        model.light_diffuse[:] *= self._factor(rng, LIGHT_POWER)

    def _colours(self, rng) -> None:
        model = self._model
        table = model.geom("table").id
        for index in range(model.ngeom):
            most = TABLE_COLOUR if index == table else PART_COLOUR
            colour = model.geom_rgba[index, :3] + self._shift(rng, most, 3)
            model.geom_rgba[index, :3] = np.clip(colour, 0, 1)

    def _cameras(self, rng) -> None:
        import mujoco

        model = self._model
        for index in range(model.ncam):
            model.cam_pos[index] += self._shift(rng, CAMERA_MOVE, 3)
            model.cam_fovy[index] += self._shift(rng, CAMERA_ZOOM, None)
            turn = np.zeros(4)
            axis = rng.normal(size=3)
            mujoco.mju_axisAngle2Quat(turn, axis / np.linalg.norm(axis), float(self._shift(rng, CAMERA_TURN, None)))
            turned = np.zeros(4)
            mujoco.mju_mulQuat(turned, model.cam_quat[index], turn)
            model.cam_quat[index] = turned

    def _bodies(self, rng) -> None:
        model = self._model
        model.geom_friction[:, 0] *= self._factor(rng, FRICTION)
        scale = self._factor(rng, MASS, model.nbody)
        model.body_mass[:] *= scale
        model.body_inertia[:] *= scale[:, None]

    def _servos(self, rng) -> None:
        model = self._model
        self.gain_scale = self._factor(rng, GAIN, model.nu)
        model.actuator_gainprm[:, 0] *= self.gain_scale
        model.actuator_biasprm[:, 1] *= self.gain_scale
        model.actuator_biasprm[:, 2] *= self._factor(rng, DAMPING, model.nu)
