"""V_star in extended precision: what the errors of the solvers are measured against.

P (S·A,S) and r (S,A) in longdouble; V (S,) longdouble values; actions (S,) a deterministic policy.
The stored rows of P are divided by their sums in longdouble, so that at gamma = 1 nothing is gained by
going round a loop whose stored probabilities sum to 1 + 1e-16. The certified bounds hold for this reading.
"""

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from tabrl import bellman, choice, dp
from tabrl.chain import Chain, entries_of, induce, unpaid_recurrent
from tabrl.errors import NotConverged
from tabrl.markov import factorised
from tabrl.mdp import MDP
from tabrl.types import B, I, Matrix

LONG = np.longdouble
L: TypeAlias = npt.NDArray[np.longdouble]
EPS = float(np.finfo(LONG).eps)
ROUNDS = 100  # largest number of improvements, and of refinements of one evaluation


class Reference(NamedTuple):
    """Values that are far more accurate than a solver's, and how far they can be from V_star."""

    V: L  # (S,)
    Q: L  # (S,A); -inf for illegal actions
    error: float  # bound on max |V - V_star| below gamma = 1, an estimate at gamma = 1


def reference(mdp: MDP) -> Reference:
    """Policy iteration with values refined in longdouble until no action is better beyond rounding.

        V <- V + (I - gamma P_pi)^-1 (r_pi + gamma P_pi V - V),   residual in longdouble, solve in float64

    Starts from the policy of `dp.solve`, and improves it while some action is better by more than the
    rounding of longdouble: an optimal policy up to ties. error is max |T V - V|, rounding included, times
    1/(1-gamma) or, at gamma = 1, the longest expected time to the end under the policy found. Where
    longdouble is float64 (as on some platforms) the error says so. Raises NotConverged when a policy does
    not settle, and what `dp.solve` raises. Source: Higham (2002), section 12.1; Puterman (1994), section 6.4.

    >>> two = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[1, 0], [2, 2]], 0.5)
    >>> answer = reference(two)
    >>> answer.V.astype(float), answer.error < 1e-14
    (array([2., 4.]), True)
    """
    P, r = exact_model(mdp)
    gamma = LONG(mdp.gamma)
    actions = dp.solve(mdp, "policy_iteration" if mdp.S <= choice.DIRECT else "auto").pi.argmax(axis=1)
    legal = np.where(mdp.terminal[:, None], np.arange(mdp.A) == 0, mdp.legal)
    for _ in range(ROUNDS):
        V, time = refined(mdp, P, r, actions)
        Q = np.where(legal, r + gamma * (P @ V).reshape(mdp.S, mdp.A), -np.inf)
        noise = 2 * (mdp.longest_row + 4) * EPS * (mdp.R_max + mdp.gamma * float(abs(V).max(initial=0.0)))
        kept = Q[np.arange(mdp.S), actions]
        doubt = (float(abs(kept - V).max(initial=0.0)) + noise) * time  # max |V - V_pi|
        better = Q.max(axis=1) > kept + 4 * (noise + doubt)
        if not better.any():
            return Reference(V, Q, (float(abs(Q.max(axis=1) - V).max(initial=0.0)) + noise) * time)
        actions = np.where(better, Q.argmax(axis=1), actions)
    raise NotConverged(f"policy[round={ROUNDS}] still improves; a settled policy is expected", actions)


def exact_model(mdp: MDP) -> tuple[Matrix, L]:
    """P as CSR (S·A,S), rows summing to 1 or 0, and r (S,A), both in longdouble and free of float64 sums."""
    rows = mdp.csr
    length = np.diff(rows.indptr)
    P = sp.csr_array((rows.data.astype(LONG), rows.indices, rows.indptr), shape=rows.shape)
    P.data /= np.repeat(P @ np.ones(mdp.S, LONG), length)
    if mdp.R.ndim == 2 and not sp.issparse(mdp.R):
        return P, mdp.R.astype(LONG)
    row = np.repeat(np.arange(rows.shape[0]), length)
    paid = P.copy()
    paid.data *= entries_of(mdp, row, rows.indices)
    return P, (paid @ np.ones(mdp.S, LONG)).reshape(mdp.S, mdp.A)


def refined(mdp: MDP, P: Matrix, r: L, actions: I) -> tuple[L, float]:
    """Values of deterministic actions, in longdouble, and max (I - gamma P_pi)^-1 1."""
    chain = induce(mdp, bellman.one_hot(actions, mdp.A))
    live = np.flatnonzero(~ended(chain))
    at = live * mdp.A + actions[live]
    P_pi, r_pi = P[at][:, live], r.ravel()[at]
    inner = chain.P[live][:, live]
    one = sp.eye_array(len(live), format="csc") if mdp.is_sparse else np.eye(len(live))
    V: L = np.zeros(mdp.S, LONG)
    if not len(live):
        return V, 1.0
    solve = factorised(one - mdp.gamma * inner)
    x: L = np.zeros(len(live), LONG)
    size = np.inf
    for _ in range(ROUNDS):
        step = solve((r_pi + LONG(mdp.gamma) * (P_pi @ x) - x).astype(np.float64))
        if not abs(step).max() < size / 2:
            break
        x, size = x + step, abs(step).max()
    V[live] = x
    time = float(abs(solve(np.ones(len(live)))).max())
    return V, time if mdp.gamma == 1 else max(time, (1 + 1e-12) / (1 - mdp.gamma))


def ended(chain: Chain) -> B:
    """States with value 0 for certain: terminal, or at gamma = 1 in a class that never ends and pays nothing."""
    return chain.terminal | unpaid_recurrent(chain) if chain.gamma == 1.0 else chain.terminal
