"""Acting while learning: what all control learners share.

Q (S,A) action values; eps exploration; u uniform numbers of one step: u[0] the action, u[1] the outcome, u[2] the
start of an episode, the rest the learner's own. A learner acts eps-greedily in Q, on an explicit `MDP` by a kernel
that walks and learns, on a gymnasium environment one step at a time.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from tabrl import checks
from tabrl.branches import branches
from tabrl.control.kernels import Moves, choose
from tabrl.errors import ModelError
from tabrl.mdp import MDP
from tabrl.sample import BLOCK, Outcomes, Tables, numbered, tables
from tabrl.schedules import Alpha, Steps, fraction
from tabrl.types import ActionUpdate, B, F, I

Rng = np.random.Generator


class Learner(ABC):
    """A control learner at work: its action values, its step sizes, and where it stands.

    A subclass says how to learn from one step (`update`), and how to walk and learn in one kernel (`walk`).
    """

    draws = 4  # uniform numbers per step: action, outcome, start, and the learner's own
    ahead = False  # whether the next action is chosen before the update, and then taken

    def __init__(
        self, source: Any, rng: Rng, alpha: Alpha, eps: float, Q: F | None, limit: int | None, every: int,
        gamma: float | None,
    ) -> None:  # fmt: skip
        fraction("eps", eps)
        if every < 1:
            raise ValueError(f"every is {every}; a record after every 1 or more steps is expected")
        if limit is not None and limit < 1:
            raise ValueError(f"limit is {limit}; at least one step per episode is expected")
        self.source, self.rng, self.eps = source, rng, float(eps)
        self.gamma, self.legal = world(source, gamma)
        self.limit, self.every = limit or 2**62, every
        self.Q = np.zeros(self.legal.shape) if Q is None else checks.real(Q, "Q", self.legal.shape)
        self.Q[~self.legal] = 0.0
        self.steps = Steps(alpha, self.Q.size)

    @abstractmethod
    def walk(self, model: Tables, at: I, u: F, out: Moves) -> float:
        """Act and learn for len(u) steps on a model, fill `out`, and return the last error.

        at: state (-1: start an episode), next action (where `ahead`) and steps so far; carried over.
        """

    @abstractmethod
    def update(self, x: Moves, u: F) -> float:
        """Learn from one step, given as arrays of length 1, with the uniform numbers u (draws,)."""

    def records(self) -> Iterator[ActionUpdate]:
        """Yield the action values after every `every` transitions."""
        t = 0
        for x, delta in self.moves():
            t += len(x.r)
            if t % self.every == 0:
                yield ActionUpdate(t, self.Q.copy(), delta)

    def columns(self, model: Tables) -> int:
        """Uniform numbers per step of a model: none for the start, where it comes last and there is only one."""
        return 2 if self.draws == 3 and len(model.start) == 1 else self.draws

    def moves(self) -> Iterator[tuple[Moves, float]]:
        """Act and learn; yield the transitions used since the last time, and the last error."""
        return self.model_moves() if isinstance(self.source, MDP) else self.gym_moves()

    def model_moves(self) -> Iterator[tuple[Moves, float]]:
        """Walk an explicit model, in blocks that stop at every multiple of `every`."""
        model, at, t = pairs(self.source), np.array([-1, -1, 0]), 0
        room = np.empty((min(BLOCK, self.every), self.columns(model)))
        while True:
            n = min(BLOCK, self.every - t % self.every)
            u, out = self.rng.random(out=room[:n]), empty_moves(n)
            delta = self.walk(model, at, u, out)
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
            a = self.first_action(s) if self.ahead else -1
            while not over:
                u = self.rng.random(self.draws)
                a = a if self.ahead else self.action(s, u[0])
                observation, reward, terminated, truncated, info = env.step(a + first)
                s_next, steps = number(observation), steps + 1
                self.see(s_next, info)
                over = terminated or truncated or steps >= self.limit
                a_next = self.action(s_next, u[0]) if self.ahead else -1
                x = one_move(s, a, float(reward), 0.0 if terminated else self.gamma, s_next, a_next, over)
                yield x, float(self.update(x, u))
                s, a = s_next, a_next

    def first_action(self, s: int) -> int:
        """Choose the first action of an episode, before its first step."""
        return self.action(s, self.rng.random())

    def action(self, s: int, u: float) -> int:
        """Draw an eps-greedy action in state s."""
        return choose(self.Q, self.legal, s, self.eps, u)

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
