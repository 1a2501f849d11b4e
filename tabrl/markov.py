"""Linear algebra of stochastic matrices.

P (S,S) dense or CSR; rows sum to 1, or to less where the chain can end.
"""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from tabrl.errors import NotConverged
from tabrl.graph import recurrent_classes
from tabrl.types import B, F, Matrix


def solve(P: Matrix, scale: float, b: F) -> F:
    """Solve (I - scale P) x = b directly, one step of refinement included. b: (S,) or (S,m).

    w = (I - scale P)^-1 1 is at least 1 where the inverse is a sum of powers of P; NotConverged is raised
    when the computed w is not such a certificate: the chain ends so rarely that rounding hides it.
    """
    A = sp.eye_array(P.shape[0], format="csc") - scale * P if sp.issparse(P) else np.eye(len(P)) - scale * P
    solver = factorised(A)
    with np.errstate(all="ignore"):
        w, x = solver(np.ones(len(b))), solver(b)
        x = x + solver(b - A @ x)
        proof = np.isfinite(x).all() and (w > 0.5).all() and (A @ w > 0.5).all()
    if not proof:
        raise NotConverged("chain is singular to working precision; an end within reach is expected")
    return x


def factorised(A: Matrix) -> Callable[[F], F]:
    """Factor a matrix once and return the function that solves with it. Raises NotConverged if it is singular."""
    if sp.issparse(A):
        try:
            solver: Callable[[F], F] = splu(sp.csc_array(A)).solve
        except RuntimeError as error:
            raise NotConverged(f"chain is singular to working precision ({error}); a regular one is expected") from None
        return solver
    from scipy.linalg.lapack import dgetrf, dgetrs

    lu, pivots, singular = dgetrf(A)
    if singular:
        raise NotConverged("chain is singular to working precision; an end within reach is expected")
    return lambda y: dgetrs(lu, pivots, y)[0]


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
