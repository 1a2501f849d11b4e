"""What is exactly true of a learner's run: expected errors, floors, and the worth of the policies it acts by.

V (S,) values; Q (S,A) action values; pi (S,A) policy; J expected return from the start distribution mu; eps
exploration. Nothing here is sampled.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from tabrl import bellman, dp
from tabrl.chain import Chain, average, induce, objective
from tabrl.errors import ModelError, NotConverged, ShapeError
from tabrl.markov import visited
from tabrl.mdp import MDP
from tabrl.td_limits import trajectory_limit
from tabrl.td_moments import ValueMoments, trajectory_moments
from tabrl.types import B, F, I

WORK = 2e9  # n**4 steps of the exact moments that are affordable: some seconds
FLOOR = 25  # non-terminal states for which the limit is


class Control(NamedTuple):
    """The best that can be done in a model, and the best that can be done while exploring."""

    V: F  # (S,) V*
    Q: F  # (S,A) Q*
    J: float  # mu . V*
    bound: float  # certified max |V - V*|
    V_eps: F  # (S,) the best eps-soft policy
    Q_eps: F  # (S,A)
    J_eps: float
    bound_eps: float  # certified max |V_eps - exact one|


def eps_greedy(Q: F, legal: B, eps: float) -> F:
    """The policy of a learner that explores.

        pi(a|s) = eps / (number of legal actions) + (1 - eps) / (number of maximisers) for each maximiser

    Q, legal: (S,A). Returns (S,A). eps=1 is uniform over the legal actions, eps=0 uniform over the maximisers.
    Source: Sutton & Barto (2018), section 5.4, ties shared.

    >>> eps_greedy(np.array([[1.0, 1.0, 0.0]]), np.ones((1, 3), bool), 0.3)
    array([[0.45, 0.45, 0.1 ]])
    """
    if Q.shape != legal.shape:
        raise ShapeError(f"Q has shape {Q.shape}; {legal.shape} is expected")
    if not 0 <= eps <= 1:
        raise ValueError(f"eps is {eps}; a number in [0, 1] is expected")
    best = legal & (bellman.maximum(Q, legal)[:, None] == Q)
    pi: F = eps * legal / legal.sum(axis=1, keepdims=True) + (1 - eps) * best / best.sum(axis=1, keepdims=True)
    return pi


def eps_soft(mdp: MDP, eps: float) -> MDP:
    """The model in which a chosen action is replaced, with probability eps, by a uniformly drawn legal one.

        P'(·|s,a) = (1 - eps) P(·|s,a) + eps mean over legal b of P(·|s,b),   r' likewise

    Its optimal values are those of the best eps-soft policy. Rewards are the mean ones. eps=0 is the model itself.
    Source: Sutton & Barto (2018), section 5.4.

    >>> two = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[4, 0], [0, 0]], 0.9, terminal=[0, 1])
    >>> eps_soft(two, 0.5).r[0]
    array([3., 1.])
    """
    uniform = eps_greedy(np.zeros((mdp.S, mdp.A)), mdp.legal, 1.0)
    mixed = (1 - eps) * mdp.rows
    every = average(mdp, uniform, mdp.rows)
    r = (1 - eps) * mdp.r + eps * (uniform * mdp.r).sum(axis=1, keepdims=True)
    r = np.where(mdp.legal, r, 0.0)
    s = np.repeat(np.arange(mdp.S), mdp.A)
    if mdp.is_sparse:
        on = sp.diags_array((mdp.legal & ~mdp.terminal[:, None]).ravel().astype(np.float64))
        P: Any = sp.csr_array(mixed + eps * (on @ sp.csr_array(every)[s]))
    else:
        on = mdp.legal & ~mdp.terminal[:, None]
        P = np.where(on[:, :, None], mixed.reshape(mdp.S, mdp.A, mdp.S) + eps * every[:, None, :], 0.0)
    return MDP(P, r, mdp.gamma, mu=mdp.mu, terminal=mdp.terminal, legal=mdp.legal)


def control(mdp: MDP, eps: float) -> Control:
    """Solve a model, and the model with exploration."""
    best, soft = dp.solve(mdp), dp.solve(eps_soft(mdp, eps))
    Q_eps = bellman.q_from_v(mdp, soft.V)
    return Control(
        best.V, best.Q, float(mdp.mu @ best.V), best.bound, soft.V, Q_eps, float(mdp.mu @ soft.V), soft.bound
    )


def worth(mdp: MDP, pi: F) -> float:
    """Exact J of a policy; nan where it has no finite value because the policy never ends at gamma = 1.

    Only states that can be reached from mu count.

    >>> worth(MDP([[[1.0]]], [-1], 1.0), np.ones((1, 1)))
    nan
    """
    chain = induce(mdp, pi)
    at = np.flatnonzero(visited(chain.P, mdp.mu > 0))
    part = Chain(chain.P[at][:, at], chain.r[at], chain.gamma, chain.terminal[at])
    try:
        return objective(part, mdp.mu[at])
    except (ModelError, NotConverged):
        return math.nan


def gap(mdp: MDP, Q: F, Q_star: F, legal: B) -> float:
    """Largest |Q - Q*| over the legal actions of the states that are not terminal."""
    on = legal & ~mdp.terminal[:, None]
    return float(abs(Q - Q_star)[on].max(initial=0.0))


def is_td0(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a learner with these settings is TD(0) with a constant step size under another name.

    >>> is_td0("td-lambda", {"alpha": 0.1, "lam": 0.0}), is_td0("n-step-td", {"alpha": 0.1, "n": 2})
    (True, False)
    """
    same = {"td0": True, "n-step-td": settings.get("n") == 1}
    lam = name in ("td-lambda", "true-online-td") and settings.get("lam") == 0
    return not callable(settings.get("alpha")) and (same.get(name, False) or lam)


def td0_moments(mdp: MDP, pi: F, alpha: float, times: I) -> list[ValueMoments] | None:
    """Exact mean and covariance of TD(0) along a trajectory at given times, multiples of the first one.

    None where the moments of so many states and steps are not affordable. Source: ledger E1.7.
    """
    n = int((~mdp.terminal).sum())
    if float(n) ** 4 * float(times[-1]) > WORK:
        return None
    return [*trajectory_moments(mdp, pi, alpha=alpha, steps=int(times[-1]), every=int(times[0]))]


def square_floor(mdp: MDP, pi: F, V: F, alpha: float) -> float | None:
    """What the mean square error of TD(0) settles at; None where there is no limit, or it costs too much."""
    if (~mdp.terminal).sum() > FLOOR:
        return None
    try:
        return square(trajectory_limit(mdp, pi, alpha=alpha), V, mdp.terminal)
    except ModelError:
        return None


def square(x: Any, V: F, terminal: B) -> float:
    """Exact mean square error, averaged over the non-terminal states, from the moments of V_t.

        E[(V_t(s) - V_pi(s))^2] = (E V_t(s) - V_pi(s))^2 + Var V_t(s)

    x: a record with mean (S,) and covariance (S,S).
    """
    return float(((x.mean - V) ** 2 + x.covariance.diagonal())[~terminal].mean())
