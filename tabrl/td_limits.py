"""Where TD(0)'s values settle under a constant step size: stationary mean and covariance.

The moments of `td_moments` obey affine recursions; here are their fixed points, with a certificate that they are
reached. S states, n of them not terminal; mean (S,), covariance (S,S); d (S,) where updates happen; mu (S,) restarts.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from tabrl import checks
from tabrl.branches import Step, step
from tabrl.chain import evaluate, induce, listed
from tabrl.errors import ModelError, NotConverged
from tabrl.graph import recurrent_classes
from tabrl.markov import class_distribution, factorised
from tabrl.mdp import MDP
from tabrl.td_moments import Joint, independent_step, joint_step, restarts, settled, step_size, surprise, unfold
from tabrl.types import F


class ValueLimit(NamedTuple):
    """Mean and covariance that TD(0)'s values settle at."""

    mean: F  # (S,)
    covariance: F  # (S,S)


def independent_limit(mdp: MDP, pi: F, *, alpha: float, d: Any) -> ValueLimit:
    """Mean and covariance that TD(0) with independently drawn states settles at.

        mean = V_pi,   A C + C A' = alpha diag(d E[delta^2|s])     (E[delta^2|s] depends on C)

    Needs alpha > 0, and d > 0 on every non-terminal state. Raises ModelError where a state is never updated, and
    where alpha is too large for the second moments to converge (or where nothing ends at gamma = 1).
    Source: fixed point of the recursion in `independent_moments`; ledger E1.7.

    >>> from tabrl.envs.chains import two_state
    >>> independent_limit(two_state(), np.ones((2, 1)), alpha=0.4, d=[0.5, 0.5]).mean.round(3)
    array([7.568, 4.865])
    """
    law, alpha = step(mdp, pi), positive(alpha)
    d = checks.distribution(d, "d", mdp.S)[law.states]
    refuse_frozen(law, d > 0)
    V = values(mdp, pi)
    n = len(d)
    noise = independent_step(law, mdp.gamma, alpha, d, V[law.states], np.zeros((n, n)))[1]
    idle = (1 - d.sum()) * sp.eye_array(n * n)
    T = idle + sum(w * b for _, _, w, b in squares(law, mdp.gamma, alpha, d[:, None] * law.P))
    C = fixed_point(T, n, alpha, noise[None])[0]
    return ValueLimit(*unfold(law, np.zeros(mdp.S), V[law.states], C))


def trajectory_limit(mdp: MDP, pi: F, *, alpha: float, mu: Any = None) -> ValueLimit:
    """Mean and covariance that TD(0) settles at along a trajectory; the mean is off V_pi by O(alpha).

    The fixed point of the recursion in `trajectory_moments` (for a periodic chain, the average over time). mu: (S,)
    restart distribution, the model's unless given. Needs alpha > 0. Solves for n**2 (n + 1) / 2 numbers. Raises
    ModelError where a state is left for ever, so that its value stops at a random number, and where alpha is too
    large for the second moments to converge. Source: ledger E1.7.

    >>> from tabrl.envs.chains import two_state
    >>> float(trajectory_limit(two_state(), np.ones((2, 1)), alpha=0.4).mean[0].round(3))
    7.404
    """
    law, alpha, restart = step(mdp, pi), positive(alpha), restarts(mdp, mu)
    n = len(restart)
    K = np.vstack([np.eye(n), restart])  # where the next update starts
    refuse_frozen(law, one_class(law.P @ K))
    c = values(mdp, pi)[law.states]
    x, p = surprise(law, mdp.gamma, c), class_distribution(law.P @ K)
    m = np.zeros((n, n))
    first = joint_step(law, mdp.gamma, alpha, restart, x, Joint(p, m, np.zeros((n, n, n)))).m
    L = gather(K, n, [(y, s, w, b) for s, y, w, b in jumps(law, mdp.gamma, alpha, law.P)])
    m = solved(sp.eye_array(n * n) - L, first.reshape(-1, 1), alpha).reshape(n, n)
    noise = joint_step(law, mdp.gamma, alpha, restart, x, Joint(p, m, np.zeros((n, n, n)))).M
    T = gather(K, n * n, [(y, s, w, b) for s, y, w, b in squares(law, mdp.gamma, alpha, law.P)])
    now = Joint(p, m, fixed_point(T, n, alpha, noise))
    return ValueLimit(*unfold(law, np.zeros(mdp.S), *settled(c, now)))


def jumps(law: Step, gamma: float, alpha: float, weight: F) -> Iterator[tuple[int, int, float, Any]]:
    """Yield (s, y, weight, B) for every possible step; E' = B E + noise, B = I + alpha e_s (gamma e_y - e_s)'."""
    n = len(law.states)
    for s, y in np.argwhere(weight > 0):
        B = sp.lil_array(sp.eye_array(n))
        B[s, s] -= alpha
        if y < n:
            B[s, y] += alpha * gamma
        yield int(s), int(y), float(weight[s, y]), sp.csr_array(B)


