"""The exact mean and covariance of TD(0)'s values under a constant step size.

TD(0) moves one value at a time, V(s) += alpha delta with delta = R + gamma V(s') - V(s), so V' is affine in V
given the step (s, s', R) and its first two moments obey linear recursions. Independent draws and a trajectory differ:
along a trajectory V_t and s_t depend on each other, and the moments are carried jointly with s_t.

S states, n of them not terminal; mean (S,), covariance (S,S); d (S,) where updates happen; mu (S,) restarts.
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
from tabrl.types import F


class ValueMoments(NamedTuple):
    """Mean and covariance of TD(0)'s values after t updates."""

    t: int
    mean: F  # (S,)
    covariance: F  # (S,S)


class ValueLimit(NamedTuple):
    """Mean and covariance that TD(0)'s values settle at."""

    mean: F  # (S,)
    covariance: F  # (S,S)


class Joint(NamedTuple):
    """Moments of the error E = V - c, jointly with the state s_t (n non-terminal states)."""

    p: F  # (n,) probability of s_t = s
    m: F  # (n,n) m[s] = E[E 1{s_t = s}]
    M: F  # (n,n,n) M[s] = E[E E' 1{s_t = s}]


def independent_moments(
    mdp: MDP, pi: F, *, alpha: float, d: Any, steps: int, V: Any = None, every: int = 1
) -> Iterator[ValueMoments]:
    """Exact moments of TD(0) when every update starts from a state drawn afresh: s ~ d, a ~ pi, s' ~ P.

        m' = m + alpha D (r + gamma P m - m)                                    D = diag(d)
        C' = C - alpha (A C + C A') + alpha^2 (diag(d E[delta^2|s]) - g g')     A = D (I - gamma P), g = D E[delta|s]

    E[delta^2|s] includes the noise of R(s,a,s') and the spread of V. pi: (S,A). d: (S,); a terminal state drawn
    changes nothing. V: (S,) initial values, 0 unless given, never changed in terminal states and never used there.
    Yields after every, 2 every, … and after the last of `steps` updates. alpha = 0 keeps V. Any alpha >= 0 is
    allowed here: moments that grow are exact too. Raises ModelError for an alpha below 0.
    Source: moments of the affine recursion of Sutton & Barto (2018), eq. 6.2; ledger E1.7.

    >>> from tabrl.trace import last
    >>> coin = MDP([[[0, 0.5, 0.5]], [[0, 1, 0]], [[0, 0, 1]]], [[[0, 1, -1]]] + 2 * [[[0, 0, 0]]], 1.0,
    ...     terminal=[0, 1, 1])
    >>> float(last(independent_moments(coin, np.ones((3, 1)), alpha=0.5, d=[1, 0, 0], steps=1)).covariance[0, 0])
    0.25
    """
    law, start = step(mdp, pi), initial(mdp, V)
    d, alpha = checks.distribution(d, "d", mdp.S)[law.states], step_size(alpha)
    m, C = start[law.states], np.zeros((len(law.states),) * 2)
    for t in range(1, steps + 1):
        m, C = independent_step(law, mdp.gamma, alpha, d, m, C)
        if t % every == 0 or t == steps:
            yield ValueMoments(t, *unfold(law, start, m, C))


def independent_step(law: Step, gamma: float, alpha: float, d: F, m: F, C: F) -> tuple[F, F]:
    """One update of the mean and the covariance."""
    n = len(m)
    P = law.P[:, :n]
    delta = law.R - m[:, None]
    delta[:, :n] += gamma * m
    mean = (law.P * delta).sum(axis=1)
    variance = C.diagonal()
    square = (law.P * (delta**2 + law.noise)).sum(axis=1)
    square += gamma**2 * (P @ variance) - 2 * gamma * (P * C).sum(axis=1) + variance
    g = d * mean
    AC = d[:, None] * (C - gamma * (P @ C))
    C = C - alpha * (AC + AC.T) - alpha**2 * np.outer(g, g)
    C[np.diag_indices(n)] += alpha**2 * d * square
    return m + alpha * g, C


