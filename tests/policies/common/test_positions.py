"""Sine-cosine position tables."""

import torch

from lerobot.common.policies.common.positions import (
    SinusoidalPositionEmbedding2d,
    create_sinusoidal_pos_embedding,
    sincos_2d,
)


def test_one_dimensional_table():
    table = create_sinusoidal_pos_embedding(3, 8)
    expected = torch.tensor([0.84147, 0.54030, 0.09983, 0.99500, 0.0099998, 0.99995, 0.0010, 1.0])
    torch.testing.assert_close(table[1], expected, atol=5e-6, rtol=0)
    assert torch.equal(table[0], torch.tensor([0.0, 1] * 4))


def test_two_dimensional_table_has_rows_before_columns():
    table = sincos_2d(2, 3, 4, torch.device("cpu"))
    expected = torch.tensor([1.343e-6, -1.0, 0.031411, 0.99951, 0.86603, -0.5, 0.020942, 0.99978])
    assert table.shape == (1, 8, 2, 3)
    torch.testing.assert_close(table[0, :, 0, 0], expected, atol=5e-6, rtol=0)
    assert torch.equal(table[0, :4, 1, 0], table[0, :4, 1, 2])
    assert torch.equal(table[0, 4:, 0, 1], table[0, 4:, 1, 1])


def test_table_of_a_map_has_its_size_and_dtype():
    embedding = SinusoidalPositionEmbedding2d(6)
    assert embedding(torch.zeros(2, 5, 3, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert embedding(torch.zeros(2, 5, 3, 4)).shape == (1, 12, 3, 4)


def test_table_made_in_inference_mode_can_be_trained_with():
    sincos_2d.cache_clear()
    with torch.inference_mode():
        table = sincos_2d(3, 3, 2, torch.device("cpu"))
    weight = torch.ones(4, requires_grad=True)
    (table.flatten(2).squeeze(0).T @ weight).sum().backward()
    assert weight.grad is not None
