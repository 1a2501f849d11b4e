"""How good estimates of advantages and of the policy gradient are: exact curves, and samples that should lie on them.

lam (K,) decay; V (S,) a wrong value function; Ahat the first advantage of an episode by GAE, g (S,A) the gradient
estimate of one episode, c its coordinates; b (S,) baseline. An episode follows pi (S,A) from the start mu to its end.
"""

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from tabrl import dp
from tabrl.advantage_moments import advantage, advantage_gradient
from tabrl.cells import check_count
from tabrl.control.acting import Rng
from tabrl.errors import ModelError
from tabrl.gradient import exact, policy_gradient
from tabrl.gradient_moments import optimal_baseline, reinforce
from tabrl.mdp import MDP
from tabrl.natural import mirror_descent
from tabrl.policy import softmax
from tabrl.policy_gradients import positions, returns_to_go
from tabrl.returns import gae_fragments
from tabrl.rollout import Actor, Rollout
from tabrl.types import F, I

TINY = 1e-300  # bound at which exact ascent would stop by itself
BASELINES = ("none", "best constant", "V", "best of all")


class Gae(NamedTuple):
    """Bias and deviation of GAE over lambda: exact, and deviations of single episodes from what is exact."""

    lam: F  # (K,)
    bias: F  # (K,A) of Ahat in the start state
    std: F  # (K,A)
    gradient_bias: F  # (K,) length of E[g] - grad J
    gradient_std: F  # (K,) root of the sum over c of Var[g_c]
    shown: F  # (M,) values of lam with samples
    action: I  # (n,) first action of each episode
    error: F  # (M,n) Ahat - A
    gradient_error: F  # (M,n) g - grad J, along E[g] - grad J
    gradient_square: F  # (M,n) |g - E[g]|^2


class Parabola(NamedTuple):
    """Variance of REINFORCE's gradient over the one baseline of a model with one state."""

    b: F  # (K,)
    total: F  # (K,) exact sum over c of Var[g_c]
    marks: F  # (3,) baselines none, V, best
    square: F  # (3,n) |g - grad J|^2 of single episodes


class Baselines(NamedTuple):
    """Variance of REINFORCE's gradient with several baselines, for policies on the way to the optimum."""

    labels: Sequence[str]
    J: F  # (K,) of the policies
    total: F  # (L,K) exact sum over c of Var[g_c]
    shown: I  # (M,) which of the policies have samples
    square: F  # (L,M,n) |g - grad J|^2 of single episodes
    best: float  # J*


def gae(
    mdp: MDP, theta: F, V: F, rng: Rng, *, lam: F | None = None, shown: F | None = None, runs: int = 2000
) -> Gae:  # fmt: skip
    """Bias and deviation of GAE over lambda, of the first advantage and of the gradient, for a wrong V.

    theta: (S,A) preferences; V: (S,). One start state is expected (ModelError), where all actions are legal. lam: 101
    from 0 to 1, shown: six of them, unless given. runs: n episodes, the same for all of `shown`.
    Source: Schulman et al. (2016), section 3; `advantage_moments`; ledger E1.13.

    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 3], [0, 0]], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> x = gae(bandit, np.zeros((2, 2)), np.array([5.0, 0.0]), np.random.default_rng(0), lam=np.ones(1), runs=4)
    >>> x.bias, x.std, x.error.shape
    (array([[-3., -3.]]), array([[0., 0.]]), (6, 4))
    """
    if mdp.mu.max() != 1:
        raise ModelError(f"mu has {np.count_nonzero(mdp.mu)} states; one start state is expected")
    lam = np.linspace(0, 1, 101) if lam is None else lam
    shown = np.array([0.0, 0.3, 0.6, 0.8, 0.9, 1.0]) if shown is None else shown
    s, pi, grad = int(mdp.mu.argmax()), softmax(theta, mdp.legal), policy_gradient(mdp, theta)
    first = [advantage(mdp, pi, V, float(x)) for x in lam]
    g = [advantage_gradient(mdp, pi, V, float(x)) for x in lam]
    x = Actor(mdp, rng).episodes(pi, check_count(runs, "runs", 1))
    start = np.flatnonzero(positions(x)[1] == 0)
    Ahat = [gae_fragments(x.r, x.discount, V[x.s], V[x.s_next] * (x.discount > 0), x.last, float(y)) for y in shown]
    A, action = exact(mdp, pi).advantage[s], x.a[start]
    known = [advantage_gradient(mdp, pi, V, float(y)).mean for y in shown]
    drawn = [episode_gradients(x, y, pi, mdp.gamma) for y in Ahat]
    return Gae(
        lam, np.array([y.bias[s] for y in first]), np.sqrt([y.variance[s] for y in first]),
        np.array([length(y.mean - grad) for y in g]), np.sqrt([y.total for y in g]), shown, action,
        np.array([y[start] - A[action] for y in Ahat]),
        np.array([along(d - grad, m - grad, known[0] - grad) for d, m in zip(drawn, known, strict=True)]),
        np.array([squares(d - m) for d, m in zip(drawn, known, strict=True)]),
    )  # fmt: skip


