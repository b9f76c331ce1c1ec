"""Building blocks of SmolVLA against the formulas and numbers that define them."""

import json
import math

import pytest
import torch

from lerobot.common.policies.common.flow_matching import (
    attention_bias,
    create_sinusoidal_pos_embedding,
    integrate,
    make_att_2d_masks,
    pad_tensor,
    pad_vector,
    resize_with_pad,
    sample_time,
)
from lerobot.common.policies.common.llama import RMSNorm, grouped_attention, rope_table, rotate
from lerobot.common.policies.common.positions import position_waves
from lerobot.common.policies.common.siglip import VisionConfig, VisionModel, bucketed_position_ids
from lerobot.common.policies.smolvla.smolvlm import Connector, SmolVLMConfig
from lerobot.common.policies.smolvla.smolvlm_with_expert import apply_rope, get_intermediate_size
from lerobot.common.policies.smolvla.vlm_source import SIZES
from lerobot.common.utils import aloha


@pytest.mark.parametrize("side", [16, 27, 32])
def test_positions_of_a_full_grid_are_row_by_row(side):
    assert bucketed_position_ids(side, side, side, "cpu").tolist() == list(range(side * side))


def test_positions_of_another_grid_are_bucketed():
    ids = bucketed_position_ids(3, 8, 4, "cpu").view(3, 8)
    boundaries = [1 / 4, 2 / 4, 3 / 4]
    rows = [sum(b <= i / 3 for b in boundaries) for i in range(3)]
    cols = [sum(b <= i / 8 for b in boundaries) for i in range(8)]
    assert ids.tolist() == [[4 * r + c for c in cols] for r in rows]


def test_position_waves_tell_every_patch_apart_and_near_ones_less():
    table = position_waves(8, 64)
    assert table.shape == (64, 64)
    distance = torch.cdist(table, table)
    assert distance[~torch.eye(64, dtype=torch.bool)].min() > 1
    here = 8 * 3 + 3
    near, far = distance[here, [here + 1, here + 8]], distance[here, [here + 4, here + 32]]
    assert near.max() < far.min()


def test_rope_matches_known_values():
    x = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 1, 1, 4)
    expected = [-0.28224, 0.90956, -1.97998, 3.02865]
    rotated = apply_rope(x, torch.tensor([[3]]))
    assert rotated.flatten().tolist() == pytest.approx(expected, abs=1e-5)
    assert apply_rope(x.bfloat16(), torch.tensor([[3]])).dtype == torch.bfloat16


def test_rope_makes_scores_depend_on_distance_only():
    q, k = torch.randn(2, 1, 1, 1, 8)
    score = [
        (rotate(q, rope_table(torch.tensor([[i]]), 8)) * rotate(k, rope_table(torch.tensor([[j]]), 8))).sum()
        for i, j in [(0, 3), (10, 13)]
    ]
    assert score[0].item() == pytest.approx(score[1].item(), abs=1e-5)


@pytest.mark.parametrize(
    ("t", "index", "value"),
    [
        (0.5, 1, -0.674336414),
        (0.5, 359, 0.707106781),
        (0.5, 361, -0.738424268),
        (0.5, 719, 0.707106781),
        (0.1, 0, 2.341e-6),
        (0.1, 719, 0.98768834),
    ],
)
def test_time_embedding_matches_known_values(t, index, value):
    embedding = create_sinusoidal_pos_embedding(torch.tensor([t]), 720, 4e-3, 4.0)
    assert embedding.shape == (1, 720)
    # Time itself is float32, so 0.1 stands for 0.100000001.
    assert embedding[0, index].item() == pytest.approx(value, abs=3e-6)


def test_time_embedding_refuses_odd_widths_and_other_shapes():
    with pytest.raises(ValueError, match="even, got 7"):
        create_sinusoidal_pos_embedding(torch.zeros(2), 7, 4e-3, 4.0)
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        create_sinusoidal_pos_embedding(torch.zeros(2, 1), 8, 4e-3, 4.0)


