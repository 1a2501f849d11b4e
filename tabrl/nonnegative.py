"""Linear equations with non-negative matrices, whose solutions may be infinite.

M (S,S) >= 0; x, source (S,) in [0, inf].
"""

import numpy as np
import scipy.sparse as sp

from tabrl.errors import NotConverged
from tabrl.markov import solve, visited
from tabrl.types import B as Mask
from tabrl.types import F, I, Matrix


def smallest_solution(M: Matrix, source: F, active: Mask | None = None) -> F:
    """The smallest non-negative x = M x + source, inf where the sum over k of M^k source diverges.

    M (S,S) >= 0, dense or CSR; source (S,), may be inf. active: (S,) where something is added, source > 0 unless
    given. A class of states diverges when its spectral radius is at least 1 and something is added there or later.
    Source: Berman & Plemmons (1994), theorem 6.2.3 (M-matrices), class by class.

    >>> smallest_solution(np.array([[0.5, 0.0], [1.0, 2.0]]), np.array([1.0, 0.0]))
    array([ 2., inf])
    """
    active = source > 0 if active is None else active
    positive = visited(M.T, active)  # from here something is added now or later
    x = np.zeros(len(source))
    diverging = np.isinf(source)
    for members in classes_of(M):
        if positive[members].any() and not contracts(M[members][:, members]):
            diverging[members] = True
    infinite = visited(M.T, diverging)
    keep = np.flatnonzero(positive & ~infinite)
    x[infinite] = np.inf
    if len(keep):
        x[keep] = np.maximum(solve(M[keep][:, keep], 1.0, source[keep]), 0.0)
    return x


def classes_of(M: Matrix) -> list[I]:
    """Communicating classes of a non-negative matrix that contain a cycle."""
    from scipy.sparse.csgraph import connected_components

    graph = sp.csr_array(M)
    label = connected_components(graph, directed=True, connection="strong")[1]
    row, col = graph.nonzero()
    cyclic = np.unique(label[row[label[row] == label[col]]])
    order = np.argsort(label, kind="stable")
    start = np.searchsorted(label[order], np.arange(label.max(initial=-1) + 2))
    return [order[start[k] : start[k + 1]] for k in cyclic]


def contracts(M: Matrix) -> bool:
    """Whether the spectral radius of a non-negative matrix is below 1: (I - M) w = 1 has a positive solution."""
    try:
        solve(M, 1.0, np.ones(M.shape[0]))
    except NotConverged:
        return False
    return True


def radius(M: Matrix) -> float:
    """Spectral radius of a non-negative matrix."""
    dense = M.toarray() if sp.issparse(M) else M
    return float(abs(np.linalg.eigvals(dense)).max())
