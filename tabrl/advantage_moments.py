"""Exact mean, bias and variance of advantage estimates made with a wrong value function, by linear algebra.

V (S,) any values, those of terminal states count as 0; e = V - V_pi its error; delta = R + gamma V(s') - V(s);
Ahat an estimate of A(s,a) = Q_pi(s,a) - V_pi(s) from one trajectory that follows pi after s, a.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from tabrl import checks
from tabrl.chain import evaluate, induce, occupancy
from tabrl.errors import ModelError
from tabrl.gradient_moments import rate
from tabrl.markov import solve
from tabrl.mdp import MDP
from tabrl.operators import unit
from tabrl.policy import through_pi
from tabrl.score_sums import GradientMoments, Walk, future, score_sum, walk
from tabrl.types import F


class AdvantageMoments(NamedTuple):
    """Moments of an advantage estimate given the state and action it starts with; 0 for illegal pairs and at the end.

    mean - bias is the advantage A itself.
    """

    mean: F  # (S,A) E[Ahat | s, a]
    bias: F  # (S,A) mean - A
    variance: F  # (S,A) Var[Ahat | s, a]


def advantage(mdp: MDP, pi: F, V: Any, lam: float) -> AdvantageMoments:
    """Exact moments of generalised advantage estimation.

        Ahat = sum over k of (gamma lam)^k delta_{t+k}
        bias = gamma P e - e(s) + gamma lam P u,   u = -(I - gamma lam P_pi)^-1 (I - gamma P_pi) e

    pi: (S,A), V: (S,), lam in [0, 1]. lam = 0 is the TD error, whose bias gamma P e - e(s) is 0 everywhere only for
    V = V_pi (gamma < 1 or an end); lam = 1 is G - V(s), whose bias -e(s) is the same for every action and
    therefore does no harm to a policy gradient (see `expected_gradient`). Raises ModelError where gamma lam = 1 and the
    policy need not end, NotConverged where rounding hides its end.
    Source: Schulman et al. (2016), eq. 16 to 18; variance after Sobel (1982), theorem 2; ledger E1.12, E1.13.

    >>> steps = MDP([[[0.5, 0.5]], [[0, 1]]], [1, 0], 1.0, terminal=[0, 1])         # V_pi = 2
    >>> [round(float(advantage(steps, np.ones((2, 1)), [3, 0], lam).bias[0, 0]), 3) for lam in (0, 0.5, 1)]
    [-0.5, -0.667, -1.0]
    >>> [round(float(advantage(steps, np.ones((2, 1)), [3, 0], lam).variance[0, 0]), 3) for lam in (0, 0.5, 1)]
    [2.25, 2.032, 2.0]
    """
    w, kappa = walk(mdp, pi), mdp.gamma * unit(lam, "lam")
    V, e, delta = errors(mdp, w, V)
    s, _, y, _, _ = w.steps
    ahead = future(w, delta, kappa)
    off = mdp.gamma * e[y] - e[s]
    u = solve(w.P, kappa, w.mean(off))
    return first_step(w, delta, kappa, ahead.v, ahead.variance, off + kappa * u[y])


def n_step_advantage(mdp: MDP, pi: F, V: Any, n: float) -> AdvantageMoments:
    """Exact moments of the n-step advantage, the return of n steps with V behind it less V(s).

        Ahat = sum over k < n of gamma^k delta_{t+k},   bias = gamma^n P P_pi^(n-1) e - e(s)

    n: a whole number >= 1, or math.inf, which is lam = 1 of `advantage`; n = 1 is lam = 0. Past the end of the episode
    delta is 0. Other arguments and errors as in `advantage`. Costs n passes over the model.
    Source: Sutton & Barto (2018), eq. 7.1 and 7.3; Mnih et al. (2016), section 4; ledger E1.12.

    >>> steps = MDP([[[0.5, 0.5]], [[0, 1]]], [1, 0], 1.0, terminal=[0, 1])
    >>> [float(n_step_advantage(steps, np.ones((2, 1)), [3, 0], n).bias[0, 0]) for n in (1, 2, 3)]
    [-0.5, -0.75, -0.875]
    """
    if n == math.inf:
        return advantage(mdp, pi, V, 1.0)
    if not 1 <= n < math.inf or n != int(n):
        raise ModelError(f"n is {n}; a whole number >= 1, or inf, is expected")
    w, gamma = walk(mdp, pi), mdp.gamma
    V, e, delta = errors(mdp, w, V)
    s, _, y, _, _ = w.steps
    v, variance, far = np.zeros(mdp.S), np.zeros(mdp.S), e
    for _ in range(int(n) - 1):
        target = delta + gamma * v[y]
        v = w.mean(target)
        variance = w.mean((target - v[s]) ** 2 + gamma**2 * variance[y])
        far = gamma * (w.P @ far)
    return first_step(w, delta, gamma, v, variance, gamma * far[y] - e[s])


def advantage_gradient(mdp: MDP, pi: F, V: Any, lam: float, *, decay: float | None = None) -> GradientMoments:
    """Exact moments of the policy gradient estimate that an episode gives with generalised advantages.

        g = sum over t of w^t psi_t Ahat_t,   Ahat_t = delta_t + gamma lam Ahat_{t+1}

    What actor-critic methods add up while theta and V stand still: lam = 0 is the one-step actor-critic, lam = 1 is
    REINFORCE with baseline V. decay: w, gamma unless given; 1 leaves out gamma^t. The mean less grad J is
    `expected_gradient` of the bias of `advantage`; it is 0 for lam = 0 iff sum over s' of P(s'|s,a) e(s') does not
    depend on a in the states that are visited. Other arguments and errors as in `advantage` and `reinforce`.
    Source: Schulman et al. (2016), eq. 1; Sutton & Barto (2018), eq. 13.14; ledger E1.12, E1.13.

    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 0], [0, 0]], 1.0, terminal=[0, 1])
    >>> advantage_gradient(bandit, np.full((2, 2), 0.5), [0.5, 0], 0.95).total
    0.0
    """
    w, kappa = walk(mdp, pi), mdp.gamma * unit(lam, "lam")
    delta = errors(mdp, w, V)[2]
    return score_sum(w, mdp.mu, delta, kappa, np.zeros(mdp.S), rate(mdp, decay))


def expected_gradient(mdp: MDP, pi: F, estimate: F, *, decay: float | None = None) -> F:
    """Mean of the policy gradient estimate whose advantages have given means.

        sum over s of d(s) sum over a of pi(a|s) psi(s,a) estimate(s,a),   d = mu (I - w P_pi)^-1

    estimate: (S,A), for instance the mean of `advantage`; its bias gives the bias of the gradient, as this is linear,
    and A or Q_pi give grad J. What depends on s alone gives 0. decay: w, gamma unless given. Returns (S,A).
    Source: Sutton et al. (2000), theorem 1; ledger E1.10, E1.12.

    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 0], [0, 0]], 1.0, terminal=[0, 1])
    >>> expected_gradient(bandit, np.full((2, 2), 0.5), np.array([[3.0, 2.0], [0.0, 0.0]]))
    array([[ 0.25, -0.25],
           [ 0.  ,  0.  ]])
    """
    pi = checks.policy(pi, mdp.S, mdp.A, mdp.legal)
    chain = induce(mdp, pi)._replace(gamma=rate(mdp, decay))
    estimate = np.where(mdp.terminal[:, None], 0.0, checks.real(estimate, "estimate", (mdp.S, mdp.A)))
    return occupancy(chain, mdp.mu)[:, None] * through_pi(pi, estimate)


def errors(mdp: MDP, w: Walk, V: Any) -> tuple[F, F, F]:
    """V with 0 at the end (S,), its error e (S,), and the TD error of every branch (N,)."""
    V = np.where(mdp.terminal, 0.0, checks.real(V, "V", (mdp.S,)))
    V_pi = evaluate(induce(mdp, w.pi))
    return V, V - V_pi, w.steps.R + mdp.gamma * V[w.steps.s_next] - V[w.steps.s]


def first_step(w: Walk, delta: F, kappa: float, v: F, variance: F, off: F) -> AdvantageMoments:
    """Put the action back: moments given (s,a) from those of what follows in s' and the bias of each branch."""
    s, a, y, _, _ = w.steps
    target = delta + kappa * v[y]
    mean = w.given(target)
    return AdvantageMoments(mean, w.given(off), w.given((target - mean[s, a]) ** 2 + kappa**2 * variance[y]))