def test_time_is_beta_distributed_between_its_bounds():
    torch.manual_seed(0)
    times = sample_time(20_000, "cpu")
    assert times.dtype == torch.float32
    assert times.min() >= 0.001 and times.max() <= 1.0
    assert times.mean().item() == pytest.approx(0.001 + 0.999 * 1.5 / 2.5, abs=0.01)


def test_euler_steps_take_times_from_one_down_and_leave_the_noise_alone():
    noise, times = torch.ones(2, 3, 4), []
    kept = noise.clone()
    end = integrate(lambda x, t: times.append(t) or torch.full_like(x, 2.0), noise, 10)
    assert torch.stack(times)[:, 0].tolist() == pytest.approx([1 - k / 10 for k in range(10)], abs=1e-7)
    torch.testing.assert_close(end, torch.full_like(noise, -1.0))
    assert torch.equal(noise, kept)


def test_blocks_see_earlier_blocks_and_themselves():
    pad = torch.tensor([[True, False, True, True, True]])
    mask = make_att_2d_masks(pad, torch.tensor([[0, 0, 1, 1, 1]]))
    rows = ["10000", "00000", "10100", "10110", "10111"]
    assert ["".join(str(int(v)) for v in row) for row in mask[0]] == rows
    with pytest.raises(ValueError, match="2-D"):
        make_att_2d_masks(pad[0], pad[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_query_without_keys_stays_finite_and_harms_no_other(dtype):
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 3, h, 8, dtype=dtype).requires_grad_() for h in (4, 2, 2))
    mask = torch.tensor([[[True, True, False], [True, True, False], [False, False, False]]])
    out = grouped_attention(q, k, v, attention_bias(mask))
    alone = grouped_attention(q[:, :2], k[:, :2], v[:, :2], attention_bias(mask[:, :2, :2]))
    assert out.isfinite().all()
    torch.testing.assert_close(out[:, :2], alone)
    out[:, :2].sum().backward()
    assert v.grad[:, 2].abs().max() == 0 and k.grad.isfinite().all()


