"""The exact mean and covariance of values after whole episodes, for TD(0) and for constant-alpha Monte Carlo.

What an episode does to V is affine in V, and V is independent of the next episode: so the first two moments of V
after an episode are linear in those before it. n non-terminal states; mean (S,), covariance (S,S); t episodes.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from tabrl.branches import Step, step
from tabrl.chain import evaluate, induce, occupancy
from tabrl.markov import factorised
from tabrl.mdp import MDP
from tabrl.td_limits import gather, jumps, squares
from tabrl.td_moments import Joint, ValueMoments, initial, joint_step, restarts, settled, step_size, surprise, unfold
from tabrl.types import F


def td0_episodes(mdp: MDP, pi: F, *, alpha: float, episodes: int, V: Any = None) -> Iterator[ValueMoments]:
    """Exact moments of TD(0) after 1, 2, …, `episodes` episodes; t counts episodes.

        X = X_0 + L X + noise,   M_end = sum over s of P(s,end) E[V' V''],   X[s] = sum over t of E[V_t V_t' 1{s_t = s}]

    The joint moments of `td_moments.trajectory_moments`, summed over the steps of an episode by one linear solve
    instead of step by step. pi: (S,A), must end. V: (S,) initial values, 0 unless given. Costs a sparse
    factorisation of n**2 (n+1) / 2 unknowns. Source: Sutton & Barto (2018), eq. 6.2; ledger E1.7.

    >>> from tabrl.envs.chains import random_walk
    >>> from tabrl.trace import last
    >>> last(td0_episodes(random_walk(1), np.ones((3, 1)), alpha=0.5, episodes=2)).mean
    array([0.   , 0.375, 0.   ])
    """
    law, start, alpha = ending(mdp, pi), initial(mdp, V), step_size(alpha)
    c, mu = evaluate(induce(mdp, pi))[law.states], restarts(mdp, None)
    n = len(c)
    x, along = surprise(law, mdp.gamma, c), whole_episode(law, mdp.gamma, alpha)
    m = start[law.states] - c
    M = np.outer(m, m)
    for k in range(1, episodes + 1):
        now = along(x, Joint(mu, mu[:, None] * m, mu[:, None, None] * M))
        here, there = (joint_step(law, mdp.gamma, alpha, to, x, now) for to in (np.zeros(n), np.eye(n)[0]))
        m, M = there.m[0] - here.m[0], there.M[0] - here.M[0]  # the part that has reached the end
        yield ValueMoments(k, *unfold(law, start, *settled(c, Joint(mu, m[None], M[None]))))


def ending(mdp: MDP, pi: F) -> Step:
    """One step of a policy; ModelError unless its episodes end."""
    occupancy(induce(mdp, pi)._replace(gamma=1.0), mdp.mu)
    return step(mdp, pi)


def whole_episode(law: Step, gamma: float, alpha: float) -> Any:
    """Factor the equations of an episode; the function returned sums the joint moments over its steps."""
    n = len(law.states)
    stay = np.vstack([np.eye(n), np.zeros((1, n))])
    P = law.P[:, :n]
    visits = factorised(np.eye(n) - P.T)
    one = gather(stay, n, [(y, s, w, B) for s, y, w, B in jumps(law, gamma, alpha, law.P)])
    two = gather(stay, n * n, [(y, s, w, B) for s, y, w, B in squares(law, gamma, alpha, law.P)])
    pick, spread = (sp.kron(sp.eye_array(n), half, format="csr") for half in halves(n))
    first = factorised(sp.eye_array(n * n) - one)
    second = factorised(sp.eye_array(n * pick.shape[0] // n) - pick @ two @ spread)

    def along(x: F, now: Joint) -> Joint:
        zero = np.zeros((n, n, n))
        p = visits(now.p)
        noise = joint_step(law, gamma, alpha, np.zeros(n), x, Joint(p, np.zeros((n, n)), zero)).m
        m = first((now.m + noise).ravel()).reshape(n, n)
        noise = joint_step(law, gamma, alpha, np.zeros(n), x, Joint(p, m, zero)).M
        M = spread @ second(pick @ (now.M + noise).ravel())
        return Joint(p, m, M.reshape(n, n, n))

    return along


def halves(n: int) -> tuple[Any, Any]:
    """Matrices that keep the upper half of a symmetric (n,n) matrix, and restore it."""
    i, j = np.triu_indices(n)
    upper = np.arange(len(i))
    position = np.zeros((n, n), np.int64)
    position[i, j] = position[j, i] = upper
    pick = sp.csr_array((np.ones(len(i)), (upper, i * n + j)), shape=(len(i), n * n))
    spread = sp.csr_array((np.ones(n * n), (np.arange(n * n), position.ravel())), shape=(n * n, len(i)))
    return pick, spread


class Effect(NamedTuple):
    """First and second moments of V' = D V + B, what an episode does to the values."""

    D: F  # (n,) E[D_s]
    B: F  # (n,) E[B_s]
    DD: F  # (n,n) E[D_s D_u]
    BD: F  # (n,n) E[B_s D_u]
    BB: F  # (n,n) E[B_s B_u]


