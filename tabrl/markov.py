"""Linear algebra of stochastic matrices.

P (S,S) dense or CSR; rows sum to 1, or to less where the chain can end.
"""

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from tabrl.graph import recurrent_classes
from tabrl.types import B, F, Matrix


def solve(P: Matrix, scale: float, b: F) -> F:
    """Solve (I - scale P) x = b directly, one step of refinement included. b: (S,) or (S,m)."""
    if sp.issparse(P):
        A = sp.csc_array(sp.eye_array(P.shape[0]) - scale * P)
        solver = splu(A).solve
    else:
        import scipy.linalg

        A = np.eye(len(P)) - scale * P
        factors = scipy.linalg.lu_factor(A, check_finite=False)

        def solver(y: F) -> F:
            return scipy.linalg.lu_solve(factors, y, check_finite=False)  # type: ignore[no-any-return]

    x = solver(b)
    return x + solver(b - A @ x)  # type: ignore[no-any-return]


def visited(P: Matrix, start: B) -> B:
    """States that the chain can reach from a mask of states, themselves included."""
    seen, frontier = start.copy(), start.astype(np.float64)
    while frontier.any():
        frontier = ((P.T @ frontier > 0) & ~seen).astype(np.float64)
        seen |= frontier > 0
    return seen


def class_distribution(P: Matrix) -> F:
    """Stationary distribution of an irreducible stochastic matrix, without subtraction of like numbers.

    Source: Grassmann, Taksar & Heyman (1985).
    """
    Q = P.toarray() if sp.issparse(P) else P.copy()
    n = len(Q)
    for k in range(n - 1, 0, -1):
        Q[:k, k] /= Q[k, :k].sum()
        Q[:k, :k] += np.outer(Q[:k, k], Q[k, :k])
    d = np.zeros(n)
    d[0] = 1.0
    for k in range(1, n):
        d[k] = d[:k] @ Q[:k, k]
    return d / d.sum()  # type: ignore[no-any-return]


def limiting_matrix(P: F) -> F:
    """P* (S,S), the long-run average of P**t: row s gives the share of time spent in each state from s."""
    classes, n = recurrent_classes(P)
    S = len(P)
    limit = np.zeros((S, S))
    passing = np.flatnonzero(classes < 0)
    for k in range(n):
        members = np.flatnonzero(classes == k)
        d = np.zeros(S)
        d[members] = class_distribution(P[np.ix_(members, members)])
        reach = (classes == k).astype(np.float64)
        if len(passing):
            into = P[np.ix_(passing, members)].sum(axis=1)
            reach[passing] = solve(P[np.ix_(passing, passing)], 1.0, into)
        limit += np.outer(reach, d)
    return limit
