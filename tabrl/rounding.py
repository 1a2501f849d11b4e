"""Bounds on what floating-point arithmetic can have done.

u = 2**-53 unit roundoff; c(k) relative error of k roundings. Source: Higham (2002), chapter 3.
"""

import numpy as np
import scipy.sparse as sp

from tabrl.types import Matrix

U = 2.0**-53  # unit roundoff of float64
UP = 1.0 + 2.0**-40  # outweighs the rounding of the few operations that compute a bound


def c(k: int) -> float:
    """Relative error of k roundings, k u / (1 - k u). Source: Higham (2002), lemma 3.1."""
    return k * U / (1 - k * U)


def longest_row(rows: Matrix) -> int:
    """Largest number of non-zero entries in a row, at least 1."""
    if sp.issparse(rows):
        return int(np.diff(rows.indptr).max(initial=1))
    return int(np.count_nonzero(rows, axis=1).max(initial=1))


def row_error(rows: Matrix) -> float:
    """Upper bound on |row sum - 1| over the rows that are not zero, stored floats read as exact numbers.

    >>> row_error(np.array([[0.0, 1.0], [0.0, 0.0]]))
    0.0
    >>> 2.0**-55 <= row_error(np.array([[1 / 3, 1 / 3, 1 / 3]])) <= 1e-15
    True
    """
    entries = rows.data if sp.issparse(rows) else rows
    if ((entries == 0) | (entries == 1)).all():
        return 0.0
    total = np.asarray(rows.sum(axis=1)).ravel()
    return float(abs(total[total > 0] - 1).max(initial=0.0) * UP + 1.5 * c(longest_row(rows)))
