"""Rotations, and transitions on devices."""

import numpy as np
import pytest
import torch
from lerobot.utils.rotation import Rotation
from lerobot.utils.transition import move_state_dict_to_device, move_transition_to_device

VECTORS = [[0.1, 0.2, 0.3], [1.0, -2.0, 0.5], [0.0, 0.0, 0.0], [np.pi, 0.0, 0.0], [1e-9, 0.0, 0.0], [0.0, 0.0, 3.1]]


def rodrigues(vector) -> np.ndarray:
    """The matrix of a rotation vector by the matrix exponential."""
    x, y, z = vector
    return torch.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)).numpy()


@pytest.mark.parametrize("vector", VECTORS)
def test_every_form_is_the_same_rotation(vector):
    rotation, expected = Rotation.from_rotvec(vector), rodrigues(vector)
    np.testing.assert_allclose(rotation.as_matrix(), expected, atol=1e-12)
    np.testing.assert_allclose(Rotation.from_matrix(expected).as_matrix(), expected, atol=1e-12)
    np.testing.assert_allclose(np.abs(rotation.as_rotvec()), np.abs(vector), atol=1e-12)
    np.testing.assert_allclose(Rotation.from_quat(-3 * rotation.as_quat()).as_matrix(), expected, atol=1e-12)
    np.testing.assert_allclose(rotation.inv().as_matrix(), expected.T, atol=1e-12)


def test_products_apply_the_right_factor_first():
    a, b = (Rotation.from_rotvec(v) for v in VECTORS[:2])
    points = np.array([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose((a * b).apply(points), points @ (rodrigues(VECTORS[0]) @ rodrigues(VECTORS[1])).T)
    np.testing.assert_allclose(a.apply(a.apply(points), inverse=True), points, atol=1e-12)


def test_a_rotation_vector_is_at_most_half_a_turn():
    np.testing.assert_allclose(Rotation.from_rotvec([0, 0, 5.0]).as_rotvec(), [0, 0, 5 - 2 * np.pi])


@pytest.mark.parametrize("quat", [[0, 0, 0, 0], [1, 0, 0]])
def test_what_is_no_quaternion_is_refused(quat):
    with pytest.raises(ValueError, match="quaternion"):
        Rotation.from_quat(quat)


def test_transitions_are_moved_with_everything_in_them():
    names = {"state": {"a": torch.ones(2)}, "next_state": {"a": torch.ones(2)}, "action": torch.ones(3)}
    more = {"reward": 1.0, "done": True, "truncated": False, "complementary_info": {"n": 3, "t": torch.ones(1)}}
    moved = move_transition_to_device({**names, **more}, "meta")
    assert moved["state"]["a"].is_meta and moved["next_state"]["a"].is_meta and moved["action"].is_meta
    assert moved["complementary_info"]["n"].is_meta and moved["reward"] == 1.0
    nested = move_state_dict_to_device({"a": [torch.ones(1), 2], "b": (torch.ones(1), "x")}, "meta")
    assert nested["a"][0].is_meta and nested["a"][1] == 2 and nested["b"][0].is_meta and nested["b"][1] == "x"
