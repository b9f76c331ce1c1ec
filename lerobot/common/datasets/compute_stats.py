"""Statistics of episodes and of datasets (the v2.1 rules: population std, pictures sampled and strided)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np


def estimate_num_samples(
    dataset_len: int, min_num_samples: int = 100, max_num_samples: int = 10_000, power: float = 0.75
) -> int:
    """How many pictures of an episode enter its statistics."""
    return max(min(min_num_samples, dataset_len), min(int(dataset_len**power), max_num_samples))


def sample_indices(data_len: int) -> list[int]:
    """The evenly spread frame numbers that enter the picture statistics of an episode."""
    return np.round(np.linspace(0, data_len - 1, estimate_num_samples(data_len))).astype(int).tolist()


def downsample_stride(height: int, width: int, max_size_threshold: int = 300, target_size: int = 150) -> int:
    """Statistics read every n-th pixel of each axis; n keeps the longer side at or above 150 pixels."""
    if max(height, width) < max_size_threshold:
        return 1
    return int(width / target_size) if width > height else int(height / target_size)


def auto_downsample_height_width(img: np.ndarray, target_size: int = 150, max_size_threshold: int = 300) -> np.ndarray:
    """(C, H, W) -> the strided view that enters the statistics."""
    stride = downsample_stride(*img.shape[1:], max_size_threshold, target_size)
    return img[:, ::stride, ::stride]


def load_image_as_numpy(fpath: str | Path, dtype: np.dtype = np.float32, channel_first: bool = True) -> np.ndarray:
    """Read a picture file as RGB (C, H, W), or (H, W, C); floats are in [0, 1], integers in [0, 255]."""
    image = cv2.imread(str(fpath), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise OSError(f"'{fpath}' is not a picture that can be read.")
    if channel_first:
        image = image.transpose(2, 0, 1)
    return (image / 255.0 if np.issubdtype(dtype, np.floating) else image).astype(dtype, copy=False)


def sample_images(image_paths: Sequence[str | Path]) -> np.ndarray:
    """The pictures of an episode that enter its statistics, uint8 (N, C, h, w)."""
    chosen = [load_image_as_numpy(image_paths[i], np.uint8) for i in sample_indices(len(image_paths))]
    return np.stack([auto_downsample_height_width(image) for image in chosen])


DEFAULT_QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)
NO_QUANTILES = ()  # asks for the statistics of v2.1, which has none
QUANTILE_BINS = 5000


def histogram_quantiles(rows: np.ndarray, quantiles: Sequence[float]) -> dict[str, np.ndarray]:
    """Quantiles of each column of (N, D) as LeRobot 0.4 estimates them: {"q01": (D,), ...}.

    A histogram of 5000 bins from 1e-10 below the minimum to 1e-10 above the maximum, linear inside a bin; the
    first bin gives its left edge. float32 numbers have float32 edges. Fewer than two rows give their mean.
    """
    names = [f"q{round(q * 100):02d}" for q in quantiles]
    rows = np.asarray(rows)
    rows = rows if rows.dtype == np.float32 else rows.astype(np.float64)
    if len(rows) < 2:
        return {name: rows.mean(axis=0) for name in names}
    columns = []
    for values in rows.T:
        edges = _bin_edges(values)
        columns.append(quantiles_of(np.histogram(values, bins=edges)[0], edges, quantiles))
    return dict(zip(names, np.array(columns).T, strict=True))


def _bin_edges(values: np.ndarray) -> np.ndarray:
    edges = np.linspace(values.min() - 1e-10, values.max() + 1e-10, QUANTILE_BINS + 1)
    if np.all(edges[1:] >= edges[:-1]):
        return edges
    return _bin_edges(values.astype(np.float64))  # a range too narrow for that many float32 steps


def quantiles_of(counts: np.ndarray, edges: np.ndarray, quantiles: Sequence[float]) -> list[float]:
    """Quantiles of one column from its histogram, linear inside a bin: counts (bins,), edges (bins + 1,)."""
    cumulative, result = np.cumsum(counts), []
    for q in quantiles:
        target = q * cumulative[-1]
        place = int(np.searchsorted(cumulative, target))
        if place == 0:
            result.append(edges[0])
        else:
            inside = (target - cumulative[place - 1]) / counts[place]
            result.append(edges[place] + inside * (edges[place + 1] - edges[place]))
    return result


def get_feature_stats(
    array: np.ndarray,
    axis: tuple[int, ...] | int | None,
    keepdims: bool,
    quantile_list: Sequence[float] | None = None,
) -> dict[str, np.ndarray]:
    """min, max, mean, population std over `axis`, the number of entries of axis 0, and quantiles (None: the five
    of `DEFAULT_QUANTILES`).

    As in LeRobot 0.4: over axis 0 an array of several dimensions counts as rows of its last one, (T, 2, 3) giving
    (3,), and a statistic that is one number has shape (1,). `NO_QUANTILES` gives the shapes of numpy, as v2.1 has.
    """
    if quantile_list is not None and len(quantile_list) == 0:
        return _moments(array, axis, keepdims)
    count = np.array([len(array)])
    if axis in (0, (0,)) and array.ndim > 2:
        array = array.reshape(-1, array.shape[-1])
    stats = _moments(array, axis, keepdims)
    rows = _rows(array, axis)
    stats |= histogram_quantiles(rows, DEFAULT_QUANTILES if quantile_list is None else quantile_list)
    shape = stats["mean"].shape or (1,)
    return {name: np.reshape(value, shape) for name, value in stats.items() if name != "count"} | {"count": count}


def _rows(array: np.ndarray, axis: tuple[int, ...] | int | None) -> np.ndarray:
    """(N, D): the N entries along the reduced axes of each of the D statistics."""
    reduced = range(array.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
    reduced = sorted({a % array.ndim for a in reduced})
    kept = [a for a in range(array.ndim) if a not in reduced]
    return array.transpose([*reduced, *kept]).reshape(-1, int(np.prod([array.shape[a] for a in kept])))


def _moments(array: np.ndarray, axis: tuple[int, ...] | int | None, keepdims: bool) -> dict[str, np.ndarray]:
    return {
        "min": np.min(array, axis=axis, keepdims=keepdims),
        "max": np.max(array, axis=axis, keepdims=keepdims),
        "mean": np.mean(array, axis=axis, keepdims=keepdims),
        "std": np.std(array, axis=axis, keepdims=keepdims),
        "count": np.array([len(array)]),
    }


class PictureHistograms:
    """Colour histograms of a camera's frames, from which the statistics of the sampled frames follow exactly.

    Which frames are sampled depends on the length of the episode, known only at its end; a histogram per
    frame (3 x 256 counts) is all that has to be kept until then.
    """

    def __init__(self):
        self._frames: list[np.ndarray] = []

    def add(self, image: np.ndarray) -> None:
        """Count one uint8 (H, W, C) picture."""
        stride = downsample_stride(*image.shape[:2])
        self._frames.append(color_counts(image[::stride, ::stride]))

    def stats(self, quantile_list: Sequence[float] = NO_QUANTILES) -> dict[str, np.ndarray]:
        """Statistics over the sampled frames, values scaled to [0, 1], shape (C, 1, 1)."""
        chosen = sample_indices(len(self._frames))
        counts = np.sum([self._frames[i] for i in chosen], axis=0, dtype=np.int64)
        return color_stats(counts, len(chosen), quantile_list)


def color_counts(image: np.ndarray) -> np.ndarray:
    """How often each value occurs in a uint8 (H, W, C) picture: (C, 256)."""
    counts = [np.bincount(image[..., c].ravel(), minlength=256) for c in range(image.shape[2])]
    return np.array(counts, dtype=np.uint32)


def color_stats(
    counts: np.ndarray, num_pictures: int, quantile_list: Sequence[float] = NO_QUANTILES
) -> dict[str, np.ndarray]:
    """Statistics in [0, 1], shape (C, 1, 1), of pictures with these value counts (C, 256)."""
    values = np.arange(256)
    total, sums, squares = counts.sum(axis=1), counts @ values, counts @ values**2
    # Integers until the last step: the variance is exact, without cancellation.
    variance = np.array(
        [(int(n) * int(q) - int(s) ** 2) / int(n) ** 2 for n, s, q in zip(total, sums, squares, strict=True)]
    )
    result = {
        "min": (counts > 0).argmax(axis=1),
        "max": 255 - (counts[:, ::-1] > 0).argmax(axis=1),
        "mean": sums / total,
        "std": np.sqrt(variance),
    }
    if quantile_list:
        result |= _color_quantiles(counts, result["min"], result["max"], quantile_list)
    result = {name: (value / 255.0).reshape(-1, 1, 1) for name, value in result.items()}
    return {**result, "count": np.array([num_pictures])}


def _color_quantiles(
    counts: np.ndarray, low: np.ndarray, high: np.ndarray, quantiles: Sequence[float]
) -> dict[str, np.ndarray]:
    """Quantiles of 8-bit values per channel from how often each occurs, counts (C, 256)."""
    columns = []
    for channel, first, last in zip(counts, low, high, strict=True):
        edges = np.linspace(first - 1e-10, last + 1e-10, QUANTILE_BINS + 1)
        binned = np.histogram(np.arange(256), bins=edges, weights=channel)[0]
        columns.append(quantiles_of(binned, edges, quantiles))
    names = [f"q{round(q * 100):02d}" for q in quantiles]
    return dict(zip(names, np.array(columns).T, strict=True))


def compute_episode_stats(
    episode_data: dict, features: dict[str, dict], quantile_list: Sequence[float] | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """Statistics of one episode, with quantiles as v3.0 stores them unless `quantile_list` is `NO_QUANTILES`.

    `episode_data` holds per feature an array (T, ...), or for a picture the list of its files or its
    `PictureHistograms`; strings are skipped. Of a feature of several dimensions v3.0 has statistics of its last one
    (2x3 numbers a frame: 3), v2.1 of each number.
    """
    stats, quantile_list = {}, DEFAULT_QUANTILES if quantile_list is None else quantile_list
    for key, data in episode_data.items():
        dtype = features[key]["dtype"]
        if dtype == "string":
            continue
        if isinstance(data, PictureHistograms):
            stats[key] = data.stats(quantile_list)
        elif dtype in ("image", "video"):
            raw = get_feature_stats(sample_images(data), (0, 2, 3), True, quantile_list)
            stats[key] = {name: v if name == "count" else np.squeeze(v / 255.0, axis=0) for name, v in raw.items()}
        else:
            array = np.asarray(data)
            stats[key] = get_feature_stats(array, 0, array.ndim == 1, quantile_list)
    return stats


def _over_last_axis(part: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Statistics of each number of a feature as v3.0 has them, of its last dimension."""
    rows = {name: value.reshape(-1, value.shape[-1]) for name, value in part.items() if name != "count"}
    mean = rows["mean"].mean(axis=0)
    variance = (rows["std"] ** 2 + (rows["mean"] - mean) ** 2).mean(axis=0)
    result = {name: value.mean(axis=0) for name, value in rows.items()}
    extremes = {"min": rows["min"].min(axis=0), "max": rows["max"].max(axis=0), "std": np.sqrt(variance)}
    return {**result, **extremes, "count": part["count"]}


