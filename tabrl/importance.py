"""Importance sampling: exact mean and variance of the return estimates of pi from episodes of b.

pi target, b behaviour (S,A); rho = pi / b per step; W the product of all rho of an episode, G its return.
B(s,s') = sum over a of pi^2 / b P(s'|s,a) between non-terminal states: the second moment of rho along the way.
A variance is the smallest non-negative solution of a linear equation, and may be infinite.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from tabrl import checks
from tabrl.branches import Branches, branches
from tabrl.chain import average, evaluate, evaluate_with_weight, induce, listed, return_variance
from tabrl.errors import ModelError
from tabrl.graph import recurrent_classes
from tabrl.markov import solve, visited
from tabrl.mdp import MDP
from tabrl.nonnegative import classes_of, radius, smallest_solution
from tabrl.rounding import U
from tabrl.types import B as Mask
from tabrl.types import F, Matrix


class Estimate(NamedTuple):
    """Mean and variance of the estimate that one episode gives, by start state."""

    mean: F  # (S,) V_pi
    variance: F  # (S,) may be inf


class WeightedEstimate(NamedTuple):
    """The leading terms of sum(W G) / sum(W) over n episodes: bias / n and variance / n, (S,) each."""

    bias: F
    variance: F


class Truncated(NamedTuple):
    """The estimates from the first n steps of an episode, by start state."""

    n: int
    mean: F  # (S,) expected sum of n discounted rewards under pi
    per_decision: F  # (S,) variance
    trajectory: F  # (S,) variance, all n ratios multiplied


class Radii(NamedTuple):
    """Spectral radii that decide whether variances are finite: below 1 they are."""

    per_decision: float  # of gamma^2 B
    trajectory: float  # of B


class Weights(NamedTuple):
    """Second central moments of (W, W G), by start state."""

    W: F  # (S,) Var[W]
    cross: F  # (S,) Cov[W, W G], nan where Var[W] is inf
    WG: F  # (S,) Var[W G]


def per_decision(mdp: MDP, pi: F, b: F) -> Estimate:
    """Exact mean and variance of the per-decision estimate X = sum over t of gamma^t rho_0 … rho_t R_t.

        mean = V_pi,   v = gamma^2 B v + E_b[(rho (R + gamma V_pi(s')) - V_pi(s))^2 | s]

    pi, b: (S,A), b > 0 wherever pi is. Returns (S,) each. The variance is finite in every state if the spectral radius
    of gamma^2 B is below 1; it is inf where a class of states with radius >= 1 can be reached and something random
    happens there or later. b = pi gives the variance of the return (Sobel 1982). Infinite horizons are allowed for
    gamma < 1. Raises ModelError naming s, a where pi > 0 and b = 0.
    Source: Precup, Sutton & Singh (2000); Sutton & Barto (2018), section 5.9; ledger E1.14.

    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 0], [0, 0]], 1.0, terminal=[0, 1])
    >>> per_decision(bandit, np.array([[0.5, 0.5], [1, 0]]), np.array([[0.25, 0.75], [1, 0]])).variance
    array([0.75, 0.  ])
    """
    pi, b, second = ratios(mdp, pi, b)
    V = values(mdp, pi)
    return Estimate(V, smallest_solution(mdp.gamma**2 * second, step_variance(mdp, pi, b, V)))


def trajectory(mdp: MDP, pi: F, b: F) -> Estimate:
    """Exact mean and variance of the ordinary estimate W G, the return times the ratios of the whole episode.

        E[W] = 1,  E[W G] = V_pi,  and with (W, X) = rho (W', R W' + gamma X'):  Var[W] = B Var[W'] + Var_b[rho], …

    pi, b: (S,A), b > 0 wherever pi is; both must end with probability 1. Returns (S,) each. Finite in every state if
    the spectral radius of B is below 1 (no gamma^2: a reward received early is multiplied by all later ratios). Where
    it is not, the variance is inf, except on states from which nothing is paid until the last such class is left: there
    gamma^2 B decides. Rewards that cancel along every path are not looked for.
    Source: Sutton & Barto (2018), eq. 5.5 and example 5.5; ledger E1.14.

    >>> P = [[[0.9, 0.1], [0, 1]], [[0, 1], [0, 1]]]
    >>> one = MDP(P, [[[0, 1], [0, 0]], [[0, 0], [0, 0]]], 1.0, terminal=[0, 1])       # example 5.5
    >>> trajectory(one, np.array([[1.0, 0], [1, 0]]), np.full((2, 2), 0.5))
    Estimate(mean=array([1., 0.]), variance=array([inf,  0.]))
    """
    return Estimate(values(mdp, pi), weight_moments(mdp, pi, b).WG)


def weighted(mdp: MDP, pi: F, b: F) -> WeightedEstimate:
    """Leading bias and variance of the weighted estimate sum(W G) / sum(W) over n episodes from s.

        n bias -> -Cov[W, W (G - V)],   n variance -> E[W^2 (G - V)^2]          (delta method)

    pi, b as in `trajectory`. Returns (S,) each; inf variance and nan bias where Var[W] is infinite (0 where the return
    is certain, for then the estimate is exact). b = pi gives bias 0 and Sobel's variance.
    Source: Sutton & Barto (2018), eq. 5.6; delta method as in Owen (2013), Monte Carlo theory, chapter 9; ledger E1.14.

    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 0], [0, 0]], 1.0, terminal=[0, 1])
    >>> weighted(bandit, np.array([[0.5, 0.5], [1, 0]]), np.array([[0.25, 0.75], [1, 0]])).variance.round(6)
    array([0.333333, 0.      ])
    """
    w = weight_moments(mdp, pi, b)
    V = values(mdp, pi)
    with np.errstate(invalid="ignore"):
        bias = V * w.W - w.cross
        variance = np.maximum(w.WG - 2 * V * w.cross + V**2 * w.W, 0.0)
    lost, sure = np.isinf(w.W), certain(mdp, pi)
    variance = np.where(lost, np.where(V == 0, w.WG, np.inf), variance)
    return WeightedEstimate(np.where(sure, 0.0, np.where(lost, np.nan, bias)), np.where(sure, 0.0, variance))


def truncated(mdp: MDP, pi: F, b: F, steps: int) -> Iterator[Truncated]:
    """Exact mean and variances of the n-step estimates, n = 1 … steps; always finite.

        the recursions of `per_decision` and `trajectory` from 0, one step longer at a time

    pi, b: (S,A), b > 0 wherever pi is. Yields one record per n. As n grows the variances approach those of whole
    episodes, or grow without limit where those are inf. Source: ledger E1.14.

    >>> P = [[[0.9, 0.1], [0, 1]], [[0, 1], [0, 1]]]
    >>> one = MDP(P, [[[0, 1], [0, 0]], [[0, 0], [0, 0]]], 1.0, terminal=[0, 1])       # example 5.5
    >>> left, both = np.array([[1.0, 0], [1, 0]]), np.full((2, 2), 0.5)
    >>> [round(float(x.trajectory[0]), 3) for x in truncated(one, left, both, 3)]
    [0.19, 0.524, 1.135]
    """
    if not 1 <= steps < np.inf or steps != int(steps):
        raise ModelError(f"steps is {steps}; a whole number >= 1 is expected")
    pi, b, _ = ratios(mdp, pi, b)
    gamma, (x, p, rho) = mdp.gamma, weighed(mdp, pi, b)

    def mean(y: F) -> F:
        return np.bincount(x.s, p * y, mdp.S).astype(np.float64)

    V = direct = W = cross = WG = np.zeros(mdp.S)
    for n in range(1, steps + 1):
        target = rho * (x.R + gamma * V[x.s_next])
        V = mean(target)
        gain = target - V[x.s]
        direct = mean(gain**2 + (gamma * rho) ** 2 * direct[x.s_next])
        paid = x.R**2 * W[x.s_next] + 2 * gamma * x.R * cross[x.s_next] + gamma**2 * WG[x.s_next]
        WG = mean(gain**2 + rho**2 * paid)
        cross = mean((rho - 1) * gain + rho**2 * (x.R * W[x.s_next] + gamma * cross[x.s_next]))
        W = mean((rho - 1) ** 2 + rho**2 * W[x.s_next])
        yield Truncated(n, V, direct, WG)


def radii(mdp: MDP, pi: F, b: F) -> Radii:
    """Spectral radii of gamma^2 B and B.

        the variance is finite everywhere if  rho(gamma^2 B) < 1 (per decision),  rho(B) < 1 (trajectory)

    pi, b: (S,A). Dense eigenvalues, class of states by class. b = pi gives the radius of P_pi on non-terminal states.
    Source: ledger E1.14; Sutton & Barto (2018), example 5.5, where rho(B) = 1.8.

    >>> P = [[[0.9, 0.1], [0, 1]], [[0, 1], [0, 1]]]
    >>> radii(MDP(P, [0, 0], 1.0, terminal=[0, 1]), np.array([[1.0, 0], [1, 0]]), np.full((2, 2), 0.5))
    Radii(per_decision=1.8, trajectory=1.8)
    """
    second = ratios(mdp, pi, b)[2]
    rho = max((radius(second[c][:, c]) for c in classes_of(second)), default=0.0)
    return Radii(mdp.gamma**2 * rho, rho)


def weight_moments(mdp: MDP, pi: F, b: F) -> Weights:
    """Exact second central moments of the whole episode's ratio W and of W G.

    pi, b as in `trajectory`. Returns (S,) each. b = pi gives Var[W] = 0. Source: ledger E1.14.

    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 0], [0, 0]], 1.0, terminal=[0, 1])
    >>> weight_moments(bandit, np.array([[0.5, 0.5], [1, 0]]), np.array([[0.25, 0.75], [1, 0]])).W.round(6)
    array([0.333333, 0.      ])
    """
    pi, b, second = ratios(mdp, pi, b)
    for name, policy in (("pi", pi), ("b", b)):
        refuse_endless(mdp, policy, name)
    gamma, V, (x, p, rho) = mdp.gamma, values(mdp, pi), weighed(mdp, pi, b)
    gain = rho * (x.R + gamma * V[x.s_next]) - V[x.s]

    def mean(y: F) -> F:
        return np.bincount(x.s, p * y, mdp.S).astype(np.float64)

    W = smallest_solution(second, mean((rho - 1) ** 2))
    W_next, paid = W[x.s_next], (x.R != 0) & (p * rho > 0)
    bounded = np.where(np.isinf(W_next), 0.0, W_next)
    finite = np.flatnonzero(np.isfinite(W))
    cross = np.zeros(mdp.S)
    source = mean(rho**2 * x.R * bounded) + mean((rho - 1) * gain)
    cross[finite] = solve(second[finite][:, finite], gamma, source[finite])
    source = mean(rho**2 * (x.R**2 * bounded + 2 * gamma * x.R * cross[x.s_next])) + mean(gain**2)
    doomed = mean((paid & np.isinf(W_next)) * 1.0) > 0
    active = (mean(gain**2) > 0) | (mean((paid & (W_next > 0)) * 1.0) > 0)
    WG = smallest_solution(gamma**2 * second, np.where(doomed, np.inf, source), active | doomed)
    return Weights(W, np.where(np.isfinite(W), cross, np.nan), WG)


def ratios(mdp: MDP, pi: F, b: F) -> tuple[F, F, Matrix]:
    """Check both policies and return them with B (S,S)."""
    pi = checks.policy(pi, mdp.S, mdp.A, mdp.legal)
    b = checks.policy(b, mdp.S, mdp.A, mdp.legal, "b")
    missing = (pi > 0) & (b == 0) & ~mdp.terminal[:, None]
    if missing.any():
        s, a = np.argwhere(missing)[0]
        raise ModelError(
            f"b[s={s}, a={a}] is 0 where pi[s={s}, a={a}] is {pi[s, a]:.6g}; "
            "the behaviour policy must try every action of the target policy"
        )
    square = np.divide(pi**2, b, out=np.zeros_like(pi), where=b > 0)
    live = (~mdp.terminal).astype(np.float64)
    second = average(mdp, square, mdp.rows)
    return pi, b, sp.csr_array(second @ sp.diags_array(live)) if sp.issparse(second) else second * live


def weighed(mdp: MDP, pi: F, b: F) -> tuple[Branches, F, F]:
    """The branches, their probabilities under b and their ratios pi / b."""
    x = branches(mdp)
    return x, b[x.s, x.a] * x.P, pi[x.s, x.a] / np.where(b > 0, b, 1.0)[x.s, x.a]


def step_variance(mdp: MDP, pi: F, b: F, V: F) -> F:
    """E_b[(rho (R + gamma V(s')) - V(s))^2 | s], (S,): what one step adds to the variance."""
    x, p, rho = weighed(mdp, pi, b)
    gain = rho * (x.R + mdp.gamma * V[x.s_next]) - V[x.s]
    return np.bincount(x.s, p * gain**2, mdp.S).astype(np.float64)


def values(mdp: MDP, pi: F) -> F:
    """V_pi, exactly 0 where no reward is ahead."""
    chain, x = induce(mdp, pi), branches(mdp)
    paid = np.zeros(mdp.S, np.bool_)
    paid[x.s[(pi[x.s, x.a] > 0) & (x.R != 0)]] = True
    return np.where(visited(chain.P.T, paid), evaluate(chain), 0.0)


def certain(mdp: MDP, pi: F) -> Mask:
    """States whose return has no more variance than rounding can make."""
    V, w = evaluate_with_weight(induce(mdp, pi))
    noise = (16 + mdp.longest_row) * U * (mdp.R_max + 2 * abs(V).max(initial=0.0))
    return return_variance(mdp, pi) <= w * noise**2  # type: ignore[no-any-return]


def refuse_endless(mdp: MDP, pi: F, name: str) -> None:
    """Raise ModelError unless the policy ends from everywhere."""
    classes = recurrent_classes(induce(mdp, pi).P)[0]
    if (classes >= 0).any():
        where = listed(np.flatnonzero(classes >= 0))
        raise ModelError(f"{name} never ends from states {where}; whole episodes need a policy that ends")