def trajectory_moments(
    mdp: MDP, pi: F, *, alpha: float, steps: int, mu: Any = None, V: Any = None, every: int = 1
) -> Iterator[ValueMoments]:
    """Exact moments of TD(0) along a trajectory: the next update starts where the last one ended.

        m[u]' = sum over s, y of P(s,y) K(y,u) E[V' 1{s}],   M[u]' the same with V' V'',
        V' = V + alpha e_s (R + gamma V(y) - V(s)),  K(y,u) = 1{u = y}, or mu(u) where y is terminal

    pi: (S,A). mu: (S,) start and restart distribution, the model's unless given; a start in a terminal state is
    an empty episode and is drawn again. V: (S,) initial values, 0 unless given. t counts updates. Yields as
    `independent_moments` does. Costs n**4 a step for n non-terminal states, in dense tables of n**3 numbers.
    Source: joint moments of V_t and s_t for Sutton & Barto (2018), eq. 6.2; ledger E1.7.

    >>> from tabrl.envs.chains import two_state
    >>> from tabrl.trace import last
    >>> last(trajectory_moments(two_state(), np.ones((2, 1)), alpha=0.4, steps=2000)).mean.round(3)
    array([7.404, 5.072])
    """
    law, start, alpha = step(mdp, pi), initial(mdp, V), step_size(alpha)
    c, restart = start[law.states], restarts(mdp, mu)
    n = len(c)
    x = surprise(law, mdp.gamma, c)
    now = Joint(restart, np.zeros((n, n)), np.zeros((n, n, n)))
    for t in range(1, steps + 1):
        now = joint_step(law, mdp.gamma, alpha, restart, x, now)
        if t % every == 0 or t == steps:
            yield ValueMoments(t, *unfold(law, start, *settled(c, now)))


def surprise(law: Step, gamma: float, c: F) -> F:
    """(n, n+1) mean TD error of each step at the values c: R + gamma c(y) - c(s), 0 where the step is impossible."""
    x: F = np.where(law.P > 0, law.R - c[:, None] + gamma * np.append(c, 0.0), 0.0)
    return x


def joint_step(law: Step, gamma: float, alpha: float, restart: F, x: F, now: Joint) -> Joint:
    """One update of the joint moments of E = V - c and s_t; x: `surprise` at c."""
    p, m, M = now
    n = len(p)
    s = np.arange(n)
    ahead = np.zeros((n, n + 1, n))  # gamma M[s][y] - M[s][s], the first term 0 at the end
    np.multiply(M, gamma, out=ahead[:, :n])
    square = np.zeros((n, n + 1))
    square[:, :n] = gamma * (gamma * M[:, s, s] - 2 * M[s, :, s])
    ahead -= M[s, s][:, None]
    square += M[s, s, s][:, None]
    lead = np.zeros((n, n + 1))
    lead[:, :n] = gamma * m
    lead -= m[s, s][:, None]
    square += (x**2 + law.noise) * p[:, None] + 2 * x * lead
    ahead += x[:, :, None] * m[:, None]
    ahead *= (alpha * law.P)[:, :, None]

    W = ahead.transpose(1, 0, 2)  # (n+1, n, n): row s of block y
    M_y = (law.P.T @ M.reshape(n, n * n)).reshape(n + 1, n, n)
    M_y += W
    M_y += W.transpose(0, 2, 1)
    M_y[:, s, s] += alpha**2 * (law.P * square).T
    m_y = law.P.T @ m + alpha * (law.P * (x * p[:, None] + lead)).T
    p_y = law.P.T @ p
    return Joint(*(y[:n] + restart.reshape(n, *[1] * (y.ndim - 1)) * y[n] for y in (p_y, m_y, M_y)))


def settled(c: F, now: Joint) -> tuple[F, F]:
    """Sum the state out: mean and covariance of V = c + E."""
    m = now.m.sum(axis=0)
    C = now.M.sum(axis=0) - np.outer(m, m)
    return c + m, (C + C.T) / 2


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
    law, alpha = step(mdp, pi), step_size(alpha)
    d = checks.distribution(d, "d", mdp.S)[law.states]
    refuse_frozen(law, d > 0)
    V = evaluate(induce(mdp, pi))
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
    law, alpha, restart = step(mdp, pi), step_size(alpha), restarts(mdp, mu)
    n = len(restart)
    K = np.vstack([np.eye(n), restart])  # where the next update starts
    refuse_frozen(law, one_class(law.P @ K))
    c = evaluate(induce(mdp, pi))[law.states]
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


def restarts(mdp: MDP, mu: Any) -> F:
    """Start distribution of an update: mu on the non-terminal states, as a distribution (n,)."""
    given = mdp.mu if mu is None else checks.distribution(mu, "mu", mdp.S)
    inside = given[~mdp.terminal]
    if not inside.sum() > 0:
        raise ModelError("mu is 0 on every non-terminal state; a start from which something happens is expected")
    start: F = inside / inside.sum()
    return start


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


def initial(mdp: MDP, V: Any) -> F:
    """(S,) initial values, 0 unless given."""
    return np.zeros(mdp.S) if V is None else checks.real(V, "V", (mdp.S,))


def step_size(alpha: float) -> float:
    """Return alpha if it is a finite number >= 0."""
    if not 0 <= alpha < np.inf:
        raise ModelError(f"alpha is {alpha}; a finite step size >= 0 is expected")
    return float(alpha)


def unfold(law: Step, start: F, m: F, C: F) -> tuple[F, F]:
    """Put moments of the non-terminal states among all S; the others keep their values, variance 0."""
    mean, covariance = start.copy(), np.zeros((len(start),) * 2)
    mean[law.states] = m
    covariance[np.ix_(law.states, law.states)] = C
    return mean, covariance
