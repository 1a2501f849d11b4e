"""The exact mean and covariance of TD(0)'s values under a constant step size.

TD(0) moves one value at a time, V(s) += alpha delta with delta = R + gamma V(s') - V(s), so V' is affine in V
given the step (s, s', R) and its first two moments obey linear recursions. Independent draws and a trajectory differ:
along a trajectory V_t and s_t depend on each other, and the moments are carried jointly with s_t.

S states, n of them not terminal; mean (S,), covariance (S,S); d (S,) where updates happen; mu (S,) restarts.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tabrl import checks
from tabrl.branches import Step, step
from tabrl.errors import ModelError
from tabrl.mdp import MDP
from tabrl.types import F


class ValueMoments(NamedTuple):
    """Mean and covariance of TD(0)'s values after t updates."""

    t: int
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
    times = yields(steps, every)
    law, start = step(mdp, pi), initial(mdp, V)
    d, alpha = checks.distribution(d, "d", mdp.S)[law.states], step_size(alpha)
    m, C = start[law.states], np.zeros((len(law.states),) * 2)
    for t in range(1, steps + 1):
        m, C = independent_step(law, mdp.gamma, alpha, d, m, C)
        if t in times or t == steps:
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
    array([7.404, 4.871])
    """
    times = yields(steps, every)
    law, start, alpha = step(mdp, pi), initial(mdp, V), step_size(alpha)
    c, restart = start[law.states], restarts(mdp, mu)
    n = len(c)
    x = surprise(law, mdp.gamma, c)
    now = Joint(restart, np.zeros((n, n)), np.zeros((n, n, n)))
    for t in range(1, steps + 1):
        now = joint_step(law, mdp.gamma, alpha, restart, x, now)
        if t in times or t == steps:
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


def restarts(mdp: MDP, mu: Any) -> F:
    """Start distribution of an update: mu on the non-terminal states, as a distribution (n,)."""
    given = mdp.mu if mu is None else checks.distribution(mu, "mu", mdp.S)
    inside = given[~mdp.terminal]
    if not inside.sum() > 0:
        raise ModelError("mu is 0 on every non-terminal state; a start from which something happens is expected")
    start: F = inside / inside.sum()
    return start


def yields(steps: int, every: int) -> range:
    """The times every, 2 every, … up to steps."""
    for name, n in (("steps", steps), ("every", every)):
        if not 1 <= n < np.inf or n != int(n):
            raise ModelError(f"{name} is {n}; a whole number >= 1 is expected")
    return range(every, steps + 1, every)


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
