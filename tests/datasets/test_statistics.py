"""Statistics of pictures and numbers, per episode and aggregated."""

import numpy as np
import pytest

from lerobot.common.datasets.compute_stats import (
    NO_QUANTILES,
    PictureHistograms,
    aggregate_stats,
    compute_episode_stats,
    downsample_stride,
    estimate_num_samples,
    get_feature_stats,
    sample_indices,
)
from lerobot.common.datasets.image_writer import write_image
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from tests.datasets.conftest import picture


@pytest.mark.parametrize(
    "frames, samples",
    [(1, 1), (10, 10), (100, 100), (200, 100), (1000, 177), (2000, 299), (5000, 594), (10000, 1000)]
    + [(20000, 1681), (50000, 3343), (500000, 10000)],
)
def test_number_of_sampled_pictures(frames, samples):
    indices = sample_indices(frames)
    assert estimate_num_samples(frames) == len(indices) == samples
    assert indices[0] == 0 and indices[-1] == frames - 1


@pytest.mark.parametrize(
    "height, width, stride", [(299, 299, 1), (480, 640, 4), (640, 480, 4), (300, 300, 2), (96, 300, 2)]
)
def test_stride_of_large_pictures(height, width, stride):
    assert downsample_stride(height, width) == stride


def episode_data(tensors, prefix: str) -> dict:
    return {k.removeprefix(prefix): v.numpy() for k, v in tensors.items() if k.startswith(prefix)}