def test_grouped_heads_read_consecutive_kv_heads():
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 5, 6, 8), torch.randn(2, 7, 2, 8), torch.randn(2, 7, 2, 8)
    out = grouped_attention(q, k, v, torch.zeros(1, 1, 1, 7)).view(2, 5, 6, 8)
    for head in range(6):
        scores = q[:, :, head] @ k[:, :, head // 3].transpose(1, 2) / math.sqrt(8)
        torch.testing.assert_close(out[:, :, head], scores.softmax(-1) @ v[:, :, head // 3])


def test_connector_joins_squares_row_by_row():
    raw = {**json.loads((SIZES / "smolvla_mini" / "config.json").read_text()), "scale_factor": 2}
    config = SmolVLMConfig.from_dict(raw)
    torch.manual_seed(0)
    connector, r, width = Connector(config), config.scale_factor, config.vision.hidden_size
    rows, cols = 4, 6
    patches = torch.randn(1, rows, cols, width)
    tokens = connector(patches.flatten(1, 2), (rows, cols))
    for y in range(rows // r):
        for x in range(cols // r):
            square = [patches[0, y * r + dy, x * r + dx] for dy in range(r) for dx in range(r)]
            expected = connector.modality_projection.proj(torch.cat(square))
            torch.testing.assert_close(tokens[0, y * (cols // r) + x], expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="3 x 6 patches"):
        connector(patches[:, :3].flatten(1, 2), (3, 6))


def test_rms_norm_rounds_before_its_weight():
    torch.manual_seed(0)
    norm, x = RMSNorm(16, 1e-5), torch.randn(3, 16).bfloat16()
    norm.weight.data = torch.rand(16)
    wide = x.float()
    rounded = (wide / (wide.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()).bfloat16()
    torch.testing.assert_close(norm(x), norm.weight * rounded, atol=1e-2, rtol=0)
    assert norm(x).dtype == torch.float32  # float32 weight times bfloat16
    assert norm.bfloat16()(x).dtype == torch.bfloat16


@pytest.mark.parametrize(("width", "expected"), [(720, 2048), (432, 1280), (1536, 4096), (48, 256)])
def test_width_of_the_experts_mlp(width, expected):
    assert get_intermediate_size(width) == expected


@pytest.mark.parametrize(
    ("source", "inner"), [((480, 640), (384, 512)), ((720, 1280), (288, 512)), ((480, 848), (289, 512))]
)
def test_letterbox_pads_left_and_top(source, inner):
    padded = resize_with_pad(torch.ones(1, 3, *source), 512, 512)
    assert padded.shape == (1, 3, 512, 512)
    top, left = 512 - inner[0], 512 - inner[1]
    torch.testing.assert_close(padded[..., top:, left:], torch.ones(1, 3, *inner))
    assert (padded != 0).sum() == 3 * inner[0] * inner[1]


def test_letterbox_leaves_fitting_pictures_alone():
    image = torch.rand(2, 3, 96, 128)
    assert resize_with_pad(image, 128, 96) is image
    with pytest.raises(ValueError, match="got \\(3, 96, 128\\)"):
        resize_with_pad(image[0], 128, 96)


def test_padding_of_vectors_and_sequences():
    assert pad_vector(torch.ones(2, 3, 6), 32).sum() == 36
    assert pad_vector(torch.ones(2, 6), 6).shape == (2, 6)
    with pytest.raises(ValueError, match="width 7 .* 6"):
        pad_vector(torch.ones(2, 7), 6)
    padded = pad_tensor(torch.ones(2, 3, 4), 5, pad_value=2)
    assert padded.shape == (2, 5, 4) and (padded[:, 3:] == 2).all()
    assert pad_tensor(torch.ones(2, 3), 2).shape == (2, 3)


def test_aloha_gripper_conversions_match_known_values():
    x = torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64)
    for function, expected in [
        (aloha.aloha_gripper_to_angular, [-0.37050, -0.00358, 1.06436]),
        (aloha.aloha_gripper_from_angular, [0.61369, 0.74388, 1.00426]),
        (aloha.aloha_gripper_from_angular_inv, [-0.44839, 0.03168, 0.99182]),
    ]:
        assert function(x).tolist() == pytest.approx(expected, abs=1e-5)


def test_aloha_conversion_flips_signs_and_leaves_its_input_alone():
    x = torch.rand(2, 3, 14)
    kept = x.clone()
    actions = aloha.encode_actions_inv(x)
    assert torch.equal(x, kept)
    torch.testing.assert_close(actions[..., [1, 2, 8, 9]], -x[..., [1, 2, 8, 9]])
    assert torch.equal(actions[..., [0, 3, 4, 5, 7]], x[..., [0, 3, 4, 5, 7]])
    torch.testing.assert_close(aloha.encode_actions(actions), x)


def vision_config(**changes):
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "image_size": 64, "patch_size": 16, "num_hidden_layers": 1}
    return VisionConfig(**{**sizes, "intermediate_size": 16, **changes})


def test_stem_makes_the_patches_that_its_stride_leaves():
    tower = VisionModel(vision_config(stem_layers=2, stem_width=4))
    features, grid = tower(torch.zeros(2, 3, 64, 32))
    assert features.shape == (2, 8, 16) and grid == (4, 2)
    assert tower.embeddings.patch_embedding.kernel_size == (2, 2)  # 16 pixels, of which the stem strides 8
    assert VisionModel(vision_config()).embeddings.stem is None


def test_stem_needs_a_patch_size_that_its_stride_divides():
    with pytest.raises(ValueError, match="patch_size 16 is not a multiple of 32.*stem_layers"):
        vision_config(stem_layers=4)
