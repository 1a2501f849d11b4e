"""Control from samples: action values of a good policy, learned while acting.

Q (S,A) action values; pi eps-greedy in Q: with probability eps any legal action, else one of the maximisers,
ties broken uniformly. alpha step size; delta TD error. Every learner is an endless generator of
`ActionUpdate` (take what is wanted with `itertools.islice`) over an explicit `MDP`, or a gymnasium
environment with discrete, multi-discrete or tuple observations.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tabrl import checks
from tabrl.branches import branches
from tabrl.control_kernels import DOUBLE_Q, EXPECTED_SARSA, Q_LEARNING, SARSA, Moves, choose, learn, update
from tabrl.errors import ModelError
from tabrl.mdp import MDP
from tabrl.prediction import Alpha, Steps, fraction
from tabrl.sample import BLOCK, Outcomes, Tables, numbered, tables
from tabrl.types import ActionUpdate, B, F

Rng = np.random.Generator
DRAWS = 4  # uniform numbers per step: action, outcome, start, one more


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

    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> x = next(q_learning(two, np.random.default_rng(0), alpha=0.5, every=2))
    >>> x.t, x.Q.tolist(), x.delta
    (2, [[3.75], [0.0]], 2.5)
    """
    return Learner(Q_LEARNING, source, rng, alpha, eps, Q, limit, every, gamma).records()


def sarsa(
    source: Any, rng: Rng, *, alpha: Alpha, eps: float = 0.1, Q: F | None = None, limit: int | None = None,
    every: int = BLOCK, gamma: float | None = None,
) -> Iterator[ActionUpdate]:  # fmt: skip
    """SARSA: the target uses the action that is taken next.

        Q(s,a) <- Q(s,a) + alpha (r + discount Q(s',a') - Q(s,a)),   a' drawn from pi(·|s')

    Arguments as in `q_learning`. Learns the values of the policy that acts. In a cut episode a' is drawn for
    the target and not taken. Source: Rummery & Niranjan (1994); Sutton & Barto (2018), section 6.4.

    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> next(sarsa(two, np.random.default_rng(0), alpha=0.5, every=1)).Q.tolist()
    [[2.5], [0.0]]
    """
    return Learner(SARSA, source, rng, alpha, eps, Q, limit, every, gamma).records()


def expected_sarsa(
    source: Any, rng: Rng, *, alpha: Alpha, eps: float = 0.1, Q: F | None = None, limit: int | None = None,
    every: int = BLOCK, gamma: float | None = None,
) -> Iterator[ActionUpdate]:  # fmt: skip
    """Expected SARSA: the target is the mean over the next action.

        Q(s,a) <- Q(s,a) + alpha (r + discount sum over a' of pi(a'|s') Q(s',a') - Q(s,a))

    Arguments as in `q_learning`. eps=0 is Q-learning with a greedy actor; eps=1 evaluates the uniform policy.
    Source: van Seijen et al. (2009); Sutton & Barto (2018), eq. 6.9.

    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> next(expected_sarsa(two, np.random.default_rng(0), alpha=0.5, every=1)).Q.tolist()
    [[2.5], [0.0]]
    """
    return Learner(EXPECTED_SARSA, source, rng, alpha, eps, Q, limit, every, gamma).records()


def double_q_learning(
    source: Any, rng: Rng, *, alpha: Alpha, eps: float = 0.1, Q: F | None = None, limit: int | None = None,
    every: int = BLOCK, gamma: float | None = None,
) -> Iterator[ActionUpdate]:  # fmt: skip
    """Double Q-learning: one table chooses the best next action, the other says what it is worth.

        Q1(s,a) <- Q1(s,a) + alpha (r + discount Q2(s', argmax Q1(s',·)) - Q1(s,a)),   or the roles swapped

    A fair coin picks the table that moves; both start from Q. The records hold their mean, in which the
    policy is eps-greedy. A schedule counts the updates of a pair in both tables together. Other arguments as
    in `q_learning`. Source: van Hasselt (2010); Sutton & Barto (2018), section 6.7.

    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> next(double_q_learning(two, np.random.default_rng(0), alpha=0.5, every=1)).Q.tolist()
    [[1.25], [0.0]]
    """
    return Learner(DOUBLE_Q, source, rng, alpha, eps, Q, limit, every, gamma).records()


