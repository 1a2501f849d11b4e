"""Planning with a learned model in the Dyna maze: figure 8.2.

planning: imagined updates per step of the world; lengths (episodes, runs) steps per episode.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tabrl import dp
from tabrl.chain import evaluate, induce
from tabrl.companions import eps_greedy
from tabrl.control.acting import Learner, Rng
from tabrl.control.dyna import Dyna
from tabrl.figures.control_runs import episode_lengths, runs_of
from tabrl.mdp import MDP
from tabrl.types import F

BLOCK = 2048  # moves at a time


class Lengths(NamedTuple):
    """Steps of every episode of every run, and what is exact."""

    planning: Sequence[int]
    lengths: F  # (len(planning), episodes, runs)
    shortest: float  # steps of the shortest way
    greedy: float  # expected steps of the eps-greedy policy of Q*, ties shared
    first: float  # expected steps of the uniform policy: of the first episode, before any reward was met


def step_counts(
    mdp: MDP, rng: Rng, *, planning: Sequence[int] = (0, 5, 50), alpha: float = 0.1, eps: float = 0.1,
    runs: int = 30, episodes: int = 50,
) -> Lengths:  # fmt: skip
    """Steps per episode of Dyna-Q, from Q = 0.

    mdp: pays only on reaching its goal, so that the first episode is a walk of the uniform policy. The exact numbers
    are those of the same model with 1 per step and gamma = 1. Source: Sutton & Barto (2018), figure 8.2.

    >>> from tabrl.envs import dyna_maze
    >>> x = step_counts(dyna_maze(), np.random.default_rng(0), runs=2, episodes=3)
    >>> x.lengths.shape, x.shortest
    ((3, 3, 2), 14.0)
    """

    def lengths(n: int) -> F:
        def make(own: Rng) -> Learner:
            return Dyna(n, None, mdp, own, alpha, eps, None, None, BLOCK, None)

        return np.array([episode_lengths(x) for x in runs_of(make, rng, runs=runs, episodes=episodes)]).T

    return Lengths(planning, np.array([lengths(n) for n in planning], np.float64), *expected_steps(mdp, eps))


def expected_steps(mdp: MDP, eps: float) -> tuple[float, float, float]:
    """Exact steps from the start: the shortest way, the eps-greedy policy of Q*, and the uniform policy."""
    cost = np.where(mdp.terminal, 0.0, -1.0)
    timed = MDP(mdp.P, cost, 1.0, mu=mdp.mu, terminal=mdp.terminal, legal=mdp.legal)
    Q = dp.solve(mdp).Q.round(9)  # ties as ties
    policies = (eps_greedy(Q, mdp.legal, e) for e in (eps, 1.0))
    greedy, first = (-float(mdp.mu @ evaluate(induce(timed, pi))) for pi in policies)
    return round(-float(mdp.mu @ dp.solve(timed).V), 6), greedy, first