def squares(law: Step, gamma: float, alpha: float, weight: F) -> Iterator[tuple[int, int, float, Any]]:
    """Yield (s, y, weight, B (x) B): what each step does to E E', flattened."""
    for s, y, w, B in jumps(law, gamma, alpha, weight):
        yield s, y, w, sp.kron(B, B, format="csr")


def gather(K: F, size: int, blocks: list[tuple[int, int, float, Any]]) -> Any:
    """Place weighted blocks (y, s, weight, B) in one matrix and send each y on to where K says."""
    n = K.shape[1]
    row, col, value = [], [], []
    for y, s, w, block in blocks:
        b = block.tocoo()
        row.append(y * size + b.row)
        col.append(s * size + b.col)
        value.append(w * b.data)
    shape = ((n + 1) * size, n * size)
    L = sp.coo_array((np.concatenate(value), (np.concatenate(row), np.concatenate(col))), shape=shape)
    return sp.csr_array(sp.kron(K.T, sp.eye_array(size), format="csr") @ L.tocsr())


def fixed_point(T: Any, n: int, alpha: float, noise: F) -> F:
    """Solve X = T X + noise for k symmetric matrices (k,n,n); ModelError unless powers of T die out.

    T maps families of positive semi-definite matrices to such families, so its spectral radius is below 1 exactly
    when X = T X + I has a positive definite solution: that solution is the certificate.
    """
    k = len(noise)
    if n == 0:
        return noise
    i, j = np.triu_indices(n)
    upper = np.arange(len(i))
    position = np.zeros((n, n), np.int64)
    position[i, j] = position[j, i] = upper
    spread = sp.csr_array((np.ones(n * n), (np.arange(n * n), position.ravel())), shape=(n * n, len(i)))
    pick = sp.csr_array((np.ones(len(i)), (upper, i * n + j)), shape=(len(i), n * n))
    blocks = sp.eye_array(k)
    small = sp.kron(blocks, pick, format="csr") @ T @ sp.kron(blocks, spread, format="csr")
    unit = np.broadcast_to(np.eye(n), (k, n, n))
    b = np.column_stack([x[:, i, j].ravel() for x in (noise, unit)])
    X = solved(sp.eye_array(k * len(i)) - small, b, alpha)
    proof, answer = ((spread @ x.reshape(k, -1).T).T.reshape(k, n, n) for x in (X[:, 1], X[:, 0]))
    if not np.linalg.eigvalsh(proof).min(initial=1.0) > 0.5:
        raise ModelError(too_large(alpha))
    return answer  # type: ignore[no-any-return]


def solved(A: Any, b: F, alpha: float) -> F:
    """Solve A x = b, with one step of refinement; ModelError when A is singular."""
    A = sp.csc_array(A) if A.shape[0] > 1000 else A.toarray()
    try:
        solver: Callable[[F], F] = factorised(A)
    except NotConverged:
        raise ModelError(too_large(alpha)) from None
    x = solver(b)
    return x + solver(b - A @ x)


def too_large(alpha: float) -> str:
    """Say that the moments have no limit."""
    return f"alpha is {alpha:g}; the second moments of V do not converge; use a smaller step size"


def one_class(P: F) -> Any:
    """States of the recurrent class of a chain; ModelError when there are several."""
    classes, count = recurrent_classes(P)
    if count > 1:
        raise ModelError(f"chain has {count} recurrent classes; one is expected; the limit depends on the start")
    return classes == 0


def refuse_frozen(law: Step, visited: Any) -> None:
    """Raise ModelError when the value of a state stops changing."""
    if not visited.all():
        names = listed(law.states[~visited])
        raise ModelError(f"V[{names}] is updated finitely often; every non-terminal state must be visited for ever")


def values(mdp: MDP, pi: F) -> F:
    """V_pi; ModelError where it is not the only fixed point, because nothing ends at gamma = 1."""
    chain = induce(mdp, pi)
    endless = recurrent_classes(chain.P)[0] >= 0
    if mdp.gamma == 1 and endless.any():
        names = listed(np.flatnonzero(endless))
        raise ModelError(f"chain[s={names}] never ends; at gamma = 1 TD(0) has no single limit; use gamma < 1")
    return evaluate(chain)


def positive(alpha: float) -> float:
    """Return alpha if it is a finite number > 0."""
    if alpha == 0:
        raise ModelError("alpha is 0; nothing is learnt; a step size > 0 is expected")
    return step_size(alpha)
