"""Walking along a cliff while exploring: example 6.6 and figure 6.3.

Learners act eps-greedily; alpha step size. Lines are exact: what the greedy policy earns, what eps-greedy policies
earn that are greedy in Q*, and what the best eps-soft policy earns. Returns are undiscounted, from the start mu.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tabrl import dp
from tabrl.cells import check_count
from tabrl.chain import induce, objective
from tabrl.companions import eps_greedy, eps_soft
from tabrl.control.acting import Learner, Rng
from tabrl.control.kernels import EXPECTED_SARSA, Q_LEARNING, SARSA
from tabrl.control.one_step import OneStep
from tabrl.errors import ModelError
from tabrl.figures.control_runs import episode_returns, runs_of
from tabrl.mdp import MDP
from tabrl.types import F

RULES = {"SARSA": SARSA, "Q-learning": Q_LEARNING, "expected SARSA": EXPECTED_SARSA}
BLOCK = 4096  # moves at a time
TIE = 1e-9  # actions whose values differ by less are tied


class Lines(NamedTuple):
    """Exact returns from the start."""

    optimal: float  # mu . V*, nothing explored
    greedy: float  # eps-greedy in Q*, ties shared
    greedy_low: float  # the same with the worst tie rule
    greedy_high: float  # with the best
    soft: float  # the best eps-soft policy


class Returns(NamedTuple):
    """Return of every episode of every run."""

    labels: Sequence[str]
    returns: F  # (len(labels), episodes, runs)
    lines: Lines


class Performance(NamedTuple):
    """Mean return of the episodes of each run, over step sizes."""

    labels: Sequence[str]
    alpha: F  # (K,)
    interim: F  # (len(labels), K, runs) mean of the first episodes
    asymptotic: F  # (len(labels), K, long runs) mean of many more
    lines: Lines


def exploring_lines(mdp: MDP, eps: float) -> Lines:
    """Exact returns between which learners that explore must end.

        V* >= best eps-soft >= eps-greedy in Q*,   best eps-soft = optimum of `eps_soft(mdp, eps)`

    No learner that explores with eps expects more than `soft`, at any time. Q-learning's Q tends to Q*, so it ends
    between greedy_low and greedy_high, wherever its ties fall. Source: Sutton & Barto (2018), sections 5.4 and 6.5.

    >>> from tabrl.envs import cliff
    >>> [round(x, 2) for x in exploring_lines(cliff(), 0.1)]
    [-13.0, -50.8, -51.81, -45.8, -20.71]
    """
    best, soft = dp.solve(mdp), eps_soft(mdp, eps)
    top = np.where(mdp.legal, best.Q, -np.inf).max(axis=1, keepdims=True)
    tied = mdp.legal & (top - TIE < best.Q)
    pi = eps_greedy(np.where(tied, top, best.Q), mdp.legal, eps)

    def with_ties(sign: float) -> float:
        """Best (sign=1) or worst (-1) choice among the tied actions."""
        bound = MDP(soft.P, sign * soft.R, soft.gamma, mu=soft.mu, terminal=soft.terminal, legal=tied)
        return sign * float(mdp.mu @ dp.solve(bound).V)

    return Lines(
        float(mdp.mu @ best.V), objective(induce(mdp, pi), mdp.mu), with_ties(-1), with_ties(1),
        float(mdp.mu @ dp.solve(soft).V),
    )  # fmt: skip


def online_returns(
    mdp: MDP, rng: Rng, *, rules: Mapping[str, int] = RULES, alpha: float = 0.5, eps: float = 0.1, runs: int = 100,
    episodes: int = 500,
) -> Returns:  # fmt: skip
    """Returns of each episode while learning, from Q = 0.

    rules: label -> update of `OneStep`. Returns (len(rules), episodes, runs).
    Source: Sutton & Barto (2018), example 6.6.

    >>> from tabrl.envs import cliff
    >>> online_returns(cliff(), np.random.default_rng(0), runs=2, episodes=5).returns.shape
    (3, 5, 2)
    """
    found = [returns(mdp, rule, rng, alpha=alpha, eps=eps, runs=runs, episodes=episodes) for rule in rules.values()]
    return Returns(tuple(rules), np.array(found), exploring_lines(mdp, eps))


def returns(mdp: MDP, rule: int, rng: Rng, *, alpha: float, eps: float, runs: int, episodes: int) -> F:
    """Returns of each episode of one learner: (episodes, runs)."""
    if mdp.gamma != 1:
        raise ModelError(f"gamma is {mdp.gamma:g}; 1 is expected, as the returns are not discounted")

    def make(own: Rng) -> Learner:
        return OneStep(rule, mdp, own, alpha, eps, None, None, BLOCK, None)

    found = [episode_returns(x) for x in runs_of(make, rng, runs=runs, episodes=episodes)]
    return np.array(found).T


def performance(
    mdp: MDP, rng: Rng, *, rules: Mapping[str, int] = RULES, alpha: F | None = None, eps: float = 0.1,
    runs: int = 100, episodes: int = 100, long_runs: int = 10, long_episodes: int = 1000,
) -> Performance:  # fmt: skip
    """Mean return of the first episodes, and of many more, over step sizes.

    alpha: .1, .2, …, 1 unless given. Source: Sutton & Barto (2018), figure 6.3 (where asymptotic means 100,000
    episodes; what the first episodes cost then weighs less).

    >>> from tabrl.envs import cliff
    >>> x = performance(cliff(), np.random.default_rng(0), runs=2, episodes=5, long_runs=1, long_episodes=10)
    >>> x.interim.shape, x.asymptotic.shape
    ((3, 10, 2), (3, 10, 1))
    """
    alpha = np.arange(1, 11) / 10 if alpha is None else np.asarray(alpha, np.float64)

    def means(runs: int, episodes: int) -> F:
        def row(rule: int) -> list[F]:
            steps = (float(a) for a in alpha)
            return [returns(mdp, rule, rng, alpha=a, eps=eps, runs=runs, episodes=episodes).mean(axis=0) for a in steps]

        return np.array([row(rule) for rule in rules.values()])

    return Performance(
        tuple(rules), alpha, means(runs, episodes), means(long_runs, long_episodes), exploring_lines(mdp, eps)
    )


def smoothed(y: F, window: int) -> F:
    """Mean of the last `window` rows (fewer at the beginning): (K,runs) to (K,runs).

    >>> smoothed(np.array([[1.0], [3.0], [5.0]]), 2).ravel()
    array([1., 2., 4.])
    """
    check_count(window, "window", 1)
    total = np.cumsum(y, axis=0)
    total[window:] -= total[:-window].copy()
    mean: F = total / np.minimum(np.arange(1, len(y) + 1), window)[:, None]
    return mean
