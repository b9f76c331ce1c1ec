"""Statistics of a stream of batches, without keeping the values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lerobot.common.datasets.compute_stats import DEFAULT_QUANTILES, QUANTILE_BINS, quantiles_of


class RunningQuantileStats:
    """min, max, mean, population std, count and quantiles of the rows given so far, per column.

    Values are counted in `num_quantile_bins` bins between the smallest and the largest one so far; when that
    range grows, the counts move to the bins that now hold the old bins' left edges.
    """

    def __init__(self, quantile_list: Sequence[float] | None = None, num_quantile_bins: int = QUANTILE_BINS):
        self.quantiles = list(quantile_list or DEFAULT_QUANTILES)
        self.bins, self.count = num_quantile_bins, 0

    def update(self, batch: np.ndarray) -> None:
        """Add an array (..., D) as rows of D numbers; ValueError if D is another one than before."""
        rows = np.asarray(batch, dtype=np.float64)
        rows = rows.reshape(-1, rows.shape[-1])
        if not self.count:
            self._start(rows)
        elif rows.shape[1] != len(self._sum):
            raise ValueError(f"A batch of vectors of length {rows.shape[1]}; the earlier ones have {len(self._sum)}.")
        self._widen(rows.min(axis=0), rows.max(axis=0))
        self.count += len(rows)
        self._sum += rows.sum(axis=0)
        self._squares += (rows**2).sum(axis=0)
        for column, edges, counts in zip(rows.T, self._edges, self._counts, strict=True):
            counts += np.histogram(column, bins=edges)[0]

    def get_statistics(self) -> dict[str, np.ndarray]:
        """The statistics, each (D,), `count` (1,); ValueError with fewer than two rows."""
        if self.count < 2:
            raise ValueError(f"Statistics need at least two rows; found {self.count}.")
        mean = self._sum / self.count
        stats = {
            "min": self._min,
            "max": self._max,
            "mean": mean,
            "std": np.sqrt(np.maximum(0, self._squares / self.count - mean**2)),
            "count": np.array([self.count]),
        }
        columns = [quantiles_of(c, e, self.quantiles) for c, e in zip(self._counts, self._edges, strict=True)]
        names = [f"q{round(q * 100):02d}" for q in self.quantiles]
        return stats | dict(zip(names, np.array(columns).T, strict=True))

    def _start(self, rows: np.ndarray) -> None:
        self._sum, self._squares = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
        self._min, self._max = rows.min(axis=0), rows.max(axis=0)
        self._counts = np.zeros((rows.shape[1], self.bins))
        self._edges = self._new_edges()

    def _new_edges(self) -> np.ndarray:
        return np.linspace(self._min - 1e-10, self._max + 1e-10, self.bins + 1, axis=1)

    def _widen(self, low: np.ndarray, high: np.ndarray) -> None:
        if (low >= self._min).all() and (high <= self._max).all():
            return
        self._min, self._max = np.minimum(self._min, low), np.maximum(self._max, high)
        old, self._edges = self._edges, self._new_edges()
        for i, edges in enumerate(self._edges):
            self._counts[i] = np.histogram(old[i, :-1], bins=edges, weights=self._counts[i])[0]
