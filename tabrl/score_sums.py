"""Exact mean and variance of sums of scores times returns, the random numbers that policy gradients are made of.

    g = sum over t of w^t psi_t (H_t - b(s_t)),   H_t = x_t + kappa H_{t+1}

psi[s,a,c] = 1{a=c} - pi(c|s) (S,A,A), the score of action a in the coordinate (s,c) of a softmax table, 0 in those of
other states; x (N,) what each branch (s,a,s') pays, b (S,) a baseline, kappa and w discounts in [0, 1].
H starts in state s with mean v(s); d = x + kappa v(s') - v(s) is what a step adds to it (mean 0 in each state);
N = (I - w P)^-1 the expected visits. A prime marks the same number one step later.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from tabrl import checks
from tabrl.branches import Branches, branches, dense_enough
from tabrl.chain import listed
from tabrl.errors import ModelError, NotConverged
from tabrl.graph import recurrent_classes
from tabrl.markov import solve
from tabrl.mdp import MDP
from tabrl.policy import score, through_pi
from tabrl.rounding import U
from tabrl.types import F, Matrix


class GradientMoments(NamedTuple):
    """Mean and variance of one estimate of the gradient, coordinate by coordinate; n estimates averaged have 1/n."""

    mean: F  # (S,A)
    variance: F  # (S,A)
    total: float  # trace of the covariance: the sum of all variances, E|g - mean|^2


class Walk(NamedTuple):
    """A policy on a model: its scores, its steps, and the steps' probabilities."""

    pi: F  # (S,A)
    psi: F  # (S,A,A)
    steps: Branches  # N transitions (s, a, s')
    p: F  # (N,) pi(a|s) P(s'|s,a)
    average: Matrix  # (S,N) p, in the row of its state
    P: F  # (S,S) sum of p; terminal rows are 0

    def given(self, y: F) -> F:
        """E[y | s, a] (S,A) of y (N,)."""
        s, a, _, P, _ = self.steps
        S, A = self.pi.shape
        return np.bincount(s * A + a, P * y, S * A).reshape(S, A).astype(np.float64)

    def mean(self, y: F) -> F:
        """E[y | s] (S,) of y (N,), or (S,m) of (N,m)."""
        return np.asarray(self.average @ y, dtype=np.float64)

    def scored(self, y: F) -> F:
        """E[psi_c y | s] (S,A) of y (N,)."""
        return through_pi(self.pi, self.given(y))

    def twice_scored(self, y: F) -> F:
        """E[psi_c^2 y | s] (S,A) of y (N,)."""
        squared: F = np.einsum("sa,sac,sa->sc", self.pi, self.psi**2, self.given(y))
        return squared

    def visits(self, factor: float) -> F:
        """(I - factor P)^-1 (S,S), the expected discounted visits. Raises ModelError where they are infinite."""
        must_end(self.P, factor)
        return solve(self.P, factor, np.eye(len(self.P)))


class Future(NamedTuple):
    """The discounted sum H of what is ahead."""

    v: F  # (S,) mean
    variance: F  # (S,)
    d: F  # (N,) x + kappa v(s') - v(s)


def walk(mdp: MDP, pi: F) -> Walk:
    """Check a policy and lay out its steps; dense tables, for small models."""
    pi = checks.policy(pi, mdp.S, mdp.A, mdp.legal)
    dense_enough(mdp.S)
    x = branches(mdp)
    p = pi[x.s, x.a] * x.P
    P = np.bincount(x.s * mdp.S + x.s_next, p, mdp.S**2).reshape(mdp.S, mdp.S).astype(np.float64)
    average = sp.csr_array((p, (x.s, np.arange(len(p)))), shape=(mdp.S, len(p)))
    return Walk(pi, score(pi), x, p, average, P)


def must_end(P: F, factor: float) -> None:
    """Refuse sums over time without discount that have no end, or none that rounding leaves within reach."""
    stays = np.flatnonzero(recurrent_classes(P)[0] >= 0) if factor == 1 else np.zeros(0, np.int64)
    if len(stays):
        raise ModelError(
            f"pi never ends from states {listed(stays)}; sums over a whole episode without discount need a policy "
            "that ends; use discounts < 1, or cut the episode"
        )
    steps = float(solve(P, factor, np.ones(len(P))).max(initial=0.0))
    if not U * len(P) * steps < 1e-3:
        raise NotConverged(f"pi takes about {steps:.3g} steps to end, so rounding hides whether it ends; use gamma < 1")


def future(w: Walk, x: F, kappa: float) -> Future:
    """Mean and variance of H from each state.

        v = E[x] + kappa P v,   Var = E[d^2] + kappa^2 P Var

    Source: Sobel (1982), theorem 2.
    """
    must_end(w.P, kappa)
    v = solve(w.P, kappa, w.mean(x))
    d = x + kappa * v[w.steps.s_next] - v[w.steps.s]
    return Future(v, np.maximum(solve(w.P, kappa**2, w.mean(d**2)), 0.0), d)


