"""The operators whose fixed point is V_pi, as affine maps, and what a batch of episodes converges to.

P (S,S), zero rows for terminal states, whose values count as 0; V (S,); an operator is V -> vector + matrix @ V.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from tabrl import checks
from tabrl.branches import dense_enough
from tabrl.chain import Chain, evaluate, listed
from tabrl.errors import ModelError, NotConverged, ShapeError
from tabrl.markov import solve
from tabrl.returns import discounted_sum
from tabrl.types import F, I, Matrix


class Affine(NamedTuple):
    """An affine operator on values, V -> vector + matrix @ V."""

    matrix: Matrix  # (S,S)
    vector: F  # (S,)
    factor: float  # max |T V - T U| <= factor max |V - U|


class Batch(NamedTuple):
    """Values learnt from a batch, and how many updates each state got."""

    V: F  # (S,)
    visits: I  # (S,)


def n_step_operator(chain: Chain, n: float) -> Affine:
    """The expected n-step return as an operator on the values it bootstraps from.

        T^(n) V = sum over k < n of (gamma P)^k r + (gamma P)^n V

    n: a whole number >= 1, or math.inf. The matrix (S,S) is stored as P is; its columns of terminal states are 0.
    A contraction in the max norm with factor gamma^n; its fixed point is V_pi. n = 1 is T_pi, n = inf the constant
    V_pi. Source: Sutton & Barto (2018), eq. 7.1 and 7.3 (error reduction); ledger E1.8.

    >>> loop = Chain(np.array([[0.5]]), np.array([1.0]), 0.5, np.array([False]))
    >>> n_step_operator(loop, 2)
    Affine(matrix=array([[0.0625]]), vector=array([1.25]), factor=0.25)
    """
    if n == math.inf:
        return constant(chain)
    if not 1 <= n < math.inf or n != int(n):
        raise ModelError(f"n is {n}; a whole number >= 1, or inf, is expected")
    D = bootstrap(chain)
    matrix, vector = D, chain.r
    for _ in range(int(n) - 1):
        matrix, vector = D @ matrix, chain.r + D @ vector
    return Affine(matrix, vector.copy(), chain.gamma**n)


def lambda_operator(chain: Chain, lam: float) -> Affine:
    """The expected lambda-return as an operator on the values it bootstraps from.

        T^lam V = (1 - lam) sum over n >= 1 of lam^(n-1) T^(n) V
                = (I - gamma lam P)^-1 (r + gamma (1 - lam) P V)

    lam in [0, 1]. The matrix is dense (S,S). A contraction in the max norm with factor gamma (1 - lam) / (1 - gamma
    lam); its fixed point is V_pi. lam = 0 is T_pi, lam = 1 the constant V_pi. Raises NotConverged where gamma lam = 1
    to working precision and the chain does not end.
    Source: Sutton & Barto (2018), eq. 12.2; Tsitsiklis & Van Roy (1997); ledger E1.9.

    >>> loop = Chain(np.array([[0.5]]), np.array([1.0]), 0.5, np.array([False]))
    >>> [round(float(x.item()), 6) for x in lambda_operator(loop, 0.5)[:2]]
    [0.142857, 1.142857]
    """
    lam = unit(lam, "lam")
    if lam == 1:
        return constant(chain)
    dense_enough(len(chain.r))
    D = bootstrap(chain)
    dense = D.toarray() if sp.issparse(D) else D
    x = solve(D, lam, np.column_stack([chain.r, (1 - lam) * dense]))
    return Affine(x[:, 1:], x[:, 0], chain.gamma * (1 - lam) / (1 - chain.gamma * lam))


def unit(x: float, name: str) -> float:
    """Return x if it is a number in [0, 1]."""
    if not 0 <= x <= 1:
        raise ModelError(f"{name} is {x}; a number in [0, 1] is expected")
    return float(x)


def apply(operator: Affine, V: F) -> F:
    """Apply an operator to values V (S,): vector + matrix @ V.

    >>> apply(Affine(np.array([[0.5]]), np.array([1.0]), 0.5), np.array([2.0]))
    array([2.])
    """
    if V.shape != operator.vector.shape:
        raise ShapeError(f"V has shape {V.shape}; {operator.vector.shape} is expected")
    TV: F = operator.vector + operator.matrix @ V
    return TV


def bootstrap(chain: Chain) -> Matrix:
    """Gamma P without the columns of terminal states, whose values count as 0."""
    live = (~chain.terminal).astype(np.float64)
    if sp.issparse(chain.P):
        return sp.csr_array(chain.gamma * (chain.P @ sp.diags_array(live)))
    return chain.gamma * chain.P * live


def constant(chain: Chain) -> Affine:
    """The operator that returns V_pi whatever it is given."""
    S = len(chain.r)
    matrix = sp.csr_array((S, S)) if sp.issparse(chain.P) else np.zeros((S, S))
    return Affine(matrix, evaluate(chain), 0.0)


def batch_td(episodes: Sequence[Any], S: int, V: Any = None) -> Batch:
    """What TD(0) converges to when a batch of episodes is replayed for ever: the values of the empirical chain.

        V(s) = mean over visits t to s of (r[t] + discount[t] V(s[t+1]))            (certainty equivalence)

    episodes: (s (T+1,), r (T,), discount (T,)) each; discount is 0 where s[t+1] is terminal, and an episode may be
    cut anywhere. S: number of states. V: (S,) values of the states that are never left, which no update changes;
    0 unless given. Raises ModelError where visited states never end at discount 1, so that no limit is unique.
    Source: Sutton & Barto (2018), section 6.3; ledger E1.7.

    >>> A, B, end = 0, 1, 2
    >>> once, seven = (np.array([A, B, end]), np.zeros(2), np.array([1.0, 0])), 6 * [([B, end], [1.0], [0.0])]
    >>> batch_td([once, *seven, ([B, end], [0.0], [0.0])], 3).V       # example 6.4
    array([0.75, 0.75, 0.  ])
    """
    V = np.zeros(S) if V is None else checks.real(V, "V", (S,))
    s, r, discount, s_next = joined(episodes, S)
    visits = np.bincount(s, minlength=S)
    share = 1 / np.maximum(visits, 1.0)[s]
    keep = np.flatnonzero(visits)
    D = sp.csr_array((share * discount, (s, s_next)), shape=(S, S))
    b = np.bincount(s, share * r, S) + D @ np.where(visits > 0, 0.0, V)
    try:
        V[keep] = solve(D[keep][:, keep], 1.0, b[keep])
    except NotConverged:
        raise ModelError(
            f"episodes visit states {listed(keep)} and some of them never end at discount 1; "
            "an end, or a discount below 1, is expected"
        ) from None
    return Batch(V, visits)


def batch_mc(episodes: Sequence[Any], S: int, V: Any = None, *, first: bool = False) -> Batch:
    """What constant-alpha Monte Carlo converges to on a batch as alpha -> 0: the average return of each state.

        V(s) = mean over visits t to s of G[t]          (the least squared error on the batch)

    episodes, S, V as in `batch_td`, but every episode must reach its end (its last discount is 0): the return of
    one that was cut is unknown, and ModelError names it. first: average first visits only.
    Source: Sutton & Barto (2018), section 6.3; ledger E1.6.

    >>> batch_mc([([0, 1, 2], [0.0, 0.0], [1.0, 0.0]), ([1, 2], [1.0], [0.0])], 3).V
    array([0. , 0.5, 0. ])
    """
    V = np.zeros(S) if V is None else checks.real(V, "V", (S,))
    total, visits = np.zeros(S), np.zeros(S, np.int64)
    for i, episode in enumerate(episodes):
        s, r, discount, _ = joined([episode], S)
        if len(discount) and discount[-1] != 0:
            raise ModelError(
                f"episodes[{i}] is cut (its last discount is {discount[-1]:g}); a whole episode is expected"
            )
        G = discounted_sum(r, discount)
        keep = np.unique(s, return_index=True)[1] if first else slice(None)
        np.add.at(total, s[keep], G[keep])
        np.add.at(visits, s[keep], 1)
    return Batch(np.where(visits > 0, total / np.maximum(visits, 1), V), visits)


def joined(episodes: Sequence[Any], S: int) -> tuple[I, F, F, I]:
    """All transitions of a batch: s, r, discount, s_next, each (sum of T,). ShapeError when lengths disagree."""
    parts: list[tuple[Any, ...]] = []
    for i, (s, r, discount) in enumerate(episodes):
        s, r, discount = np.asarray(s), checks.real(r, "r"), checks.real(discount, "discount")
        if r.ndim != 1 or s.shape != (len(r) + 1,) or discount.shape != r.shape:
            raise ShapeError(
                f"episodes[{i}] has s, r, discount of shape {s.shape}, {r.shape}, {discount.shape}; "
                "(T+1,), (T,), (T,) is expected"
            )
        if s.dtype.kind not in "iu" or s.min() < 0 or s.max() >= S:
            raise ModelError(f"episodes[{i}] has states {s}; whole numbers in 0 … {S - 1} are expected")
        parts.append((s[:-1], r, discount, s[1:]))
    if not parts:
        raise ShapeError("episodes is empty; at least one episode is expected")
    s, r, discount, s_next = (np.concatenate(x) for x in zip(*parts, strict=True))
    return s.astype(np.int64), r, discount, s_next.astype(np.int64)