def test_episode_statistics_and_aggregation_equal_the_reference(golden):
    tensors, parts = golden[0], []
    for episode in range(3):
        data = episode_data(tensors, f"stats_in.{episode}.")
        stats = compute_episode_stats(data, {key: {"dtype": "float32"} for key in data})
        parts.append(stats)
        for name, expected in episode_data(tensors, f"stats_out.{episode}.").items():
            key, statistic = name.rsplit(".", 1)
            np.testing.assert_allclose(stats[key][statistic], expected, rtol=1e-5, atol=1e-6, err_msg=name)
    total = aggregate_stats(parts)
    for name, expected in episode_data(tensors, "stats_aggregated.").items():
        key, statistic = name.rsplit(".", 1)
        if not statistic.startswith("q"):
            np.testing.assert_allclose(total[key][statistic], expected, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("frames, size", [(7, (32, 48)), (130, (32, 48)), (3, (300, 400))])
def test_histograms_give_the_statistics_of_the_sampled_pictures(frames, size):
    pictures = [picture(0, i, size=size) for i in range(frames)]
    histograms = PictureHistograms()
    for image in pictures:
        histograms.add(image)
    stride = 2 if size == (300, 400) else 1
    sampled = np.stack([pictures[i][::stride, ::stride] for i in sample_indices(frames)]) / 255.0
    stats = histograms.stats()
    for name in ("min", "max", "mean", "std"):
        expected = getattr(np, name)(sampled, axis=(0, 1, 2)).reshape(3, 1, 1)
        np.testing.assert_allclose(stats[name], expected, rtol=1e-12, err_msg=name)
    assert stats["count"].tolist() == [min(frames, 100)]


def test_picture_files_and_histograms_agree(tmp_path):
    paths, histograms = [], PictureHistograms()
    for i in range(4):
        paths.append(tmp_path / f"{i}.png")
        write_image(picture(1, i), paths[-1])
        histograms.add(picture(1, i))
    features = {"camera": {"dtype": "image"}}
    from_files = compute_episode_stats({"camera": paths}, features)["camera"]
    from_histograms = compute_episode_stats({"camera": histograms}, features)["camera"]
    for name, value in from_files.items():
        assert value.shape == from_histograms[name].shape
        np.testing.assert_allclose(from_histograms[name], value, rtol=1e-12)


def test_shapes_of_statistics():
    data = {"matrix": np.ones((5, 2, 3)), "scalar": np.arange(5.0), "flag": np.array([True, False])}
    stats = compute_episode_stats(
        {**data, "text": ["a"]}, {k: {"dtype": "string" if k == "text" else "f"} for k in [*data, "text"]}
    )
    assert stats.keys() == data.keys()
    assert stats["matrix"]["mean"].shape == (3,)
    assert stats["scalar"]["std"].shape == (1,) and stats["scalar"]["std"][0] == np.sqrt(2)
    assert stats["flag"]["max"].tolist() == [True]


def test_statistics_of_a_recorded_episode_are_those_of_the_frames_given(recorded_root):
    stats = LeRobotDataset(root=recorded_root).meta.episodes_stats[1]
    pictures = np.stack([picture(1, i) for i in range(8)]) / 255
    camera = stats["observation.images.cam0"]
    np.testing.assert_allclose(camera["mean"].ravel(), pictures.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(camera["std"].ravel(), pictures.std(axis=(0, 1, 2)), rtol=1e-12)
    assert camera["count"].tolist() == [8] and camera["min"].shape == (3, 1, 1)
    assert stats["index"]["min"].tolist() == [5] and stats["index"]["max"].tolist() == [12]


@pytest.mark.parametrize(
    "stats, message",
    [
        ({"a": {"min": 1.0}}, "at least one dimension"),
        ({"a": {"count": np.array([1, 2])}}, r"shape \(1,\)"),
        ({"observation.image": {"min": np.zeros(3)}}, r"\(3, 1, 1\)"),
    ],
)
def test_malformed_statistics_are_refused(stats, message):
    with pytest.raises(ValueError, match=message):
        aggregate_stats([stats])


def test_matrix_features_have_statistics_of_each_number_in_v21_and_of_the_last_dimension_in_v30():
    numbers = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
    features = {"m": {"dtype": "float32", "shape": (2, 3)}}
    old = compute_episode_stats({"m": numbers}, features, NO_QUANTILES)["m"]
    new = compute_episode_stats({"m": numbers}, features)["m"]
    np.testing.assert_array_equal(old["std"], numbers.std(axis=0))
    for name in ("min", "max", "mean", "std"):
        expected = getattr(numbers.reshape(-1, 3), name)(axis=0)
        np.testing.assert_allclose(new[name], expected, rtol=1e-6)
    assert new["q50"].shape == (3,) and old["count"] == new["count"] == [7]
    assert compute_episode_stats({"m": numbers[:1]}, features)["m"]["mean"].shape == (3,)
    both = aggregate_stats([{"m": old}, {"m": new}])["m"]  # a converted dataset that is recorded on
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(both[name], new[name], rtol=1e-6)


@pytest.mark.parametrize("keepdims", [True, False])
@pytest.mark.parametrize(
    "shape, axis, kept, dropped",
    [
        ((9,), 0, (1,), (1,)),
        ((9,), None, (1,), (1,)),
        ((9, 3), 0, (1, 3), (3,)),
        ((9, 3), None, (1, 1), (1,)),
        ((9, 2, 3), 0, (1, 3), (3,)),
        ((9, 2, 3), (0,), (1, 3), (3,)),
        ((9, 3, 4, 5), None, (1, 1, 1, 1), (1,)),
        ((9, 3, 4, 5), (0, 2, 3), (1, 3, 1, 1), (3,)),
    ],
)
def test_statistics_have_the_shapes_of_lerobot_0_4(shape, axis, keepdims, kept, dropped):
    array = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    stats = get_feature_stats(array, axis, keepdims)
    assert stats.pop("count").tolist() == [9]
    assert {value.shape for value in stats.values()} == {kept if keepdims else dropped}
    assert {"q01", "q10", "q50", "q90", "q99"} < stats.keys()
    spread = np.ptp(array)
    assert np.all(stats["q50"] <= stats["max"]) and np.all(stats["min"] <= stats["q50"] + spread / 1000)


def test_quantile_list_chooses_the_quantiles_and_none_means_the_five_of_v30():
    rows, features = {"a": np.arange(9.0)}, {"a": {"dtype": "float32"}}
    named = [
        {name for name in compute_episode_stats(rows, features, quantile_list=q)["a"] if name[0] == "q"}
        for q in (None, [0.25], NO_QUANTILES)
    ]
    assert named == [{"q01", "q10", "q50", "q90", "q99"}, {"q25"}, set()]


def test_float32_quantiles_use_float32_bins():
    rows = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32) * 10
    # From LeRobot 0.4.4's get_feature_stats on these numbers.
    expected = [-23.250308990478516, -10.09447193145752, 0.9444332122802734, 13.671741485595703, 19.59829616546631]
    stats = get_feature_stats(rows, 0, False)
    found = [stats[name].item() for name in ("q01", "q10", "q50", "q90", "q99")]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_quantiles_of_numbers_closer_than_float32_bins_are_inside_their_range():
    rows = np.nextafter(np.float32(1000), np.float32([[1000], [2000], [2000]]))
    stats = get_feature_stats(rows, 0, False)
    assert 1000 - 1e-9 <= stats["q01"].item() <= stats["q99"].item() <= rows.max() + 1e-9
