"""The maximisation bias of Q-learning, and double Q-learning's cure: figure 6.5.

State A: left leads to B, right ends, both pay 0. State B: each of many actions ends with a reward that is negative in
the mean but varies. left (episodes, runs) whether an episode went left.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tabrl import dp
from tabrl.cells import check_count
from tabrl.companions import eps_greedy
from tabrl.control.acting import Learner, Rng
from tabrl.control.kernels import DOUBLE_Q, Q_LEARNING
from tabrl.control.one_step import OneStep
from tabrl.figures.control_runs import runs_of
from tabrl.mdp import MDP
from tabrl.types import F, Names

RULES = {"Q-learning": Q_LEARNING, "double Q-learning": DOUBLE_Q}
A, B, LEFT = 0, 1, 1
BLOCK = 512  # moves at a time


class LeftMoves(NamedTuple):
    """Share of runs that go left in each episode, and what is exact."""

    labels: Sequence[str]
    left: F  # (len(labels), episodes, runs) 1 or 0
    optimal: float  # probability of left under the eps-greedy policy of Q*: eps / 2
    first: float  # probability of left in the first two episodes, where both actions are still tied: 1 / 2


def maximisation_bias(actions: int = 10, *, mean: float = -0.1, points: int = 16) -> MDP:
    """The model of figure 6.5, with rewards in B that are normal with variance 1 up to their moment 2 points - 1.

    A reward takes the value of a Gauss-Hermite node with its weight, each a terminal state of its own. gamma = 1, so
    that Q*(A,left) = mean < 0 = Q*(A,right).
    Source: Sutton & Barto (2018), example 6.7; Abramowitz & Stegun (1964), section 25.4.46.

    >>> x = maximisation_bias()
    >>> x.S, x.A, dp.solve(x).Q[0, :2].round(12)
    (19, 10, array([ 0. , -0.1]))
    """
    check_count(actions, "actions", 2)
    node, weight = np.polynomial.hermite_e.hermegauss(points)
    S = points + 3
    P, R = np.zeros((S, actions, S)), np.zeros((S, actions, S))
    P[A, 0, 2] = P[A, LEFT, B] = 1.0
    P[B, :, 3:] = weight / weight.sum()
    R[B, :, 3:] = mean + node
    legal = np.ones((S, actions), np.bool_)
    legal[A, 2:] = False
    names = Names(("A", "B", *(f"end {i}" for i in range(points + 1))), tuple(f"action {i}" for i in range(actions)))
    terminal = np.arange(S) >= 2
    return MDP(P, R, 1.0, terminal=terminal, legal=legal, mu=np.arange(S) == A, names=names)


def left_moves(
    rng: Rng, *, rules: Mapping[str, int] = RULES, alpha: float = 0.1, eps: float = 0.1, runs: int = 1000,
    episodes: int = 300, actions: int = 10,
) -> LeftMoves:  # fmt: skip
    """Whether each episode of each run goes left, learning from Q = 0.

    Until B has been left once and A once more, both actions of A are worth 0: episodes 1 and 2 go left with
    probability 1/2. Source: Sutton & Barto (2018), figure 6.5.

    >>> x = left_moves(np.random.default_rng(0), runs=3, episodes=20)
    >>> x.left.shape, round(x.optimal, 12)
    ((2, 20, 3), 0.05)
    """
    mdp = maximisation_bias(actions)

    def share(rule: int) -> F:
        def make(own: Rng) -> Learner:
            return OneStep(rule, mdp, own, alpha, eps, None, None, BLOCK, None)

        moves = runs_of(make, rng, runs=runs, episodes=episodes)
        return np.array([(x.a == LEFT)[x.s == A] for x in moves], np.float64).T

    optimal = eps_greedy(dp.solve(mdp).Q, mdp.legal, eps)[A, LEFT]
    first = eps_greedy(np.zeros((mdp.S, mdp.A)), mdp.legal, eps)[A, LEFT]
    return LeftMoves(tuple(rules), np.array([share(rule) for rule in rules.values()]), float(optimal), float(first))
