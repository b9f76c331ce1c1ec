"""Curves as text and as pictures."""

import cv2
import numpy as np

from lerobot.common.evaluation.plots import comparable_loss, loss_curve_text, save_loss_curve, save_metrics_plot

STEPS = list(range(0, 1000, 10))


def filled_rows(text):
    """Per column the first line with a dot, None without one."""
    lines = [line.split("│")[1] for line in text.splitlines() if "│" in line]
    width = max(map(len, lines))
    columns = zip(*(line.ljust(width) for line in lines), strict=True)
    return [next((i for i, mark in enumerate(column) if mark != " "), None) for column in columns]


def test_a_falling_loss_falls_from_the_top_left_to_the_bottom_right():
    text = loss_curve_text(STEPS, [3 - 2 * s / 990 for s in STEPS], width=50, height=10)
    rows = filled_rows(text)
    assert rows[0] == 0 and rows[-1] == 9
    assert None not in rows and rows == sorted(rows)
    assert len(text.splitlines()) == 11 and max(map(len, text.splitlines())) <= 50
    assert text.splitlines()[0].startswith("        3│") and "step 990" in text and "log" not in text


def test_a_loss_that_falls_far_gets_a_logarithmic_axis():
    text = loss_curve_text(STEPS, [10 ** (1 - s / 330) for s in STEPS], width=50, height=10)
    rows = filled_rows(text)
    assert "log scale" in text
    assert abs(rows[len(rows) // 2] - 5) <= 1  # a straight line


def test_values_that_are_no_numbers_are_left_out():
    assert "No loss" in loss_curve_text([1, 2], [float("nan"), float("inf")])
    text = loss_curve_text([1, 2, 3], [1.0, float("nan"), 0.5], width=30, height=4)
    assert "nan" not in text and "0.5│" in text


def test_constant_losses_and_a_single_point_can_be_drawn():
    assert filled_rows(loss_curve_text([5], [1.0], width=30, height=4))[0] == 0
    assert set(filled_rows(loss_curve_text(STEPS, [1.0] * 100, width=30, height=4))) == {0}


def test_the_picture_shows_the_curve(tmp_path):
    save_loss_curve(tmp_path / "flat.png", STEPS, [1.0] * 100)
    save_loss_curve(tmp_path / "steep.png", STEPS, [1.0 - s / 1000 for s in STEPS])
    flat, steep = (cv2.imread(str(tmp_path / name)) for name in ("flat.png", "steep.png"))
    assert flat.shape == steep.shape and np.abs(flat.astype(int) - steep).max() > 100


def test_the_rows_of_a_run_give_one_panel_for_each_thing_that_was_measured(tmp_path):
    losses = [{"step": s, "loss": 1.0, "lr": 1e-4} for s in STEPS]
    save_metrics_plot(losses, tmp_path / "two.png")
    save_metrics_plot([*losses, {"step": 500, "eval/pc_success": 60.0}], tmp_path / "three.png")
    heights = [cv2.imread(str(tmp_path / name)).shape[0] for name in ("two.png", "three.png")]
    assert heights[1] > heights[0]


def test_held_out_and_training_loss_are_drawn_of_the_same_parts(tmp_path):
    parts = {"classification_loss": 2.0, "offset_loss": 1.0}
    same = [
        {"step": 1, "loss": 3.0, **parts},
        {"step": 1, "eval/loss": 3.0, **{f"eval/{k}": v for k, v in parts.items()}},
    ]
    assert comparable_loss(same) == comparable_loss([{"step": 1, "loss": 3.0}]) == ("loss", "loss")
    assert comparable_loss([{"step": 1, "l1_loss": 1.0, "kld_loss": 2.0}]) == ("loss", "loss")  # nothing to compare
    held_out = [{"step": 500, "eval/loss": 1.0, "eval/l1_loss": 1.0}]
    for name, latent in (("small.png", 0.1), ("large.png", 9.0)):
        rows = [{"step": s, "loss": 1 + latent, "l1_loss": 1.0, "kld_loss": latent} for s in STEPS]
        save_metrics_plot(rows + held_out, tmp_path / name)
    assert (tmp_path / "small.png").read_bytes() == (tmp_path / "large.png").read_bytes()
