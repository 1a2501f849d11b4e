"""Control that looks one step ahead: Q-learning, SARSA, expected SARSA, double Q-learning.

Q (S,A) action values; pi eps-greedy in Q; alpha step size; delta TD error.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tabrl.control.acting import Learner, Rng
from tabrl.control.kernels import DOUBLE_Q, EXPECTED_SARSA, Q_LEARNING, SARSA, Moves, learn, update
from tabrl.sample import BLOCK, Tables
from tabrl.schedules import Alpha
from tabrl.types import ActionUpdate, F, I


def q_learning(
    source: Any, rng: Rng, *, alpha: Alpha, eps: float = 0.1, Q: F | None = None, limit: int | None = None,
    every: int = BLOCK, gamma: float | None = None,
) -> Iterator[ActionUpdate]:  # fmt: skip
    """Q-learning.

        Q(s,a) <- Q(s,a) + alpha (r + discount max over a' of Q(s',a') - Q(s,a))

    source: an `MDP`, or a gymnasium environment, whose discount is `gamma` (a model has its own). alpha: a
    number, or a schedule of the number of the pair's update. eps: exploration of the policy that acts. Q:
    first values (S,A), zeros unless given. limit: largest number of steps of an episode; a cut episode keeps
    its discount. One record per `every` transitions; the result does not depend on it. Learns the values of
    the greedy policy, whatever eps. Source: Watkins (1989); Sutton & Barto (2018), section 6.5.

    >>> from tabrl import MDP
    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> x = next(q_learning(two, np.random.default_rng(0), alpha=0.5, every=2))
    >>> x.t, x.Q.tolist(), x.delta
    (2, [[3.75], [0.0]], 2.5)
    """
    return OneStep(Q_LEARNING, source, rng, alpha, eps, Q, limit, every, gamma).records()


def sarsa(
    source: Any, rng: Rng, *, alpha: Alpha, eps: float = 0.1, Q: F | None = None, limit: int | None = None,
    every: int = BLOCK, gamma: float | None = None,
) -> Iterator[ActionUpdate]:  # fmt: skip
    """SARSA: the target uses the action that is taken next.

        Q(s,a) <- Q(s,a) + alpha (r + discount Q(s',a') - Q(s,a)),   a' drawn from pi(·|s')

    Arguments as in `q_learning`. Learns the values of the policy that acts. In a cut episode a' is drawn for
    the target and not taken. Source: Rummery & Niranjan (1994); Sutton & Barto (2018), section 6.4.

    >>> from tabrl import MDP
    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> next(sarsa(two, np.random.default_rng(0), alpha=0.5, every=1)).Q.tolist()
    [[2.5], [0.0]]
    """
    return OneStep(SARSA, source, rng, alpha, eps, Q, limit, every, gamma).records()


def expected_sarsa(
    source: Any, rng: Rng, *, alpha: Alpha, eps: float = 0.1, Q: F | None = None, limit: int | None = None,
    every: int = BLOCK, gamma: float | None = None,
) -> Iterator[ActionUpdate]:  # fmt: skip
    """Expected SARSA: the target is the mean over the next action.

        Q(s,a) <- Q(s,a) + alpha (r + discount sum over a' of pi(a'|s') Q(s',a') - Q(s,a))

    Arguments as in `q_learning`. eps=0 is Q-learning with a greedy actor; eps=1 evaluates the uniform policy.
    Source: van Seijen et al. (2009); Sutton & Barto (2018), eq. 6.9.

    >>> from tabrl import MDP
    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> next(expected_sarsa(two, np.random.default_rng(0), alpha=0.5, every=1)).Q.tolist()
    [[2.5], [0.0]]
    """
    return OneStep(EXPECTED_SARSA, source, rng, alpha, eps, Q, limit, every, gamma).records()


def double_q_learning(
    source: Any, rng: Rng, *, alpha: Alpha, eps: float = 0.1, Q: F | None = None, limit: int | None = None,
    every: int = BLOCK, gamma: float | None = None,
) -> Iterator[ActionUpdate]:  # fmt: skip
    """Double Q-learning: one table chooses the best next action, the other says what it is worth.

        Q1(s,a) <- Q1(s,a) + alpha (r + discount Q2(s', argmax Q1(s',·)) - Q1(s,a)),   or the roles swapped

    A fair coin picks the table that moves; both start from Q. The records hold their mean, in which the
    policy is eps-greedy. A schedule counts the updates of a pair in both tables together. Other arguments as
    in `q_learning`. Source: van Hasselt (2010); Sutton & Barto (2018), section 6.7.

    >>> from tabrl import MDP
    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> next(double_q_learning(two, np.random.default_rng(0), alpha=0.5, every=1)).Q.tolist()
    [[1.25], [0.0]]
    """
    return OneStep(DOUBLE_Q, source, rng, alpha, eps, Q, limit, every, gamma).records()


class OneStep(Learner):
    """A learner that looks one step ahead; `rule` says which."""

    def __init__(self, rule: int, *settings: Any) -> None:
        super().__init__(*settings)
        self.rule, self.ahead, self.draws = rule, rule == SARSA, 4 if rule in (SARSA, DOUBLE_Q) else 3
        self.pair = np.stack([self.Q, self.Q]) if rule == DOUBLE_Q else np.zeros((2, 0, 0))

    def walk(self, model: Tables, at: I, u: F, out: Moves) -> float:
        """Act and learn on a model."""
        legal, ahead = None if self.legal.all() else self.legal, self.steps.ahead(len(u))
        settings = (self.rule, self.Q, self.pair, legal, self.eps, ahead, self.steps.count)
        return learn(*settings, model, self.limit, at, u, out)

    def update(self, x: Moves, u: F) -> float:
        """Learn from one step."""
        settings = (self.rule, self.Q, self.pair, self.legal, self.eps, self.steps.ahead(1), self.steps.count)
        return update(*settings, x, 0, u[-1])
