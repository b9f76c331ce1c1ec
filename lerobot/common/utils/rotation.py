"""Rotations in space, with the interface of `scipy.spatial.transform.Rotation` and without scipy."""

from __future__ import annotations

import numpy as np


class Rotation:
    """One rotation as a unit quaternion (x, y, z, w); a product applies its right factor first.

    Raises ValueError for a quaternion of another shape or of length zero.
    """

    def __init__(self, quat: np.ndarray):
        quat = np.asarray(quat, dtype=float)
        length = np.linalg.norm(quat)
        if quat.shape != (4,) or length == 0:
            raise ValueError(f"A rotation needs a quaternion (x, y, z, w) that is not zero; found {quat}.")
        self._quat = quat / length

    @classmethod
    def from_quat(cls, quat: np.ndarray) -> Rotation:
        """From (x, y, z, w) of any length."""
        return cls(quat)

    @classmethod
    def from_rotvec(cls, rotvec: np.ndarray) -> Rotation:
        """From axis times angle (radians), shape (3,)."""
        rotvec = np.asarray(rotvec, dtype=float)
        angle = np.linalg.norm(rotvec)
        # sin(a/2)/a, without dividing by a small angle
        return cls(np.append(0.5 * np.sinc(angle / (2 * np.pi)) * rotvec, np.cos(angle / 2)))

    @classmethod
    def from_matrix(cls, matrix: np.ndarray) -> Rotation:
        """From a rotation matrix (3, 3)."""
        matrix = np.asarray(matrix, dtype=float)
        trace = np.trace(matrix)
        # 4 q q^T is linear in the matrix; its row of the largest component is the one without cancellation.
        products = np.empty((4, 4))
        products[:3, :3] = matrix + matrix.T + (1 - trace) * np.eye(3)
        products[3, 3] = 1 + trace
        vector = matrix[[2, 0, 1], [1, 2, 0]] - matrix[[1, 2, 0], [2, 0, 1]]
        products[3, :3] = products[:3, 3] = vector
        return cls(products[np.argmax(np.diag(products))])

    def as_quat(self) -> np.ndarray:
        """(x, y, z, w) of length 1."""
        return self._quat.copy()

    def as_matrix(self) -> np.ndarray:
        """The matrix (3, 3) that rotates column vectors."""
        return np.stack([self.apply(axis) for axis in np.eye(3)], axis=1)

    def as_rotvec(self) -> np.ndarray:
        """Axis times angle, the angle in [0, pi]."""
        quat = self._quat if self._quat[3] >= 0 else -self._quat
        sine = np.linalg.norm(quat[:3])
        half = np.arctan2(sine, quat[3])
        return 2 * quat[:3] / np.sinc(half / np.pi)

    def apply(self, vectors: np.ndarray, inverse: bool = False) -> np.ndarray:
        """Rotate vectors (3,) or (N, 3)."""
        vectors = np.asarray(vectors, dtype=float)
        axis, w = -self._quat[:3] if inverse else self._quat[:3], self._quat[3]
        turned = 2 * np.cross(axis, vectors)
        return vectors + w * turned + np.cross(axis, turned)

    def inv(self) -> Rotation:
        """The rotation that undoes this one."""
        return Rotation(self._quat * [-1, -1, -1, 1])

    def __mul__(self, other: Rotation) -> Rotation:
        a, b = self._quat, other._quat
        vector = a[3] * b[:3] + b[3] * a[:3] + np.cross(a[:3], b[:3])
        return Rotation(np.append(vector, a[3] * b[3] - a[:3] @ b[:3]))
