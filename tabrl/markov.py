"""Linear algebra of stochastic matrices.

P (S,S) dense or CSR; rows sum to 1, or to less where the chain can end.
"""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from tabrl import linear
from tabrl.errors import NotConverged
from tabrl.graph import follow, recurrent_classes
from tabrl.types import B, F, Matrix


def solve(P: Matrix, scale: float, b: F) -> F:
    """Solve (I - scale P) x = b, the stored floats read as exact numbers. b: (S,) or (S,m).

    w = (I - scale P)^-1 1, the expected number of steps, bounds what a residual can mean: |error| <= max|residual| w.
    Small systems are factored, with one step of refinement; where w shows that rounding would spoil the answer, it is
    refined in twice the precision until the residual proves it. Large sparse ones: see `linear`.
    NotConverged is raised when no w with w - scale P w > 1/2 is found (the inverse is not a sum of powers of P), or
    no proof: the chain ends so rarely that rounding hides it.
    """
    if linear.large(P):
        return linear.solve(P, scale, b)
    A = sp.eye_array(P.shape[0], format="csc") - scale * P if sp.issparse(P) else np.eye(len(P)) - scale * P
    solver = factorised(A)
    with np.errstate(all="ignore"):
        w, x = solver(np.ones(len(b))), solver(b)
        x = x + solver(b - A @ x)
        steps = w.max(initial=0.0)
        if steps < linear.MANY_STEPS and np.isfinite(x).all() and (w > 0.5).all() and (A @ w > 0.5).all():
            return x
        return linear.refined(P, scale, b, solver)


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
    if sp.issparse(P):
        return follow(sp.csr_array(P), np.ones(len(start), np.bool_), start)
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
