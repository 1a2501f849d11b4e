"""Control with n-step returns: action values moved towards n rewards and what follows them.

Q (S,A) action values; pi eps-greedy in Q, ties uniform; n steps; G target; alpha step size. A pair waits for its
update until n moves are made or the episode ends; pi and Q in its target are those at the time of the update.
Every learner is an endless generator of `ActionUpdate` over an explicit `MDP`, or a gymnasium environment with
discrete, multi-discrete or tuple observations.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tabrl.control.acting import Learner, Rng, empty_moves
from tabrl.control.kernels import Moves
from tabrl.control.n_step_kernels import N_STEP_EXPECTED_SARSA, N_STEP_SARSA, TREE_BACKUP, catch_up, n_step_walk
from tabrl.sample import BLOCK, Tables
from tabrl.schedules import Alpha, fraction
from tabrl.types import ActionUpdate, F, I


def n_step_sarsa(
    source: Any, rng: Rng, *, n: int, alpha: Alpha, eps: float = 0.1, Q: F | None = None, limit: int | None = None,
    every: int = BLOCK, gamma: float | None = None,
) -> Iterator[ActionUpdate]:  # fmt: skip
    """n-step SARSA.

        G = r[t] + discount r[t+1] + … + discount**n Q(s[t+n],a[t+n]),   Q(s,a) <- Q(s,a) + alpha (G - Q(s,a))

    n: moves in a target, fewer at the end of an episode. The next action is drawn from pi before the update of
    the step. A time limit ends the fragment but keeps the discount: the targets end in Q at the cut state and an
    action drawn for it, which is not taken. A record's t counts moves; up to n - 1 of them still wait for their
    update, which comes n moves later, or at the end of the episode for all that wait. n=1 is SARSA, n as long as
    an episode is Monte Carlo. Other arguments, and errors, as in `q_learning`; ValueError for n below 1.
    Source: Sutton & Barto (2018), section 7.2.

    >>> from tabrl import MDP
    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> next(n_step_sarsa(two, np.random.default_rng(0), n=3, alpha=0.5, every=1)).Q.tolist()
    [[2.5], [0.0]]
    """
    return NStep(N_STEP_SARSA, n, None, source, rng, alpha, eps, Q, limit, every, gamma).records()


def n_step_expected_sarsa(
    source: Any, rng: Rng, *, n: int, alpha: Alpha, eps: float = 0.1, Q: F | None = None, limit: int | None = None,
    every: int = BLOCK, gamma: float | None = None,
) -> Iterator[ActionUpdate]:  # fmt: skip
    """n-step expected SARSA, on-policy: n rewards, then the mean over the action that would follow.

        G = r[t] + discount r[t+1] + … + discount**n sum over a of pi(a|s[t+n]) Q(s[t+n],a)

    An action is drawn after the update of the step before. n=1 is expected SARSA. Everything else as in
    `n_step_sarsa`. Source: Sutton & Barto (2018), section 7.2, eq. 7.7.

    >>> from tabrl import MDP
    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> next(n_step_expected_sarsa(two, np.random.default_rng(0), n=3, alpha=0.5, every=1)).Q.tolist()
    [[2.5], [0.0]]
    """
    return NStep(N_STEP_EXPECTED_SARSA, n, None, source, rng, alpha, eps, Q, limit, every, gamma).records()


def tree_backup(
    source: Any, rng: Rng, *, n: int, alpha: Alpha, eps: float = 0.1, eps_pi: float | None = None,
    Q: F | None = None, limit: int | None = None, every: int = BLOCK, gamma: float | None = None,
) -> Iterator[ActionUpdate]:  # fmt: skip
    """n-step tree backup: off-policy without importance sampling.

        G[k] = r[k] + discount (sum over a of pi(a|s[k+1]) Q(s[k+1],a), with G[k+1] in place of Q(s[k+1],a[k+1]))

    The last move of the n has the plain sum. eps explores; pi in the sums is eps_pi-greedy in Q, with eps_pi =
    eps unless given; 0 makes it greedy, so that the learner aims at the optimal values whatever eps. An action
    is drawn after the update of the step before. n=1 is expected SARSA, with eps_pi=0 Q-learning. A cut episode
    ends in the plain sum at the cut state. Everything else as in `n_step_sarsa`.
    Source: Precup, Sutton & Singh (2000); Sutton & Barto (2018), section 7.5, eq. 7.16.

    >>> from tabrl import MDP
    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> next(tree_backup(two, np.random.default_rng(0), n=3, alpha=0.5, every=1)).Q.tolist()
    [[2.5], [0.0]]
    """
    return NStep(TREE_BACKUP, n, eps_pi, source, rng, alpha, eps, Q, limit, every, gamma).records()


class NStep(Learner):
    """A learner that looks n steps ahead; `rule` says what it makes of them."""

    def __init__(self, rule: int, n: int, eps_pi: float | None, *settings: Any) -> None:
        if n < 1 or n % 1:
            raise ValueError(f"n is {n}; a whole number of steps, 1 or more, is expected")
        super().__init__(*settings)
        self.rule, self.n = rule, min(int(n), 2**62)
        self.ahead, self.draws = rule == N_STEP_SARSA, 4 if rule == N_STEP_SARSA else 3
        self.eps_pi = self.eps if eps_pi is None else float(eps_pi)
        fraction("eps_pi", self.eps_pi)
        self.waiting, self.error = empty_moves(0), np.zeros(1)

    def walk(self, model: Tables, at: I, u: F, out: Moves) -> float:
        """Act and learn on a model."""
        legal = None if self.legal.all() else self.legal
        x, before = self.behind(out), len(self.waiting.r)
        ahead, count = self.steps.ahead(len(x.r)), self.steps.count
        first = n_step_walk(
            self.rule, self.n, self.Q, legal, self.eps, self.eps_pi, ahead, count, model, self.limit, at, u, x,
            self.error,
        )  # fmt: skip
        for column, filled in zip(out, x, strict=True):
            column[:] = filled[before:]
        return self.keep(x, first)

    def update(self, x: Moves, u: F) -> float:
        """Learn from one step."""
        x = self.behind(x)
        ahead, count, h = self.steps.ahead(len(x.r)), self.steps.count, len(x.r) - 1
        first = catch_up(self.rule, self.n, self.Q, self.legal, self.eps_pi, ahead, count, x, 0, h, self.error)
        return self.keep(x, first)

    def behind(self, x: Moves) -> Moves:
        """Moves behind those that wait."""
        columns: Any = (np.concatenate(pair) for pair in zip(self.waiting, x, strict=True))
        return Moves(*columns)

    def keep(self, x: Moves, first: int) -> float:
        """Let the moves from `first` on wait; return the last error."""
        columns: Any = (column[first:].copy() for column in x)
        self.waiting = Moves(*columns)
        return float(self.error[0])
