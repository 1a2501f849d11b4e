"""The Markov reward process that a policy induces, and its closed forms.

P (S,S), zero rows for terminal states; r (S,) expected reward; V (S,) values; d (S,) expected visits.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from tabrl import checks
from tabrl.errors import ModelError, NotConverged
from tabrl.graph import recurrent_classes
from tabrl.markov import solve, visited
from tabrl.mdp import MDP
from tabrl.rounding import U
from tabrl.types import B, F, I, Matrix


class Chain(NamedTuple):
    """A Markov reward process."""

    P: Matrix  # (S,S) dense or CSR; terminal rows are zero
    r: F  # (S,) expected reward on leaving s
    gamma: float
    terminal: B  # (S,)


def induce(mdp: MDP, pi: F) -> Chain:
    """Let a policy choose, and return the chain that is left.

        P_pi(s,s') = sum over a of pi(a|s) P(s'|s,a),   r_pi(s) = sum over a of pi(a|s) r(s,a)

    pi: (S,A). Source: Sutton & Barto (2018), eq. 3.14; Puterman (1994), eq. 5.6.1. Ledger E1.2.

    >>> two = MDP([[[1, 0], [0, 1]], [[0, 1], [1, 0]]], [[0, 2], [1, 1]], 0.9)
    >>> induce(two, np.array([[0.5, 0.5], [1.0, 0.0]])).P
    array([[0.5, 0.5],
           [0. , 1. ]])
    """
    pi = checks.policy(pi, mdp.S, mdp.A, mdp.legal)
    return Chain(average(mdp, pi, mdp.rows), (pi * mdp.r).sum(axis=1), mdp.gamma, mdp.terminal)


def average(mdp: MDP, pi: F, rows: Matrix) -> Matrix:
    """Weigh the A rows of each state in a (S·A,S) matrix with pi, giving (S,S)."""
    S, A = pi.shape
    if not mdp.is_sparse:
        return np.einsum("sa,sax->sx", pi, rows.reshape(S, A, S))
    choose = sp.csr_array((pi.ravel(), np.arange(S * A), np.arange(0, S * A + 1, A)), shape=(S, S * A))
    chosen = sp.csr_array(choose @ rows)
    chosen.eliminate_zeros()
    return chosen


def evaluate(chain: Chain) -> F:
    """Exact values of a chain.

        V = (I - gamma P)^-1 r

    Returns (S,), 0 on terminal states. At gamma = 1 the chain must end: a recurrent class that pays
    nothing has value 0, one that pays raises ModelError (its total reward is infinite or undefined), and
    NotConverged is raised when ending is so unlikely that rounding hides it.
    Source: Sutton & Barto (2018), eq. 4.3 in matrix form; Puterman (1994), theorem 6.1.1. Ledger E1.2.

    >>> evaluate(Chain(np.array([[0.5, 0.5], [0.0, 0.0]]), np.array([1.0, 0.0]), 1.0, np.array([False, True])))
    array([2., 0.])
    """
    return evaluate_with_weight(chain)[0]


def evaluate_with_weight(chain: Chain) -> tuple[F, F]:
    """Values, and the expected discounted number of steps w = (I - gamma P)^-1 1 that certifies them.

    Both (S,); w is 0 on terminal states, and on states that stay forever at gamma = 1.
    """
    S = len(chain.r)
    live = ~chain.terminal
    if chain.gamma == 1.0:
        live = live & ~unpaid_recurrent(chain)
    keep = np.flatnonzero(live)
    x = np.zeros((S, 2))
    if len(keep):
        P = chain.P[keep][:, keep]
        b = np.column_stack([chain.r[keep], np.ones(len(keep))])
        try:
            x[keep] = solve(P, chain.gamma, b)
        except NotConverged:
            raise NotConverged(
                f"chain[s={listed(keep)}] is singular to working precision; fewer steps to the end are expected; "
                "rounding hides whether it ends"
            ) from None
    return x[:, 0], x[:, 1]


def unpaid_recurrent(chain: Chain) -> B:
    """States of recurrent classes, which must pay nothing for the total reward to exist."""
    classes, _ = recurrent_classes(chain.P)
    paying = (classes >= 0) & (chain.r != 0)
    if paying.any():
        s = int(np.argmax(paying))
        stuck = np.flatnonzero(classes == classes[s])
        raise ModelError(
            f"chain[s={listed(stuck)}] never ends and r[{s}] is {chain.r[s]:.6g}; at gamma = 1 the total reward has "
            "no finite value there; use gamma < 1, another policy, or longrun.gain_bias for the average reward"
        )
    return classes >= 0


def listed(states: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
    """Name up to eight states."""
    return ",".join(map(str, states[:8])) + ("" if len(states) <= 8 else f",… ({len(states)} states)")


def occupancy(chain: Chain, mu: Any) -> F:
    """Expected discounted number of visits to each state from a start distribution.

        d = mu' (I - gamma P)^-1,   J = d . r

    mu: (S,). Returns (S,), unnormalised: sums to 1/(1-gamma) without terminal states; a terminal state
    counts its one visit. At gamma = 1 the chain must end with probability 1 from where mu starts.
    Source: Puterman (1994), section 6.9; Sutton et al. (2000), theorem 1. Ledger E1.3.

    >>> chain = Chain(np.array([[0.0, 1.0], [0.0, 0.0]]), np.zeros(2), 0.5, np.array([False, True]))
    >>> occupancy(chain, np.array([1.0, 0]))
    array([1. , 0.5])
    """
    mu = checks.distribution(mu, "mu", len(chain.r))
    P = chain.P
    seen = np.ones(len(mu), np.bool_)
    if chain.gamma == 1.0:
        seen = visited(P, mu > 0)
        stays = (recurrent_classes(P)[0] >= 0) & seen
        if stays.any():
            raise ModelError(
                f"chain[s={listed(np.flatnonzero(stays))}] is visited infinitely often; "
                "at gamma = 1 the chain must end; use gamma < 1"
            )
    keep = np.flatnonzero(seen)
    d = np.zeros(len(mu))
    d[keep] = solve(P[keep][:, keep].T, chain.gamma, mu[keep])
    return d


def objective(chain: Chain, mu: Any) -> float:
    """Expected return from a start distribution, J = mu . V.

    mu: (S,). Source: Puterman (1994), section 6.9; ledger E1.3.

    >>> objective(Chain(np.array([[0.5, 0.5], [0.0, 0.0]]), np.array([1.0, 0.0]), 1.0, np.array([False, True])), [1, 0])
    2.0
    """
    return float(checks.distribution(mu, "mu", len(chain.r)) @ evaluate(chain))


def return_moments(mdp: MDP, pi: F, k: int = 2) -> F:
    """Raw moments of the return from each state.

        M_k(s) = sum over a, s' of pi P  sum over j of C(k,j) R**j gamma**(k-j) M_{k-j}(s')

    with M_0 = 1; terminal states have moments 0 from the first on. Returns (k, S), row i is E[G**(i+1)].
    Needs R(s,a,s'): rewards that were merged (see `MDP.from_gym`) count as their mean. At gamma = 1 the
    policy must end. Source: Sobel (1982), theorem 1; ledger E1.1.

    >>> P, R = np.zeros((3, 1, 3)), np.zeros((3, 1, 3))
    >>> P[0, 0], R[0, 0] = [0, 0.5, 0.5], [0, 1, -1]
    >>> coin = MDP(P, R, 1.0, terminal=[0, 1, 1])
    >>> return_moments(coin, np.ones((3, 1)))[:, 0]
    array([0., 1.])
    """
    if k < 1:
        raise ValueError(f"k is {k}; at least one moment is expected")
    pi = checks.policy(pi, mdp.S, mdp.A, mdp.legal)
    chain = induce(mdp, pi)
    live = ~mdp.terminal
    moments = [live * 1.0, evaluate(chain)]
    rewards = [average(mdp, pi, mdp.weighted(j)) for j in range(1, k + 1)]
    for m in range(2, k + 1):
        b = np.asarray(rewards[m - 1].sum(axis=1)).ravel().astype(np.float64)
        for j in range(1, m):
            b = b + math.comb(m, j) * chain.gamma ** (m - j) * (rewards[j - 1] @ moments[m - j])
        moments.append(evaluate(chain._replace(r=b, gamma=chain.gamma**m)))
    return np.array(moments[1:])


def return_variance(mdp: MDP, pi: F) -> F:
    """Variance of the return from each state, by its own recursion (no difference of large squares).

        Var(s) = sum over a, s' of pi P [(R + gamma V(s') - V(s))**2 + gamma**2 Var(s')]

    Returns (S,). Source: Sobel (1982), theorem 2; ledger E1.1.

    >>> steps = MDP([[[0.75, 0.25]], [[0, 1]]], [1, 0], 1.0, terminal=[0, 1])  # geometric: (1 - p) / p**2
    >>> return_variance(steps, np.ones((2, 1)))
    array([12.,  0.])
    """
    return central_moments(mdp, pi)[0]


def central_moments(mdp: MDP, pi: F) -> tuple[F, F]:
    """Second and third central moments of the return from each state, both (S,).

    With x = R + gamma V(s') - V(s):  C_2 = E[x**2 + gamma**2 C_2'],
    C_3 = E[x**3 + 3 gamma**2 x C_2' + gamma**3 C_3'].
    Source: from Sobel (1982), theorem 1, centred; ledger E1.1.
    """
    pi = checks.policy(pi, mdp.S, mdp.A, mdp.legal)
    chain = induce(mdp, pi)
    V = evaluate(chain)
    rows = mdp.csr
    row, col = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr)), rows.indices
    R = entries_of(mdp, row, col)
    x = R + mdp.gamma * V[col] - V[row // mdp.A]
    weight = pi.ravel()[row] * rows.data

    def mean(y: F) -> F:
        return np.asarray(np.bincount(row // mdp.A, weight * y, mdp.S), dtype=np.float64)

    g = chain.gamma
    C2: F = np.maximum(evaluate(chain._replace(r=mean(x**2), gamma=g**2)), 0.0)  # the solve may round below 0
    C3 = evaluate(chain._replace(r=mean(x**3 + 3 * g**2 * x * C2[col]), gamma=g**3))
    return C2, C3


def entries_of(mdp: MDP, row: I, col: I) -> F:
    """R(s,a,s') at given rows s·A+a and columns s'."""
    if sp.issparse(mdp.R):
        return np.asarray(mdp.R[row, col], dtype=np.float64).ravel()
    if mdp.R.ndim == 2:
        return mdp.R.ravel()[row]  # type: ignore[no-any-return]
    return mdp.R.reshape(-1, mdp.S)[row, col]  # type: ignore[no-any-return]


def return_skewness(mdp: MDP, pi: F) -> F:
    """Skewness of the return from each state, E[(G - V)**3] / Var**1.5.

    Returns (S,), nan where the return is certain: where the variance is what rounding alone can make it.
    Source: Sobel (1982), theorem 1; ledger E1.1.

    >>> steps = MDP([[[0.75, 0.25]], [[0, 1]]], [1, 0], 1.0, terminal=[0, 1])  # (2 - p) / sqrt(1 - p)
    >>> return_skewness(steps, np.ones((2, 1))).round(6)
    array([2.020726,      nan])
    """
    C2, C3 = central_moments(mdp, pi)
    chain = induce(mdp, pi)
    V, w = evaluate_with_weight(chain)
    noise = (16 + mdp.longest_row) * U * (mdp.R_max + 2 * abs(V).max(initial=0.0))  # of one R + gamma V' - V
    random = np.greater(C2, w * noise**2)
    skewness: F = np.divide(C3, C2**1.5, out=np.full(mdp.S, np.nan), where=random)
    return skewness