def episode_gradients(x: Rollout, c: F, pi: F, gamma: float) -> F:
    """Sum over t of gamma^t c_t psi_t of each episode of a rollout: (n,S,A), where c (steps,) are its weights.

    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 3], [0, 0]], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> pi = np.array([[0.25, 0.75], [0.5, 0.5]])
    >>> x = Actor(bandit, np.random.default_rng(0)).episodes(pi, 1)
    >>> int(x.a[0]), episode_gradients(x, np.ones(1), pi, 0.9)[0, 0]
    (1, array([-0.25,  0.25]))
    """
    start, t = positions(x)
    episode = np.unique(start, return_inverse=True)[1]
    weight = gamma**t * c
    S, A = pi.shape
    flat = (episode * S + x.s) * A + x.a
    taken = np.bincount(flat, weight, (int(episode[-1]) + 1) * S * A).reshape(-1, S, A)
    total: F = taken - taken.sum(axis=2, keepdims=True) * pi
    return total


def parabola(mdp: MDP, theta: F, rng: Rng, *, b: F | None = None, runs: int = 2000) -> Parabola:
    """Variance of REINFORCE's gradient over the baseline of the only state in which something is decided.

    theta: (S,A). b: (K,) baselines, from beyond the least to beyond the largest of those marked unless given.
    runs: n episodes. Source: `gradient_moments.optimal_baseline`; ledger E1.11.

    >>> wait = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[-1, 2], [0, 0]], 1.0, terminal=[0, 1])
    >>> x = parabola(wait, np.zeros((2, 2)), np.random.default_rng(0), b=np.array([0.0, 1.0]), runs=5)
    >>> x.total.round(9), x.marks.round(9), x.square.shape
    (array([3., 6.]), array([ 0.,  1., -1.]), (3, 5))
    """
    live = np.flatnonzero(~mdp.terminal)
    if len(live) != 1:
        raise ModelError(f"model has {len(live)} states that are not terminal; one is expected")
    pi = softmax(theta, mdp.legal)
    best, V = optimal_baseline(mdp, pi).b, exact(mdp, pi).V
    marks = np.array([0.0, V[live[0]], best[live[0]]])
    if b is None:
        b = np.linspace(marks.min() - np.ptp(marks) / 2, marks.max() + np.ptp(marks) / 2, 101)
    total = np.array([reinforce(mdp, pi, float(x)).total for x in b])
    square = gradient_squares(mdp, theta, [np.full(mdp.S, x) for x in marks], rng, runs)
    return Parabola(b, total, marks, square)


def baselines(
    mdp: MDP, rng: Rng, *, eta: float = 0.05, updates: int = 60, shown: Sequence[int] = (0, 10, 20, 40, 60),
    runs: int = 2000,
) -> Baselines:  # fmt: skip
    """Variance of REINFORCE's gradient with four baselines, along exact natural gradient ascent from pi uniform.

    Baselines: none, the best constant (the mean of the best of all, weighed by the curvature of the variance), V of the
    policy, and the best of all functions of the state. eta: step size of the ascent; shown: after which updates there
    are samples; runs: n episodes each. Source: `gradient_moments`; Greensmith, Bartlett & Baxter (2004); ledger E1.11.

    >>> wait = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[-1, 2], [0, 0]], 1.0, terminal=[0, 1], mu=[1, 0])
    >>> x = baselines(wait, np.random.default_rng(0), updates=1, shown=[0], runs=3)
    >>> x.total[:, 0].round(9), x.square.shape
    (array([3., 2., 6., 2.]), (4, 1, 3))
    """
    path = list(islice(mirror_descent(mdp, eta=eta, tol=TINY), updates + 1))
    several = [four_baselines(mdp, x.pi) for x in path]
    total = [[reinforce(mdp, x.pi, b).total for b in four] for x, four in zip(path, several, strict=True)]
    square = [gradient_squares(mdp, path[k].theta, several[k], rng, runs) for k in shown]
    J, best = np.array([x.J for x in path]), float(mdp.mu @ dp.solve(mdp).V)
    return Baselines(BASELINES, J, np.array(total).T, np.array(shown), np.swapaxes(square, 0, 1), best)


def four_baselines(mdp: MDP, pi: F) -> list[F]:
    """The baselines of BASELINES, each (S,)."""
    x, V = optimal_baseline(mdp, pi), exact(mdp, pi).V
    constant = float(x.curvature @ x.b / x.curvature.sum())
    return [np.zeros(mdp.S), np.full(mdp.S, constant), V, x.b]


def gradient_squares(mdp: MDP, theta: F, several: Sequence[F], rng: Rng, runs: int) -> F:
    """|g - grad J|^2 of `runs` episodes, with each of several baselines (S,) on the same episodes: (L,runs)."""
    pi, grad = softmax(theta, mdp.legal), policy_gradient(mdp, theta)
    x = Actor(mdp, rng).episodes(pi, check_count(runs, "runs", 1))
    G = returns_to_go(x, np.zeros(mdp.S))
    return np.array([squares(episode_gradients(x, G - b[x.s], pi, mdp.gamma) - grad) for b in several])


def squares(g: F) -> F:
    """Sum of squares of each table: (n,S,A) to (n,)."""
    square: F = np.einsum("nsa,nsa->n", g, g)
    return square


def length(g: F) -> float:
    """Euclidean length of a table."""
    return float(np.sqrt((g * g).sum()))


def along(g: F, u: F, instead: F) -> F:
    """Component of each table along u (S,A), or where that is 0 along another direction: (n,S,A) to (n,)."""
    u = u if length(u) > 1e-9 * length(instead) else instead
    component: F = np.einsum("nsa,sa->n", g, u) / max(length(u), 1e-300)
    return component
