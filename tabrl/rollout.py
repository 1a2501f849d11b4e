"""Rollouts: what a fixed policy meets, the data of one update of a policy-gradient method.

pi (S,A) policy; s, a, r, discount, s_next, last, logp (n,) steps of one or many episodes, one after the other;
discount is gamma, and 0 where s_next is terminal; a time limit keeps gamma.
"""

from typing import Any, NamedTuple

import numpy as np

from tabrl import checks
from tabrl.chain import induce, occupancy
from tabrl.control.acting import Rng, pairs, world
from tabrl.errors import ModelError, NotConverged
from tabrl.mdp import MDP
from tabrl.policy import log
from tabrl.rollout_gym import Copies
from tabrl.rollout_kernels import play
from tabrl.sample import BLOCK
from tabrl.types import B, F, I


class Rollout(NamedTuple):
    """Steps of one or many fragments, one after the other."""

    s: I  # (n,)
    a: I  # (n,)
    r: F  # (n,) the reward that follows a
    discount: F  # (n,) gamma; 0 where s_next is terminal; a time limit keeps gamma
    s_next: I  # (n,)
    last: B  # (n,) whether the fragment ends with this step: a terminal state, a time limit, or see `Actor.steps`
    logp: F  # (n,) log pi(a|s) of the policy that acted


class Actor:
    """Someone who acts: plays the policies that it is given, one after the other, on a model or an environment.

    source: an `MDP`; a gymnasium environment with discrete, multi-discrete or tuple observations; or a gymnasium vector
    environment of such, whatever its autoreset mode (the step that only resets is no transition and is left out).
    gamma: the discount of an environment (a model has its own). limit: largest number of steps of an episode; a cut
    episode keeps its discount. S, A: sizes; legal (S,A): legal actions, for an environment those it has listed so far;
    an action that turns out to be illegal is not taken, the others share its probability. A model uses three uniform
    numbers per step, however the steps are asked for. Source: Sutton & Barto (2018), section 13.3.

    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> x = Actor(two, np.random.default_rng(0)).steps(np.ones((2, 1)), 2)
    >>> x.r, x.discount, x.last, x.logp
    (array([5., 5.]), array([0., 0.]), array([ True,  True]), array([0., 0.]))
    """

    def __init__(self, source: Any, rng: Rng, *, gamma: float | None = None, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit is {limit}; at least one step per episode is expected")
        if isinstance(source, MDP):
            self.gamma, self.legal = world(source, gamma)
            self.play: ModelPlay | Copies = ModelPlay(source, rng, limit or 2**62)
        else:
            self.play = Copies(source, rng, gamma, limit or 2**62)
            self.gamma, self.legal = self.play.gamma, self.play.legal  # one array, which grows with what is seen
        self.S, self.A = self.legal.shape

    def steps(self, pi: F, n: int) -> Rollout:
        """Take the next n steps of the running episodes.

        pi: (S,A). A vector environment of N copies takes its steps in rounds: n or more, fewer than n + N, copy by
        copy; there `last` also marks the last step of each copy. One stream is not marked where it is broken off.
        """
        return self.rolled(pi, n, self.play.steps)

    def episodes(self, pi: F, n: int) -> Rollout:
        """Play n whole episodes from their start; running ones are given up.

        The copies of a vector environment play n/N each, so that short episodes are not preferred. A policy that may
        never end needs a limit: ModelError on a model, no answer from an environment.
        """
        return self.rolled(pi, n, self.play.episodes)

    def rolled(self, pi: F, n: int, play: Any) -> Rollout:
        """Check the arguments, and add what the policy thought of its actions."""
        if n < 1:
            raise ValueError(f"n is {n}; 1 or more are expected")
        known = self.legal.copy() if isinstance(self.play, ModelPlay) else None
        pi = checks.policy(pi, self.S, self.A, known)
        s, a, r, discount, s_next, last, *p = play(pi, n)
        return Rollout(s, a, r, discount, s_next, last, log(p[0] if p else pi[s, a]))


class ModelPlay:
    """Acting on an explicit model: one stream of steps, compiled."""

    def __init__(self, mdp: MDP, rng: Rng, limit: int) -> None:
        self.mdp, self.rng, self.limit = mdp, rng, limit
        self.model = pairs(mdp)
        self.at = np.array([-1, 0, 0])
        self.spare = np.empty((0, 3))  # uniform numbers that the last episodes did not need
        self.proven = np.zeros((0, 0), np.bool_)  # actions of the last policy that was shown to end

    def steps(self, pi: F, n: int) -> tuple[Any, ...]:
        """Take the next n steps."""
        return self.block(pi, self.uniform(n), -1)

    def episodes(self, pi: F, n: int) -> tuple[Any, ...]:
        """Play n episodes."""
        self.must_end(pi)
        self.at[:] = -1, 0, 0
        parts = []
        while self.at[2] < n:
            u = self.uniform(len(self.spare) or BLOCK)
            parts.append(self.block(pi, u, n))
            self.spare = u[len(parts[-1][0]) :]
        return tuple(np.concatenate(x) for x in zip(*parts, strict=True)) if len(parts) > 1 else parts[0]

    def block(self, pi: F, u: F, whole: int) -> tuple[Any, ...]:
        """Take len(u) steps, or fewer where enough episodes have ended."""
        n = len(u)
        s, a, s_next = (np.empty(n, np.int64) for _ in range(3))
        r, discount, last = np.empty(n), np.empty(n), np.empty(n, np.bool_)
        n = play(pi, self.model, self.limit, whole, self.at, u, s, a, r, discount, s_next, last)
        return tuple(x[:n] for x in (s, a, r, discount, s_next, last))

    def uniform(self, n: int) -> F:
        """Uniform numbers of n steps, the spare ones first."""
        old, self.spare = self.spare[:n], self.spare[n:]
        return old if len(old) == n else np.concatenate([old, self.rng.random((n - len(old), 3))])

    def must_end(self, pi: F) -> None:
        """Require an end of the episodes; a policy with the same possible actions as the last one need not be tried."""
        if self.limit < 2**62 or np.array_equal(self.proven, pi > 0):
            return
        try:
            occupancy(induce(self.mdp, pi)._replace(gamma=1.0), self.mdp.mu)
        except (ModelError, NotConverged) as error:
            raise ModelError("limit is None; a number of steps is expected, as this policy may never end") from error
        self.proven = pi > 0