def aggregate_feature_stats(stats_ft_list: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Statistics of the union of disjoint parts from the statistics of each, in the coarser form if these differ."""
    if len({part["mean"].shape for part in stats_ft_list}) > 1:
        stats_ft_list = [_over_last_axis(part) for part in stats_ft_list]
    counts = np.stack([part["count"] for part in stats_ft_list])
    means = np.stack([part["mean"] for part in stats_ft_list])
    variances = np.stack([part["std"] for part in stats_ft_list]) ** 2
    weights = counts.reshape(len(stats_ft_list), *[1] * (means.ndim - 1))
    total = counts.sum(axis=0)
    mean = (means * weights).sum(axis=0) / total
    variance = ((variances + (means - mean) ** 2) * weights).sum(axis=0) / total
    result = {
        "min": np.min([part["min"] for part in stats_ft_list], axis=0),
        "max": np.max([part["max"] for part in stats_ft_list], axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": total,
    }
    for name in sorted(set.intersection(*[set(part) for part in stats_ft_list])):
        if name[0] == "q" and name[1:].isdigit():
            result[name] = (np.stack([part[name] for part in stats_ft_list]) * weights).sum(axis=0) / total
    return result


def aggregate_stats(stats_list: Sequence[dict[str, dict]]) -> dict[str, dict[str, np.ndarray]]:
    """Combine the statistics of episodes or datasets; keys are the union over the parts.

    ValueError if a value is not an array of at least one dimension or a picture's statistic is not (3, 1, 1).
    """
    for stats in stats_list:
        _check_stats(stats)
    keys = dict.fromkeys(key for stats in stats_list for key in stats)
    return {key: aggregate_feature_stats([stats[key] for stats in stats_list if key in stats]) for key in keys}


def _check_stats(stats: dict[str, dict]) -> None:
    for key, feature in stats.items():
        for name, value in feature.items():
            if not isinstance(value, np.ndarray) or value.ndim == 0:
                raise ValueError(
                    f"Statistic '{key}/{name}' must be an array of at least one dimension; found {value!r}."
                )
            if name == "count" and value.shape != (1,):
                raise ValueError(f"Statistic '{key}/count' must have shape (1,); found {value.shape}.")
            if name != "count" and "image" in key and value.shape != (3, 1, 1):
                raise ValueError(f"Statistic '{key}/{name}' must have shape (3, 1, 1); found {value.shape}.")
