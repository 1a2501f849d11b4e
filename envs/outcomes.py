"""From lists of outcomes to the arrays of a model.

s_next, p, x (S,A,K): the k-th outcome of action a in state s leads to s_next with probability p and pays x.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from tabrl.types import F, I, Matrix


class Outcomes(NamedTuple):
    """Up to K outcomes per state and action; p = 0 marks an unused place."""

    s_next: I  # (S,A,K)
    p: F  # (S,A,K)
    x: F  # (S,A,K) rewards


def merge(effects: Outcomes) -> Outcomes:
    """Add up, in place, outcomes of one (s,a) with the same next state; the reward becomes their mean.

    Equal rewards stay as they are, to the last bit.

    >>> two = Outcomes(np.array([[[1, 1]]]), np.array([[[0.5, 0.5]]]), np.array([[[0.0, 2.0]]]))
    >>> merge(two).p, two.x[0, 0, 0]
    (array([[[1., 0.]]]), np.float64(1.0))
    """
    s_next, p, x = effects
    for k in range(1, p.shape[2]):
        for j in range(k):
            same = (s_next[:, :, j] == s_next[:, :, k]) & (p[:, :, k] > 0)
            differ = same & (x[:, :, j] != x[:, :, k])
            weight = p[differ, j] + p[differ, k]
            x[differ, j] = (p[differ, j] * x[differ, j] + p[differ, k] * x[differ, k]) / weight
            p[same, j] += p[same, k]
            p[same, k] = 0.0
    return effects


def arrays(effects: Outcomes, *, sparse: bool) -> tuple[Matrix, Matrix]:
    """Return P and R as `MDP` takes them; R is (S,A) where no action has rewards that depend on s_next.

    Outcomes must be merged. Dense: P, R (S,A,S). Sparse: P, R CSR (S·A,S).
    """
    s_next, p, x = effects
    used = p > 0
    first = np.take_along_axis(x, used.argmax(2)[:, :, None], 2)
    R: Matrix = first[:, :, 0].copy() if ((x == first) | ~used).all() else None
    build = csr if sparse else dense
    return build(s_next, p, used), build(s_next, x, used) if R is None else R


def dense(s_next: I, values: F, used: Matrix) -> F:
    """Spread values (S,A,K) over next states: (S,A,S)."""
    S, A, _ = values.shape
    out = np.zeros((S, A, S))
    s, a, k = np.nonzero(used)
    out[s, a, s_next[s, a, k]] = values[s, a, k]
    return out


def csr(s_next: I, values: F, used: Matrix) -> Matrix:
    """Spread values (S,A,K) over next states: CSR (S·A,S)."""
    S, A, _ = values.shape
    indptr = np.concatenate(([0], np.cumsum(used.sum(2).ravel())))
    indptr = indptr.astype(s_next.dtype) if indptr[-1] < np.iinfo(s_next.dtype).max else indptr
    out = sp.csr_array((values[used], s_next[used], indptr), shape=(S * A, S))
    out.sort_indices()
    return out
