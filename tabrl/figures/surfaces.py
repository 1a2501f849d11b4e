"""Errors of prediction learners in their first episodes, over step sizes: figures 7.2, 12.3, 12.6 and 12.8.

V (runs,S) values of many independent runs; alpha step sizes; n steps of the return; lam trace decay; RMS root mean
square error.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice, product
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tabrl import sample
from tabrl.cells import check_count
from tabrl.chain import evaluate, induce
from tabrl.figures.episode_moments import monte_carlo_episodes, td0_episodes
from tabrl.mdp import MDP
from tabrl.prediction import n_step_td
from tabrl.replay import side_by_side
from tabrl.td_moments import ValueMoments
from tabrl.types import F, Transitions, ValueUpdate

POWERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
LAMBDAS = (0.0, 0.4, 0.8, 0.9, 0.95, 0.975, 0.99, 1.0)
FINE = np.array([0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, *np.arange(2, 11) / 10])  # step sizes

Learner: TypeAlias = Callable[..., Iterator[ValueUpdate]]  # learner(rounds, alpha=, V=)


class Surface(NamedTuple):
    """RMS errors over n and alpha, each averaged over states, episodes and runs."""

    n: Sequence[int]
    alpha: F  # (K,)
    rms: F  # (len(n), K, runs) average over the episodes of each run


class ExactErrors(NamedTuple):
    """Exact errors over alpha, averaged over episodes: the root of the expected mean square."""

    alpha: F  # (K,)
    none: float  # RMS error of V = 0, of all learners at alpha = 0
    td0: F  # (K,) TD(0): n = 1, lam = 0
    monte_carlo: F  # (K,) constant-alpha Monte Carlo: n = inf, offline lam = 1


def n_step_surface(
    mdp: MDP,
    pi: F,
    rng: np.random.Generator,
    *,
    n: Sequence[int] = POWERS,
    alpha: F | None = None,
    runs: int = 100,
    episodes: int = 10,
) -> Surface:
    """Error of n-step TD in its first episodes, for many n and alpha on the same experience.

        RMS = mean over runs and episodes of sqrt(mean over non-terminal s of (V(s) - V_pi(s))**2)

    The errors are those after each episode, from V = 0. On `envs.random_walk_19` with the defaults
    (11 step sizes from 0 to 1) this is figure 7.2. Source: Sutton & Barto (2018), section 7.1; ledger E1.8.

    pi: (S,A). Returns rms (len(n), len(alpha), runs); inf or nan where a run diverged.

    >>> from tabrl.envs import random_walk
    >>> walk = random_walk(3)
    >>> n_step_surface(walk, np.ones((5, 1)), np.random.default_rng(0), n=(1, 2), runs=4).rms.shape
    (2, 11, 4)
    """
    steps = np.linspace(0, 1, 11) if alpha is None else np.asarray(alpha, np.float64)
    learners = [partial(n_step_td, n=m) for m in n]
    return Surface(n, steps, error_surface(mdp, pi, rng, learners, alpha=steps, runs=runs, episodes=episodes))


def error_surface(
    mdp: MDP,
    pi: F,
    rng: np.random.Generator,
    learners: Sequence[Learner],
    *,
    alpha: F = FINE,
    runs: int = 100,
    episodes: int = 10,
) -> F:
    """Error of several learners in their first episodes, for many alpha, on the same experience.

    learners: functions of (rounds, alpha=, V=) such as `partial(td_lambda, lam=0.9, trace="dutch")`, that yield
    one record per round. The error is that of `n_step_surface`. Returns (len(learners), len(alpha), runs); inf or
    nan where a run diverged. alpha = 0 learns nothing.
    Source: Sutton & Barto (2018), figures 12.3, 12.6 and 12.8; ledger E1.9.

    >>> from tabrl.envs import random_walk
    >>> from tabrl.prediction import td_lambda
    >>> ones = np.ones((5, 1))
    >>> learners = [partial(td_lambda, lam=lam) for lam in (0.0, 0.9)]
    >>> error_surface(random_walk(3), ones, np.random.default_rng(0), learners, runs=4).shape
    (2, 18, 4)
    """
    exact = evaluate(induce(mdp, pi))
    live = np.flatnonzero(~mdp.terminal)
    rounds = experience(mdp, pi, rng, runs=runs, episodes=episodes)
    rms = np.zeros((len(learners), len(alpha), runs))
    for (i, learner), (j, a) in product(enumerate(learners), enumerate(alpha)):
        zero = np.zeros((runs, mdp.S))
        learned: Any = learner(rounds, alpha=float(a), V=zero) if a else [ValueUpdate(0, zero, 0.0)] * episodes
        for x in learned:
            with np.errstate(over="ignore", invalid="ignore"):  # large n, lam and alpha may diverge
                rms[i, j] += np.sqrt(((x.V[:, live] - exact[live]) ** 2).mean(axis=1)) / episodes
    return rms


def experience(mdp: MDP, pi: F, rng: np.random.Generator, *, runs: int, episodes: int) -> list[Transitions]:
    """The first episodes of many runs, each with a random stream of its own: one round for each episode."""
    check_count(runs, "runs", 1)
    check_count(episodes, "episodes", 0)
    streams = [sample.episodes(mdp, pi, own) for own in rng.spawn(runs)]
    return list(islice(side_by_side(streams, mdp.S), episodes))


def exact_errors(mdp: MDP, pi: F, *, alpha: F, episodes: int = 10) -> ExactErrors:
    """Exact counterparts of `error_surface` for TD(0) and for Monte Carlo.

        mean over episodes of sqrt(E[mean over non-terminal s of (V(s) - V_pi(s))**2])

    The root is taken after the mean over runs, so this is at least the mean of the roots that `error_surface`
    estimates, and exceeds it by about the variance of the mean square over 8 RMS**3. alpha: (K,) in [0, 1].
    Source: `td0_episodes` and `monte_carlo_episodes`; ledger E1.6 and E1.7.

    >>> from tabrl.envs import random_walk
    >>> x = exact_errors(random_walk(1), np.ones((3, 1)), alpha=np.array([0.0, 1.0]), episodes=1)
    >>> x.none, x.td0.tolist(), x.monte_carlo.tolist()
    (0.5, [0.5, 0.5], [0.5, 0.5])
    """
    V = evaluate(induce(mdp, pi))
    td0, mc = (
        np.array([rms(mdp, V, f(mdp, pi, alpha=float(a), episodes=episodes)).mean() for a in alpha])
        for f in (td0_episodes, monte_carlo_episodes)
    )
    return ExactErrors(np.asarray(alpha), float(np.sqrt((V[~mdp.terminal] ** 2).mean())), td0, mc)


def rms(mdp: MDP, V: F, moments: Iterator[ValueMoments]) -> F:
    """Root of the expected mean square error around V (S,), for each record of moments."""
    live = ~mdp.terminal
    square = [((x.mean - V) ** 2 + x.covariance.diagonal())[live].mean() for x in moments]
    return np.sqrt(square)