def score_sum(w: Walk, mu: F, x: F, kappa: float, b: F, decay: float) -> GradientMoments:
    """Moments of g over whole episodes from mu, decay being its w.

        E[g_c | s] = N(s,z) q(z,c) in the coordinates (z,c),   q(z,c) = E[psi_c H | z]
        Cov(H, g) = E[d u] + kappa^2 E[psi Var H'] + kappa w P Cov',   u = g's step with H' and g' at their means
        Var g = E[u^2] + E[kappa^2 psi^2 Var H' + 2 kappa w psi Cov'] + w^2 P Var',
        u = q(z,c) n_z + 1{s = z} psi_c (d + v - b),   n_z = w N(s',z) - N(s,z)

    Every deviation is taken from its conditional mean, so nothing large is subtracted. A state that is never visited
    again has no Cov' in its own coordinates; a revisit has. Source: ledger E1.11; the law of total variance, step by
    step, as in Sobel (1982).
    """
    s, _, y, _, _ = w.steps
    v, spread, d = future(w, x, kappa)
    N, C = w.visits(decay), w.visits(kappa * decay)
    gain, ahead, q = d + (v - b)[s], kappa**2 * spread[y], w.scored(d)
    n = decay * N[y, s] - N[s, s]
    drift, square = revisits(w, N, decay, d)
    fixed = C @ drift  # Cov(H, g) from each state: q(z,c) fixed[s,z] + fresh(z,c) C[s,z]
    fresh = w.scored(d * gain + ahead)
    cross = q * w.scored(fixed[y, s]) + fresh * w.scored(C[y, s])
    own = 2 * q * w.scored(n * gain) + w.twice_scored(gain**2 + ahead) + 2 * kappa * decay * cross
    often = mu @ w.visits(decay**2)
    first = mu @ N
    variance = often[:, None] * own + q**2 * (often @ square + mu @ (N - first) ** 2)[:, None]
    variance = np.maximum(variance, 0.0)
    return GradientMoments(first[:, None] * q, variance, float(variance.sum()))


def revisits(w: Walk, N: F, decay: float, d: F) -> tuple[F, F]:
    """E[d n_z | s] and E[n_z^2 | s], both (S,S), s then z, with n_z = w N(s',z) - N(s,z)."""
    S = len(N)
    paid = np.bincount(w.steps.s * S + w.steps.s_next, w.p * d, S * S).reshape(S, S)
    drift, square = np.zeros((2, S, S))
    for s in range(S):
        y = np.flatnonzero(w.P[s])
        n = decay * N[y] - N[s]
        drift[s], square[s] = paid[s, y] @ n, w.P[s, y] @ n**2
    return drift, square


def cut_sum(w: Walk, mu: F, x: F, kappa: float, b: F, decay: float, steps: int) -> GradientMoments:
    """Moments of g over the first steps of an episode, nothing being paid afterwards: always finite.

    The recursions of `score_sum`, one step longer at a time, coordinate by coordinate: arrays (N,S,A).
    """
    s, a, y, _, _ = w.steps
    S, A = w.pi.shape
    psi: F = np.zeros((len(s), S, A))
    psi[np.arange(len(s)), s] = w.psi[s, a]
    psi = psi.reshape(-1, S * A)
    v, spread = np.zeros((2, S))
    M, cov, var = np.zeros((3, S, S * A))  # of g, of (H, g) and of g, from each state
    for _ in range(steps):
        target = x + kappa * v[y]
        v = w.mean(target)
        step = psi * (target - b[s])[:, None] + decay * M[y]
        M = w.mean(step)
        d, u = target - v[s], step - M[s]
        ahead = kappa**2 * psi * spread[y][:, None]
        var = w.mean(u**2 + psi * ahead + 2 * kappa * decay * psi * cov[y] + decay**2 * var[y])
        cov = w.mean(d[:, None] * u + ahead + kappa * decay * cov[y])
        spread = w.mean(d**2 + kappa**2 * spread[y])
    mean = mu @ M
    variance = np.maximum(mu @ (var + (M - mean) ** 2), 0.0).reshape(S, A)
    return GradientMoments(mean.reshape(S, A), variance, float(variance.sum()))


def baseline_of(mdp: MDP, baseline: Any) -> F:
    """(S,) baseline: 0 if None, the same everywhere if a number."""
    if baseline is None or np.ndim(baseline) == 0:
        return np.full(mdp.S, 0.0 if baseline is None else float(checks.real(baseline, "baseline")))
    return checks.real(baseline, "baseline", (mdp.S,))
