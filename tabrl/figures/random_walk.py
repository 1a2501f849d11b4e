"""Learning on the random walk beside its exact law: example 6.2 and figure 6.2.

V (S,) values; alpha step sizes; k episodes; a square is the mean over non-terminal s of (V(s) - V_pi(s))**2.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from scipy.special import binom

from tabrl import operators, sample, visits
from tabrl.branches import step
from tabrl.cells import check_count
from tabrl.chain import evaluate, induce
from tabrl.figures.episode_moments import monte_carlo_episodes, td0_episodes
from tabrl.figures.surfaces import Learner, experience, rms
from tabrl.mdp import MDP
from tabrl.prediction import monte_carlo, td0
from tabrl.replay import side_by_side
from tabrl.td_moments import ValueMoments, restarts
from tabrl.types import F

BATCHES = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100)


class Estimates(NamedTuple):
    """Values of many runs of TD(0) after some numbers of episodes, and their exact law."""

    k: Sequence[int]
    exact: F  # (S,) V_pi
    V: F  # (len(k), runs, S)
    mean: F  # (len(k), S) exact
    std: F  # (len(k), S) exact


class Errors(NamedTuple):
    """Squared errors of TD(0) and of Monte Carlo over episodes, and their exact means."""

    k: F  # (K,) episodes
    td: Sequence[float]  # step sizes
    td_square: F  # (len(td), K, runs)
    td_exact: F  # (len(td), K) root of the expected square
    mc: Sequence[float]  # step sizes
    mc_square: F  # (len(mc), K, runs)
    mc_exact: F  # (len(mc), K)


class BatchErrors(NamedTuple):
    """Squared errors of what batch TD and batch Monte Carlo converge to, after k episodes."""

    k: F  # (K,)
    td_square: F  # (K, runs)
    mc_square: F  # (K, runs)
    mc_exact: F  # (K,) root of the expected square
    td_rate: float  # limit of k times the expected square, batch TD
    mc_rate: float  # the same for batch Monte Carlo


def first_values(mdp: MDP, V: float) -> F:
    """(S,) the same value everywhere, 0 in terminal states."""
    return np.where(mdp.terminal, 0.0, V)


def td0_estimates(
    mdp: MDP,
    pi: F,
    rng: np.random.Generator,
    *,
    k: Sequence[int] = (0, 1, 10, 100),
    alpha: float = 0.1,
    V: float = 0.5,
    runs: int = 100,
) -> Estimates:
    """Values of TD(0) after k episodes, from the same first value V everywhere.

    pi: (S,A), must end. Source: Sutton & Barto (2018), example 6.2, left; ledger E1.7.

    >>> from tabrl.envs import random_walk
    >>> x = td0_estimates(random_walk(), np.ones((7, 1)), np.random.default_rng(0), runs=4)
    >>> x.V.shape, x.mean[1].round(3)
    ((4, 4, 7), array([0.   , 0.475, 0.5  , 0.5  , 0.5  , 0.525, 0.   ]))
    """
    start = first_values(mdp, V)
    rounds = experience(mdp, pi, rng, runs=runs, episodes=max(k))
    found = {0: np.tile(start, (runs, 1))}
    for t, x in enumerate(td0(rounds, alpha=alpha, V=found[0]), 1):
        found[t] = x.V
    law = {0: (start, np.zeros(mdp.S))}
    for y in td0_episodes(mdp, pi, alpha=alpha, episodes=max(k), V=start):
        law[y.t] = y.mean, np.sqrt(y.covariance.diagonal().clip(0))
    mean, std = (np.array([law[t][i] for t in k]) for i in range(2))
    return Estimates(k, evaluate(induce(mdp, pi)), np.array([found[t] for t in k]), mean, std)


def td_against_mc(
    mdp: MDP,
    pi: F,
    rng: np.random.Generator,
    *,
    td: Sequence[float] = (0.05, 0.1, 0.15),
    mc: Sequence[float] = (0.01, 0.02, 0.03, 0.04),
    V: float = 0.5,
    runs: int = 100,
    episodes: int = 100,
) -> Errors:
    """Errors of TD(0) and of constant-alpha Monte Carlo after 0, 1, …, `episodes` episodes, on the same experience.

    Squares are kept, as their mean is known exactly: the curve is the root of their mean over runs. pi: (S,A), must
    end. td, mc: step sizes. Source: Sutton & Barto (2018), example 6.2, right (which averages the roots of the runs,
    a little less); ledger E1.6, E1.7.

    >>> from tabrl.envs import random_walk
    >>> x = td_against_mc(random_walk(), np.ones((7, 1)), np.random.default_rng(0), runs=4)
    >>> x.td_square.shape, x.mc_exact[:, 0].round(4)
    ((3, 101, 4), array([0.2357, 0.2357, 0.2357, 0.2357]))
    """
    start, exact, live = first_values(mdp, V), evaluate(induce(mdp, pi)), np.flatnonzero(~mdp.terminal)
    rounds = experience(mdp, pi, rng, runs=runs, episodes=episodes)
    first = np.tile(start, (runs, 1))

    def squares(learner: Learner, alpha: float) -> F:
        values = np.array([first, *(x.V for x in learner(rounds, alpha=alpha, V=first))])
        return ((values[:, :, live] - exact[live]) ** 2).mean(axis=2)  # type: ignore[no-any-return]

    def roots(law: Callable[..., Iterator[ValueMoments]], alpha: float) -> F:
        zero = np.sqrt(((start - exact)[live] ** 2).mean())
        return np.array([zero, *rms(mdp, exact, law(mdp, pi, alpha=alpha, episodes=episodes, V=start))])

    return Errors(
        np.arange(episodes + 1.0),
        td, np.array([squares(td0, a) for a in td]), np.array([roots(td0_episodes, a) for a in td]),
        mc, np.array([squares(monte_carlo, a) for a in mc]), np.array([roots(monte_carlo_episodes, a) for a in mc]),
    )  # fmt: skip


def batch_errors(
    mdp: MDP,
    pi: F,
    rng: np.random.Generator,
    *,
    k: Sequence[int] = BATCHES,
    V: float = 0.5,
    runs: int = 100,
) -> BatchErrors:
    """Errors of the limits of batch TD and batch Monte Carlo on the first k episodes, on the same experience.

    The limits are `operators.batch_td`, and the average return of each state's visits, which is `monte_carlo` with the
    step size 1/visits (and `operators.batch_mc`); a state not visited yet has the value V. The
    expected square of Monte Carlo is exact at every k, that of TD in its leading term:

        td_rate = lim k E[square] = mean over s of ((I - gamma P)^-1 diag(sigma^2 / d) (I - gamma P)^-T)(s,s)

    sigma^2 = Var[R + gamma V_pi(s')|s], d expected visits in an episode. pi: (S,A), must end.
    Source: Sutton & Barto (2018), figure 6.2; the delta method; ledger E1.6, E1.7.

    >>> from tabrl.envs import random_walk
    >>> x = batch_errors(random_walk(), np.ones((7, 1)), np.random.default_rng(0), k=(1, 10), runs=4)
    >>> x.td_square.shape, x.mc_exact.round(3), round(x.td_rate, 4), round(x.mc_rate, 4)
    ((2, 4), array([0.413, 0.195]), 0.187, 0.4056)
    """
    start, exact, live = first_values(mdp, V), evaluate(induce(mdp, pi)), np.flatnonzero(~mdp.terminal)
    check_count(runs, "runs", 1)
    check_count(min(k), "k", 1)
    batches = [list(islice(sample.episodes(mdp, pi, own), max(k))) for own in rng.spawn(runs)]
    averages = list(monte_carlo(side_by_side(batches, mdp.S), V=np.tile(start, (runs, 1))))
    data = [[(x.s, x.r, x.discount) for x in batch] for batch in batches]
    td = np.array([[operators.batch_td(batch[:n], mdp.S, start).V for batch in data] for n in k])
    mc = np.array([averages[n - 1].V for n in k])
    td_square, mc_square = (((x - exact)[:, :, live] ** 2).mean(axis=2) for x in (td, mc))
    mc_exact = np.sqrt(expected_mc_squares(mdp, pi, max(k), start))[np.asarray(k) - 1]
    return BatchErrors(np.asarray(k, np.float64), td_square, mc_square, mc_exact, *rates(mdp, pi))


def reaching(mdp: MDP, pi: F) -> tuple[F, F]:
    """Expected visits of an episode to each non-terminal state, and the probability of any; both (n,)."""
    law, mu = step(mdp, pi), restarts(mdp, None)
    n = len(mu)
    every = np.linalg.inv(np.eye(n) - law.P[:, :n])  # expected visits from each state
    d = mu @ every
    return d, d / every.diagonal()


def expected_mc_squares(mdp: MDP, pi: F, k: int, start: F) -> F:
    """Exact expected square of the average return after 1, …, k episodes: (k,).

    The number of episodes that visit a state is binomial; given that number the error is that of `visits.every_visit`.
    """
    exact, live = evaluate(induce(mdp, pi)), np.flatnonzero(~mdp.terminal)
    _, h = reaching(mdp, pi)
    episodes, seen = np.arange(1, k + 1)[:, None], np.arange(k + 1)
    total = np.zeros(k)
    for s, p in zip(live.tolist(), h, strict=True):
        error = [(start[s] - exact[s]) ** 2, *(visits.every_visit(mdp, pi, s, m).mse for m in range(1, k + 1))]
        chance = binom(episodes, seen) * p**seen * (1 - p) ** np.maximum(episodes - seen, 0)
        total += chance @ error / len(live)
    return total


def rates(mdp: MDP, pi: F) -> tuple[float, float]:
    """Limits of k times the expected square: batch TD, batch Monte Carlo."""
    law, V = step(mdp, pi), evaluate(induce(mdp, pi))
    n = len(law.states)
    d, h = reaching(mdp, pi)
    delta = law.R + mdp.gamma * np.append(V[law.states], 0.0) - V[law.states][:, None]
    sigma2 = (law.P * (delta**2 + law.noise)).sum(axis=1)
    N = np.linalg.inv(np.eye(n) - mdp.gamma * law.P[:, :n])
    mc = [visits.every_visit_rate(mdp, pi, int(s)).mse for s in law.states]
    return float((N**2 @ (sigma2 / d)).mean()), float((np.array(mc) / h).mean())
