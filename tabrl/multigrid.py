"""Multigrid for (I - scale P) x = b: what sweeps cannot smooth is solved on groups of states, and so on upwards.

A level is D - N: diagonal (n,), N off-diagonal and non-negative, excess = diagonal - row sums of N. The next level sums
the entries of each group, so its excess is a sum of non-negative numbers: nothing cancels, however rarely a chain ends.
Source: Notay (2010); Notay & Vassilevski (2008) for the cycle.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from tabrl.linear_kernels import backward, forward, pair
from tabrl.types import F, I, Matrix

FEW = 500  # states of the last level, which is factored
ENOUGH = 0.25  # share of the residual at which one cycle is enough
GROWTH = 0.7  # a level with a larger share of the entries is not worth its work


class Level(NamedTuple):
    """One level, and the group of each of its states on the next one."""

    N: Matrix  # (n,n) CSR, no diagonal entries
    diagonal: F  # (n,)
    group: I  # (n,)
    groups: int

    def apply(self, x: F) -> F:
        """(D - N) x."""
        return self.diagonal * x - self.N @ x  # type: ignore[no-any-return]


class Hierarchy(NamedTuple):
    """All levels, and a solver for what is left above them."""

    levels: tuple[Level, ...]
    last: Callable[[F], F]


def split(P: Matrix, excess: F) -> tuple[Matrix, F]:
    """(N, diagonal) from a non-negative CSR matrix, whose diagonal is left out, and the excess of each row."""
    row = np.repeat(np.arange(P.shape[0], dtype=P.indices.dtype), np.diff(P.indptr))
    off = row != P.indices
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row[off], minlength=P.shape[0]))]).astype(P.indptr.dtype)
    N = sp.csr_array((P.data[off], P.indices[off], indptr), shape=P.shape)
    return N, np.asarray(N.sum(axis=1)).ravel() + excess


def merged(N: Matrix, group: I, n: int) -> Matrix:
    """Sum the entries of each pair of groups."""
    row = np.repeat(group, np.diff(N.indptr))
    return sp.csr_array((N.data, (row, group[N.indices])), shape=(n, n))


def hierarchy(N: Matrix, diagonal: F, excess: F) -> Hierarchy:
    """Group until few are left; where groups have too many neighbours, all states become one group."""
    levels: list[Level] = []
    while len(diagonal) > FEW:
        group, n, coarse = quartered(N, excess)
        if coarse.nnz > GROWTH * N.nnz:
            group, n, coarse = np.zeros(len(diagonal), np.int64), 1, sp.csr_array((1, 1))
        levels.append(Level(N, diagonal, group, n))
        excess = np.bincount(group, excess, n).astype(np.float64)
        N, diagonal = split(coarse, excess)
    return Hierarchy(tuple(levels), splu(sp.csc_array(sp.diags_array(diagonal) - N)).solve)


def quartered(N: Matrix, excess: F) -> tuple[I, int, Matrix]:
    """Pair the states, then the pairs: (group of each state, how many, the entries between them)."""
    first = np.full(N.shape[0], -1)
    n = pair(N.indptr, N.indices, N.data, first)
    middle, _ = split(merged(N, first, n), np.bincount(first, excess, n).astype(np.float64))
    second = np.full(n, -1)
    n = pair(middle.indptr, middle.indices, middle.data, second)
    return second[first], n, merged(middle, second, n)


def cycle(h: Hierarchy, b: F) -> F:
    """One cycle: sweep, correct by the groups, sweep back."""
    if not h.levels:
        return h.last(b)
    here = h.levels[0]
    parts = here.N.indptr, here.N.indices, here.N.data, here.diagonal
    x = np.zeros(len(b))
    forward(0, len(b), *parts, b, x)
    r = np.bincount(here.group, b - here.apply(x), here.groups).astype(np.float64)
    x += on_groups(Hierarchy(h.levels[1:], h.last), r)[here.group]
    backward(*parts, b, x)
    return x


def on_groups(h: Hierarchy, b: F) -> F:
    """The best of two cycles: what it leaves is orthogonal to their results; one cycle where that is enough.

    Where D - N is nearly singular and nearly symmetric, as for slow random walks, this projection is what keeps the
    number of cycles small: the smallest residual would not see the slow part of the error.
    """
    c = cycle(h, b)
    if not h.levels:
        return c
    v = h.levels[0].apply(c)
    share = ratio(c @ b, c @ v)
    r = b - share * v
    if float(r @ r) <= ENOUGH**2 * float(b @ b):
        return share * c
    d = cycle(h, r)
    u = h.levels[0].apply(d)
    mixed = ratio(c @ u, c @ v)
    d, u = d - mixed * c, u - mixed * v
    return share * c + ratio(d @ r, d @ u) * d


def ratio(x: Any, y: Any) -> float:
    """Quotient x / y, 0 unless y is positive."""
    return float(x / y) if y > 0 else 0.0


def conjugate_residuals(h: Hierarchy, b: F, *, accuracy: float, limit: int = 60, kept: int = 8) -> F:
    """Solve by cycles, each made orthogonal to the last few, to max|residual| <= accuracy or as far as it goes.

    Source: Eisenstat, Elman & Schultz (1983), Orthomin.
    """
    if not h.levels:
        return h.last(b)
    x, r = np.zeros(len(b)), b.copy()
    directions: list[tuple[F, F]] = []
    for _ in range(limit):
        d = cycle(h, r)
        u = h.levels[0].apply(d)
        for e, v in directions:
            mixed = float(u @ v)
            d -= mixed * e
            u -= mixed * v
        size = float(np.sqrt(u @ u))
        if not size > 0:
            break
        d, u = d / size, u / size
        share = float(u @ r)
        x += share * d
        r -= share * u
        directions = [*directions[1 - kept :], (d, u)]
        if not abs(r).max() > accuracy:
            break
    return x