class Learner:
    """A one-step learner at work: its tables, its step sizes, and where it stands."""

    def __init__(
        self, rule: int, source: Any, rng: Rng, alpha: Alpha, eps: float, Q: F | None, limit: int | None,
        every: int, gamma: float | None,
    ) -> None:  # fmt: skip
        fraction("eps", eps)
        if every < 1:
            raise ValueError(f"every is {every}; a record after every 1 or more steps is expected")
        if limit is not None and limit < 1:
            raise ValueError(f"limit is {limit}; at least one step per episode is expected")
        self.rule, self.source, self.rng, self.eps = rule, source, rng, float(eps)
        self.gamma, self.legal = world(source, gamma)
        self.limit, self.every = limit or 2**62, every
        self.Q = np.zeros(self.legal.shape) if Q is None else checks.real(Q, "Q", self.legal.shape)
        self.Q[~self.legal] = 0.0
        self.pair = np.stack([self.Q, self.Q]) if rule == DOUBLE_Q else np.zeros((2, 0, 0))
        self.steps = Steps(alpha, self.Q.size)

    def records(self) -> Iterator[ActionUpdate]:
        """Yield the action values after every `every` transitions."""
        t = 0
        for x, delta in self.moves():
            t += len(x.r)
            if t % self.every == 0:
                yield ActionUpdate(t, self.Q.copy(), delta)

    def moves(self) -> Iterator[tuple[Moves, float]]:
        """Act and learn; yield the transitions used since the last time, and the last error."""
        return self.model_moves() if isinstance(self.source, MDP) else self.gym_moves()

    def model_moves(self) -> Iterator[tuple[Moves, float]]:
        """Walk an explicit model, in blocks that stop at every multiple of `every`."""
        model, at, t = pairs(self.source), np.array([-1, -1, 0]), 0
        while True:
            n = min(BLOCK, self.every - t % self.every)
            u, out = self.rng.random((n, DRAWS)), empty_moves(n)
            ahead, count = self.steps.ahead(n), self.steps.count
            delta = learn(
                self.rule, self.Q, self.pair, self.legal, self.eps, ahead, count, model, self.limit, at, u, out
            )
            t += n
            yield out, float(delta)

    def gym_moves(self) -> Iterator[tuple[Moves, float]]:
        """Walk a gymnasium environment, one episode after the other, one transition at a time."""
        env, number = self.source, numbered(self.source.observation_space)
        first = int(env.action_space.start)
        while True:
            observation, info = env.reset(seed=int(self.rng.integers(2**31)))
            s, over, steps = number(observation), False, 0
            self.see(s, info)
            a = choose(self.Q, self.legal, s, self.eps, self.rng.random()) if self.rule == SARSA else -1
            while not over:
                x, coin = self.rng.random(2).tolist()
                if self.rule != SARSA:
                    a = choose(self.Q, self.legal, s, self.eps, x)
                observation, reward, terminated, truncated, info = env.step(a + first)
                s_next, a_next, r, discount = number(observation), -1, float(reward), 0.0 if terminated else self.gamma
                self.see(s_next, info)
                if self.rule == SARSA:
                    a_next = choose(self.Q, self.legal, s_next, self.eps, x)
                delta = update(
                    self.rule, self.Q, self.pair, self.legal, self.eps, s, a, r, discount, s_next, a_next, coin,
                    self.steps.ahead(1), self.steps.count,
                )  # fmt: skip
                steps += 1
                over = terminated or truncated or steps >= self.limit
                yield one_move(s, a, r, discount, s_next, a_next, over), float(delta)
                s, a = s_next, a_next

    def see(self, s: int, info: Any) -> None:
        """Take over the legal actions of state s where the environment lists them."""
        if "action_mask" in info:
            mask = np.asarray(info["action_mask"], np.bool_)
            self.legal[s] = mask if mask.any() else True


def world(source: Any, gamma: float | None) -> tuple[float, B]:
    """Return the discount and the legal actions (S,A) of a model or a gymnasium environment."""
    if isinstance(source, MDP):
        if gamma is not None and gamma != source.gamma:
            raise ModelError(f"gamma is {gamma}; the model's own, {source.gamma:g}, is expected, or none")
        return source.gamma, source.legal.copy()
    numbered(source.observation_space)
    A = getattr(source.action_space, "n", None)
    if A is None or not hasattr(source.action_space, "start"):
        raise ModelError(f"action_space is {source.action_space}; a discrete space is expected")
    if gamma is None:
        raise ValueError("gamma is None; a gymnasium environment has no discount of its own, give one")
    return checks.discount(gamma), np.ones((size(source.observation_space), int(A)), np.bool_)


def size(space: Any) -> int:
    """Count the observations of a discrete, multi-discrete or tuple space."""
    if hasattr(space, "spaces"):
        return int(np.prod([int(p.n) for p in space.spaces]))
    return int(np.prod(space.nvec)) if hasattr(space, "nvec") else int(space.n)


def pairs(mdp: MDP) -> Tables:
    """Lay out what can follow each state and action of a model, for sampling in constant time."""
    x = branches(mdp)
    return tables(mdp, Outcomes(x.s * mdp.A + x.a, x.a, x.s_next, x.R, x.P), mdp.S * mdp.A)


def empty_moves(n: int) -> Moves:
    """Room for n transitions."""
    s, a, s_next, a_next = (np.empty(n, np.int64) for _ in range(4))
    return Moves(s, a, np.empty(n), np.empty(n), s_next, a_next, np.empty(n, np.bool_))


def one_move(s: int, a: int, r: float, discount: float, s_next: int, a_next: int, last: bool) -> Moves:
    """One transition as arrays of length 1."""
    columns: Any = (np.array([x]) for x in (s, a, r, discount, s_next, a_next, last))
    return Moves(*columns)
