"""Exact mean, bias and variance of REINFORCE, by linear algebra instead of sampling.

pi (S,A) policy, a softmax table with coordinates (s,a); psi_t = grad log pi(a_t|s_t); G_t return from time t; b (S,)
baseline; V Q A under pi; w the discount of the scores: gamma gives the gradient of J, 1 what most programs do.
One estimate comes from one episode that starts from the model's mu; a start in a terminal state is an episode of
length 0, whose estimate is 0.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from tabrl.errors import ModelError
from tabrl.markov import solve
from tabrl.mdp import MDP
from tabrl.operators import unit
from tabrl.score_sums import GradientMoments, Walk, baseline_of, cut_sum, future, must_end, score_sum, walk
from tabrl.types import F


class BestBaseline(NamedTuple):
    """The minimum of the variance over all state baselines, and the parabola around it.

    The total variance with any other baseline is total + curvature @ (baseline - b)^2.
    """

    b: F  # (S,) V in states without a choice, where every baseline is as good
    total: float  # the least total variance
    curvature: F  # (S,) >= 0; 0 for states never visited and states without a choice


def reinforce(mdp: MDP, pi: F, baseline: Any = None, *, decay: float | None = None) -> GradientMoments:
    """Exact moments of the REINFORCE estimate with return-to-go from one episode.

        g = sum over t of w^t psi_t (G_t - b(s_t))

    pi: (S,A). baseline: none, a number, or (S,), for instance V. decay: w, gamma unless given: then the mean is grad J
    for every baseline; 1 leaves out gamma^t, and the mean is sum over t of Pr(s_t = s) pi(a|s) A(s,a), which is not
    grad J unless gamma = 1. Raises ModelError where w or gamma is 1 and the policy does not end from every state,
    NotConverged where rounding hides whether it does.
    Source: Williams (1992); Sutton & Barto (2018), section 13.4; the variance by recursion on the chain, as in Sobel
    (1982) for the return; ledger E1.11, correction 4.

    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 0], [0, 0]], 1.0, terminal=[0, 1])
    >>> half = np.full((2, 2), 0.5)
    >>> reinforce(bandit, half).mean[0], reinforce(bandit, half).total, reinforce(bandit, half, 0.5).total
    (array([ 0.25, -0.25]), 0.125, 0.0)
    """
    w, decay = walk(mdp, pi), rate(mdp, decay)
    return score_sum(w, mdp.mu, w.steps.R, mdp.gamma, baseline_of(mdp, baseline), decay)


def cut_reinforce(mdp: MDP, pi: F, steps: int, baseline: Any = None, *, decay: float | None = None) -> GradientMoments:
    """Exact moments of the REINFORCE estimate from an episode that is cut after some steps, nothing being bootstrapped.

        g = sum over t < T of w^t psi_t (R_t + … + gamma^(T-1-t) R_{T-1} - b(s_t)),   T = steps or the end, if earlier

    steps: a whole number >= 0. Other arguments as in `reinforce`, whose answer is the limit where it exists. Always
    finite. The mean is the gradient of the expected return of T steps if w = gamma. Costs T passes over (N,S,A).
    Source: ledger E1.11.

    >>> loop = MDP([[[1.0], [1.0]]], [[1, 0]], 0.5)  # one state, which never ends; the first action pays 1
    >>> [float(cut_reinforce(loop, np.array([[0.5, 0.5]]), steps).mean[0, 0]) for steps in (1, 2, 3)]
    [0.25, 0.375, 0.4375]
    >>> reinforce(loop, np.array([[0.5, 0.5]])).mean
    array([[ 0.5, -0.5]])
    """
    if not 0 <= steps < np.inf or steps != int(steps):
        raise ModelError(f"steps is {steps}; a whole number >= 0 is expected")
    w, decay = walk(mdp, pi), rate(mdp, decay)
    return cut_sum(w, mdp.mu, w.steps.R, mdp.gamma, baseline_of(mdp, baseline), decay, int(steps))


def optimal_baseline(mdp: MDP, pi: F, *, decay: float | None = None) -> BestBaseline:
    """The state baseline that makes the total variance of `reinforce` least.

        b*(s) = (E[|psi|^2 Q | s] + sum over c of q_c E[psi_c (w N(s',s) + gamma w C(s',s)) | s]) / E[|psi|^2 | s]
        q_c = pi(c|s) A(s,c),   N = (I - w P_pi)^-1,   C = (I - gamma w P_pi)^-1

    The total variance is a quadratic in b. In a softmax table the coordinates of a state see that state's baseline
    alone, so its matrix is diagonal and the minimum is one division per state; it does not depend on mu. The second sum
    is about coming back: where an action's chance to return to s goes with its advantage, the score at the next visit
    is correlated with this one's. Without revisits it is 0 and the well-known E[|psi|^2 Q] / E[|psi|^2] is right.
    Arguments and errors as in `reinforce`.
    Source: Greensmith, Bartlett & Baxter (2004), for independent visits; the second sum from dVar/db = 0 in the
    recursion of `reinforce`; ledger E1.11.

    Waiting costs 1, leaving pays 2, at even odds: V = 1 is twice as bad as no baseline, and the best is -1.

    >>> wait = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[-1, 2], [0, 0]], 1.0, terminal=[0, 1])
    >>> half = np.full((2, 2), 0.5)
    >>> [round(reinforce(wait, half, b).total, 6) for b in (0, 1, -1)]
    [3.0, 6.0, 2.0]
    >>> optimal_baseline(wait, half).b.round(6)
    array([-1.,  0.])
    """
    w, decay = walk(mdp, pi), rate(mdp, decay)
    s, _, y, _, R = w.steps
    v, _, d = future(w, R, mdp.gamma)
    again = decay * w.visits(decay)[y, s] + mdp.gamma * decay * w.visits(mdp.gamma * decay)[y, s]
    top = (w.twice_scored(d) + w.scored(d) * w.scored(again)).sum(axis=1)
    weight = w.twice_scored(np.ones(len(s))).sum(axis=1)
    b = v + np.divide(top, weight, out=np.zeros_like(v), where=weight > 0)
    best = score_sum(w, mdp.mu, R, mdp.gamma, b, decay)
    return BestBaseline(b, best.total, weight * (mdp.mu @ w.visits(decay**2)))


def whole_return(mdp: MDP, pi: F, baseline: Any = None) -> GradientMoments:
    """Exact moments of the REINFORCE estimate that multiplies every score with the whole return.

        g = (sum over t of psi_t) (G_0 - b(s_0))

    baseline: none, a number, or (S,), read at the start of the episode. The mean is grad J, without a gamma^t: rewards
    earned before time t average out against psi_t, and only add variance. Raises ModelError unless the policy ends
    (the sum of scores has infinite variance).
    Source: Williams (1992), episodic REINFORCE; ledger E1.11.

    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 0], [0, 0]], 1.0, terminal=[0, 1])
    >>> whole_return(bandit, np.full((2, 2), 0.5)).total
    0.125
    """
    w = walk(mdp, pi)
    v, spread, d = future(w, w.steps.R, mdp.gamma)
    m = joint_moments(w, d, mdp.gamma, spread)
    lead = (v - baseline_of(mdp, baseline))[:, None, None]
    mean: F = np.tensordot(mdp.mu, m[1, 1], 1)
    square = np.tensordot(mdp.mu, m[2, 2] + 2 * lead * m[2, 1] + lead**2 * m[2, 0], 1)
    variance = np.maximum(square - mean**2, 0.0)
    return GradientMoments(mean, variance, float(variance.sum()))


def joint_moments(w: Walk, d: F, gamma: float, spread: F) -> dict[tuple[int, int], F]:
    """E[Y^j (G - V)^k | s] (S,S,A) for j, k <= 2, Y the sum of all scores in a coordinate.

        Y = psi + Y',   G - V = d + gamma (G' - V'):   products multiplied out, lower moments first

    psi is 0 unless s is the coordinate's own state, so that only there lower powers of Y' matter.
    """
    S, A = w.pi.shape
    x, every = w.steps, np.arange(S)
    must_end(w.P, 1.0)
    m = {(0, k): np.broadcast_to(z[:, None, None], (S, S, A)) for k, z in enumerate((np.ones(S), np.zeros(S), spread))}
    tables = [np.bincount((x.s * A + x.a) * S + x.s_next, x.P * d**k, S * A * S).reshape(S, A, S) for k in range(3)]
    for j, k in [(j, k) for j in (1, 2) for k in (0, 1, 2)]:
        source = np.zeros((S, S, A))
        for i, h in [(i, h) for i in range(j + 1) for h in range(k + 1) if (i, h) != (j, k)]:
            factor = math.comb(j, i) * math.comb(k, h) * gamma**h
            step = w.pi[:, :, None] * tables[k - h]
            if i == j:
                source += factor * np.tensordot(step.sum(axis=1), m[i, h], 1)
            else:
                ahead = np.einsum("xat,txc->xac", step, m[i, h])
                source[every, every] += factor * (w.psi ** (j - i) * ahead).sum(axis=1)
        m[j, k] = solve(w.P, gamma**k, source.reshape(S, -1)).reshape(S, S, A)
    return m


def rate(mdp: MDP, decay: float | None) -> float:
    """The discount of the scores, gamma unless given."""
    return mdp.gamma if decay is None else unit(decay, "decay")
