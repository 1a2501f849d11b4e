"""Statistics over replicates, as plain functions of arrays.

x any array; axis the axis of its n replicates. A replicate that failed is NaN, and so is what it enters.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tabrl.errors import ShapeError
from tabrl.types import F

Array: TypeAlias = npt.NDArray[Any]
BLOCK = 2**22  # resampled numbers held at once


def mean(x: Array, axis: int = -1) -> F:
    """Sample mean over the replicates, (1/n) Σ x_i.

    >>> float(mean(np.array([1.0, 2.0, 6.0])))
    3.0
    """
    return np.mean(x, axis=axis, dtype=np.float64)  # type: ignore[no-any-return]


def standard_error(x: Array, axis: int = -1) -> F:
    """Standard error of the sample mean.

        sqrt( Σ (x_i - mean)² / (n (n-1)) )

    Raises ShapeError for fewer than two replicates.

    >>> float(standard_error(np.array([1.0, 3.0])))
    1.0
    """
    n = replicates(x, axis)
    return np.std(x, axis=axis, ddof=1, dtype=np.float64) / np.sqrt(n)  # type: ignore[no-any-return]


def quantiles(x: Array, q: Any, axis: int = -1) -> F:
    """Sample quantiles over the replicates, linear between order statistics; the axis of q comes first.

    Shape (*q.shape, *x.shape without axis). q = .5 is the median. Raises ValueError for q outside [0, 1].

    >>> quantiles(np.arange(5.0), [0.25, 0.5])
    array([1., 2.])
    """
    return np.quantile(np.asarray(x, dtype=np.float64), q, axis=axis)  # type: ignore[no-any-return]


def bootstrap_interval(
    x: Array, rng: np.random.Generator, *, axis: int = -1, level: float = 0.95, resamples: int = 9999,
    method: str = "BCa",
) -> F:  # fmt: skip
    """Bootstrap confidence interval of the mean, by resampling the replicates.

    Returns (2, *x.shape without axis): the lower and the upper end. Replicates that are all equal give an interval
    of length zero; NaN or infinite ones give NaN. method: "BCa" (bias-corrected and accelerated), "percentile" or
    "basic". With few replicates (n < 20) every method covers the mean less often than `level`.
    Raises ShapeError for fewer than two replicates, ValueError for a level outside (0, 1).
    Source: Efron & Tibshirani (1993), chapters 13 and 14; `scipy.stats.bootstrap`.

    >>> low, high = bootstrap_interval(np.arange(100.0), np.random.default_rng(0))
    >>> bool(43 < low < 45 and 54 < high < 56)
    True
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; a number between 0 and 1 is expected")
    n = replicates(x, axis)
    rows = np.moveaxis(np.asarray(x, dtype=np.float64), axis, -1)
    shape, rows = rows.shape[:-1], rows.reshape(-1, n)
    ends = np.where(np.isfinite(rows).all(1), rows[:, 0], np.nan) * np.ones((2, 1))
    varies = np.isfinite(rows).all(1) & (rows != rows[:, :1]).any(1)
    if varies.any():
        ends[:, varies] = resampled(rows[varies], rng, level, resamples, method)
    return ends.reshape(2, *shape)


def resampled(rows: F, rng: np.random.Generator, level: float, resamples: int, method: str) -> F:
    """Interval of the mean of each row, (2, rows), a block of rows at a time."""
    from scipy.stats import bootstrap

    n = rows.shape[1]
    step = max(1, BLOCK // max(resamples, n))
    answers = [
        bootstrap(
            (block,), np.mean, axis=-1, confidence_level=level, n_resamples=resamples, method=method,
            batch=max(1, BLOCK // block.size), rng=rng,
        ).confidence_interval
        for block in (rows[i : i + step] for i in range(0, len(rows), step))
    ]  # fmt: skip
    return np.concatenate([np.stack(ends) for ends in answers], axis=1)


def replicates(x: Array, axis: int) -> int:
    """Number of replicates; raise ShapeError where a spread cannot be estimated."""
    shape = np.shape(x)
    if not -len(shape) <= axis < len(shape):
        raise ShapeError(f"x has shape {shape}; an axis {axis} is expected")
    if shape[axis] < 2:
        raise ShapeError(f"x has {shape[axis]} replicates along axis {axis}; two or more are expected")
    return int(shape[axis])
