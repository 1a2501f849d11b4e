"""Checks at the door: each raises an error that names the argument, the place and the value."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from tabrl.errors import ModelError, ShapeError
from tabrl.types import B, F, Matrix

SUM_TOLERANCE = 1e-9  # row sums of float64 input
SUM_TOLERANCE_32 = 1e-5  # row sums of float32 input


def real(x: Any, name: str, shape: tuple[int, ...] | None = None) -> F:
    """Copy `x` to float64; refuse what is not a finite real array of the given shape."""
    try:
        y = np.asarray(x)
    except ValueError:
        raise ShapeError(f"{name} has rows of different lengths; a rectangular array is expected") from None
    if y.dtype.kind not in "biuf":
        raise ModelError(f"{name} has dtype {y.dtype}; a real array is expected")
    if np.ma.is_masked(x):
        raise ModelError(f"{name} is a masked array with hidden entries; a plain array is expected")
    if shape is not None and y.shape != shape:
        raise ShapeError(f"{name} has shape {y.shape}; {shape} is expected")
    y = np.array(y, dtype=np.float64)
    if not np.isfinite(y).all():
        where = tuple(np.argwhere(~np.isfinite(y))[0])
        raise ModelError(f"{place(name, where)} is {y[where]}; a finite number is expected")
    return y


def mask(x: Any, name: str, shape: tuple[int, ...]) -> B:
    """Copy `x` to a boolean array of the given shape; 0 and 1 are accepted, other numbers are not."""
    y = np.asarray(x)
    if y.shape != shape:
        raise ShapeError(f"{name} has shape {y.shape}; a boolean mask of shape {shape} is expected")
    if y.dtype.kind != "b":
        wrong = np.argwhere((y != 0) & (y != 1))
        if len(wrong):
            where = tuple(wrong[0])
            raise ModelError(f"{place(name, where)} is {y[where]}; True or False is expected")
    return np.array(y, dtype=np.bool_)


def discount(gamma: Any) -> float:
    """Return gamma as a float in [0, 1]."""
    try:
        value = float(gamma) if not isinstance(gamma, str | bytes) else math.nan
    except (TypeError, ValueError):
        raise ModelError(f"gamma is {gamma!r}; a number in [0, 1] is expected") from None
    if not 0.0 <= value <= 1.0:
        raise ModelError(f"gamma is {gamma!r}; a number in [0, 1] is expected")
    return value


def tolerance(tol: float) -> float:
    """Return tol if it is a positive number."""
    if not tol > 0:
        raise ValueError(f"tol is {tol}; a positive number is expected")
    return float(tol)


def distribution(p: Any, name: str, n: int) -> F:
    """Copy `p` to a probability vector of length n, divided by its sum if that is within 1e-9 of 1."""
    y = real(p, name, (n,))
    if (y < 0).any():
        i = int(np.argmax(y < 0))
        raise ModelError(f"{name}[{i}] is {y[i]}; a probability >= 0 is expected")
    if abs(y.sum() - 1) > SUM_TOLERANCE:
        raise ModelError(f"{name} sums to {y.sum():.12g}; a distribution over {n} entries is expected")
    return settle(y[None])[0]  # type: ignore[no-any-return]


def policy(pi: Any, S: int, A: int, legal: B | None = None, name: str = "pi") -> F:
    """Copy `pi` to a row-stochastic (S,A) array that puts no weight on illegal actions.

    Rows whose sum is within 1e-9 of 1 are divided by it.
    """
    y = real(pi, name, (S, A))
    if (y < 0).any():
        s, a = np.argwhere(y < 0)[0]
        raise ModelError(f"{name}[s={s}, a={a}] is {y[s, a]}; a probability >= 0 is expected")
    total = y.sum(1)
    if (abs(total - 1) > SUM_TOLERANCE).any():
        s = int(np.argmax(abs(total - 1) > SUM_TOLERANCE))
        raise ModelError(f"{name}[s={s}] sums to {total[s]:.12g}; every row must be a distribution over actions")
    if legal is not None and (y[~legal] > 0).any():
        s, a = np.argwhere((y > 0) & ~legal)[0]
        raise ModelError(f"{name}[s={s}, a={a}] is {y[s, a]}; the action is illegal there, 0 is expected")
    return settle(y)  # type: ignore[no-any-return]


def settle(rows: Matrix) -> Matrix:
    """Divide each row by its sum, unless it is 1 up to rounding already (so that twice is once)."""
    total = np.asarray(rows.sum(axis=1)).ravel()
    n = np.diff(rows.indptr).max(initial=1) if sp.issparse(rows) else rows.shape[1]
    off = (total > 0) & (abs(total - 1) > 2.0**-53 * (n + 1))
    if not off.any():
        return rows
    scale = np.where(off, total, 1.0)
    if sp.issparse(rows):
        rows.data /= np.repeat(scale, np.diff(rows.indptr))
        return rows
    return rows / scale[:, None]


def place(name: str, where: Sequence[Any]) -> str:
    """Name an entry: `R[s=1, a=0, s'=2]` for model arrays, `V[3]` for others."""
    axes = {"P": ("s", "a", "s'"), "R": ("s", "a", "s'"), "legal": ("s", "a")}.get(name)
    index = ", ".join(f"{axes[i]}={int(w)}" if axes else str(int(w)) for i, w in enumerate(where))
    return f"{name}[{index}]"