def monte_carlo_episodes(mdp: MDP, pi: F, *, alpha: float, episodes: int, V: Any = None) -> Iterator[ValueMoments]:
    """Exact moments of constant-alpha every-visit Monte Carlo after 1, 2, …, `episodes` episodes; t counts them.

        V'(s) = D_s V(s) + B_s,   D_s = (1 - alpha)^visits to s,
        B_s = sum over visits t to s of alpha (1 - alpha)^(visits after t) G_t

    The moments of D and B over one episode solve linear equations on the chain, backwards in time. pi: (S,A), must
    end. V: (S,) initial values, 0 unless given. alpha in [0, 1]. Source: Sutton & Barto (2018), eq. 6.1; ledger E1.6.

    >>> from tabrl.envs.chains import random_walk
    >>> from tabrl.trace import last
    >>> last(monte_carlo_episodes(random_walk(1), np.ones((3, 1)), alpha=0.5, episodes=2)).covariance[1, 1].item()
    0.078125
    """
    law, start, alpha = ending(mdp, pi), initial(mdp, V), step_size(alpha)
    x = effect(law, restarts(mdp, None), mdp.gamma, alpha)
    m = start[law.states]
    M = np.outer(m, m)
    for k in range(1, episodes + 1):
        cross = x.BD * m
        M = x.DD * M + cross + cross.T + x.BB
        m = x.D * m + x.B
        yield ValueMoments(k, *unfold(law, start, m, M - np.outer(m, m)))


def effect(law: Step, mu: F, gamma: float, alpha: float) -> Effect:
    """Moments of D and B of a Monte Carlo episode from mu (n,).

    Arrays are (n+1,n+1,n): two states, of which index n is none (D = 1), and where the episode is. ahead: E[· | x]
    after the visit to x, before the visit itself is counted.
    """
    n = len(mu)
    P, PR, PR2 = law.P[:, :n], (law.P * law.R)[:, :n], (law.P * (law.R**2 + law.noise))[:, :n]
    end, R_end, R2_end = law.P[:, n], (law.P * law.R)[:, n], (law.P * (law.R**2 + law.noise))[:, n]
    at = np.vstack([np.eye(n), np.zeros(n)])
    one = 1 - alpha * at
    both, other = one[:, None] * one, np.broadcast_to(one, (n + 1, n + 1, n))

    DD = backwards(both, P, np.broadcast_to(end, both.shape))
    b = DD @ PR.T + R_end
    DDG = backwards(both, gamma * P, b)
    ahead = b + gamma * DDG @ P.T  # E[D_s D_u G]
    b = DD @ PR2.T + 2 * gamma * DDG @ PR.T + R2_end
    ahead2 = b + gamma**2 * backwards(both, gamma**2 * P, b) @ P.T  # E[D_s D_u G^2]
    here = alpha * at[:, None]
    BD = backwards(other, P, here * ahead)
    b = BD @ PR.T
    mixed = b + gamma * backwards(other, gamma * P, b + here * ahead2) @ P.T  # E[B_s D_u G]
    cross = alpha * at * mixed
    BB = backwards(np.ones_like(both), P, cross + cross.transpose(1, 0, 2) + alpha * at * here * ahead2)
    DD, BD, BB = DD @ mu, BD @ mu, BB @ mu
    return Effect(DD[:n, n], BD[:n, n], DD[:n, :n], BD[:n, :n], BB[:n, :n])


def backwards(factor: F, P: F, b: F) -> F:
    """X = factor (P X + b) along the last axis: what is ahead of each state, in terms of what is ahead of the next."""
    A = np.eye(len(P)) - factor[..., None] * P
    return np.asarray(np.linalg.solve(A, (factor * b)[..., None])[..., 0], np.float64)
